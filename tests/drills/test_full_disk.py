"""A disk that fills up on the way: a small one of its own, really full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from job.checkpoints import names, read
from tests.drills.conftest import STEPS

pytestmark = pytest.mark.drill  # mounts, so it needs root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The work dir's."""
    with mounted(tmp_path / "work") as folder:
        yield folder


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """16 MiB of memory as the file system of this folder."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "drill", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.fail(f"this drill mounts a tmpfs, for which it must be root: {mounted.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def free(disk: Path) -> None:
    (disk / "run-a/ballast").unlink()


@pytest.mark.parametrize(
    ("order", "goes_on_after"),
    [
        ({"fills_in": "data"}, None),
        ({"fills_at": 5}, 4),
        ({"fills_in": "save"}, 12),
        ({"fills_in": "merge"}, None),
    ],
    ids=["data", "checkpoint and events", "adapter", "merge"],
)
def test_a_disk_that_fills_ends_with_71_and_loses_nothing(drill, small_disk, order, goes_on_after):
    run = drill()
    run.order(**order, out=str(run.run_folder))
    ended = run.run()
    assert ended.code == 71, ended.text
    assert "full" in ended.line["message"]
    assert ended.line["retryable"] is True
    assert (run.place / "failure.json").exists()
    assert not (run.place / "receipt.json").exists()
    kept = names(run.run_folder / "checkpoints")
    if goes_on_after:
        assert read(run.run_folder / "checkpoints" / kept[-1]).step == goes_on_after
    free(small_disk)
    run.is_done(run.run())
    resumed = [event["step"] for event in run.said("resumed")]
    assert resumed == ([goes_on_after] if goes_on_after else [])


@pytest.mark.parametrize(
    ("where", "words"),
    [("out", "no space left to write to"), (".", "is full")],
    ids=["the destination's", "the only one"],
)
def test_a_disk_that_fills_while_the_receipt_is_written_leaves_none_and_the_next_start_writes_it(
    drill, tmp_path, where, words
):
    with mounted(tmp_path / where) as disk:
        run = drill()
        ended = run.run(DRILL_FILL=str(disk))
        assert ended.code == 71, ended.text
        assert words in ended.line["message"]
        assert [path for path in run.place.rglob("*receipt*") if path.is_file()] == []
        assert (run.place / "adapter/adapter_model.safetensors").exists()
        (disk / "ballast").unlink()
        run.is_done(run.run())
        assert len(run.said("step")) == STEPS


def test_a_disk_that_is_too_small_is_refused_before_anything_with_the_sum(drill, small_disk):
    run = drill()
    (small_disk / "something").write_bytes(bytes(15 << 20))
    ended = run.run()
    assert ended.code == 71, ended.text
    assert "report, logs, caches" in ended.text
    assert "still to be written" in ended.text
    assert "JOB_WORK_DIR" in ended.line["message"]
    assert run.said("ready") == []
    (small_disk / "something").unlink()
    run.is_done(run.run())

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from job.errors import DataError, OutOfResources, Stopped
from job.sources import RemoteFile, transfer
from job.sources.files import inside, remove_others
from job.sources.transfer import Aborted, Incomplete, Tally, run_all, stream
from tests.sources.parts import Watch

CONTENT = bytes(range(256)) * 100


class Cut(Exception):
    """A connection that broke."""


class Server:
    """Serves CONTENT from an offset; breaks off after the given numbers of bytes, in turn."""

    def __init__(self, *breaks: int | None, can_resume: bool = True, content: bytes = CONTENT):
        self.breaks, self.can_resume, self.content = list(breaks), can_resume, content
        self.offsets: list[int] = []

    @contextmanager
    def open_at(self, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        self.offsets.append(offset)
        start = offset if self.can_resume else 0
        yield start, self.chunks(start)

    def chunks(self, start: int) -> Iterator[bytes]:
        length = self.breaks.pop(0) if self.breaks else None
        end = len(self.content) if length is None else start + length
        for at in range(start, end, 1000):
            yield self.content[at : min(at + 1000, end)]
        if length is not None:
            raise Cut


def fetch(server: Server, target: Path, version: str | None = "v1") -> Tally:
    tally = Tally()
    stream(server.open_at, target, version, len(CONTENT), tally, lambda e: isinstance(e, Cut))
    return tally


@pytest.mark.parametrize("can_resume", [True, False])
def test_a_download_that_breaks_goes_on_or_starts_anew(tmp_path: Path, can_resume: bool):
    server = Server(5000, 3000, can_resume=can_resume)
    tally = fetch(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert server.offsets == [0, 5000, 8000 if can_resume else 3000]
    assert tally.done == len(CONTENT)
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def break_off(target: Path, version: str | None, after: int) -> None:
    """What a process that is killed in a download leaves."""

    def kill(error: BaseException) -> bool:
        return False

    with pytest.raises(Cut):
        stream(Server(after).open_at, target, version, len(CONTENT), Tally(), kill)


def test_the_next_process_goes_on_where_the_last_was_killed(tmp_path: Path):
    break_off(tmp_path / "x", "v1", 7000)
    assert not (tmp_path / "x").exists()
    server = Server()
    tally = fetch(server, tmp_path / "x")
    assert server.offsets == [7000]
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert tally.done == len(CONTENT)


@pytest.mark.parametrize("version", ["v2", None])
def test_the_part_of_another_or_unknown_version_is_not_continued(
    tmp_path: Path, version: str | None
):
    break_off(tmp_path / "x", "v1" if version else None, 7000)
    server = Server()
    fetch(server, tmp_path / "x", version)
    assert server.offsets == [0]
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_part_that_grew_too_long_is_started_anew(tmp_path: Path):
    break_off(tmp_path / "x", "v1", 7000)
    next(tmp_path.iterdir()).write_bytes(CONTENT + b"more")
    server = Server()
    fetch(server, tmp_path / "x")
    assert server.offsets == [0]
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_stream_that_ends_early_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfer, "PATIENCE", 0.0)
    with pytest.raises(Incomplete, match="999 of 25600 bytes"):
        fetch(Server(content=CONTENT[:999]), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_patience_ends_and_the_last_error_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transfer, "PATIENCE", 0.5)
    server = Server(*[0] * 50)
    with pytest.raises(Cut):
        fetch(server, tmp_path / "x")
    assert 2 <= len(server.offsets) < 10


def test_progress_is_told_in_the_calling_thread_while_workers_work(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(transfer, "TICK", 0.05)
    threads: list[threading.Thread] = []
    watch = Watch()

    def progress(what: str, done: int, total: int) -> None:
        threads.append(threading.current_thread())
        watch(what, done, total)

    def task(tally: Tally) -> None:
        for _ in range(4):
            time.sleep(0.1)
            tally.add(25)

    run_all([task, task], 200, "model", progress)
    assert watch.calls[0] == ("model", 0, 200)
    assert watch.calls[-1] == ("model", 200, 200)
    assert len(watch.calls) > 4
    assert {*threads} == {threading.current_thread()}


def test_what_the_progress_callback_raises_ends_the_workers():
    ended: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        if done:
            raise Stopped("SIGTERM")

    def task(tally: Tally) -> None:
        try:
            while True:
                time.sleep(0.01)
                tally.add(1)
        except Aborted:
            ended.append("aborted")
            raise

    with pytest.raises(Stopped, match="SIGTERM"):
        run_all([task, task], 10**9, "model", progress)
    assert ended == ["aborted", "aborted"]


def test_a_failing_file_ends_the_others():
    def fails(tally: Tally) -> None:
        raise DataError("bad")

    def endless(tally: Tally) -> None:
        while True:
            time.sleep(0.01)
            tally.add(1)

    with pytest.raises(DataError, match="bad"):
        run_all([endless, fails], 0, "model", Watch())


def test_a_full_disk_is_told_as_such():
    def task(tally: Tally) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutOfResources, match=r"disk is full while fetching model.*JOB_WORK_DIR"):
        run_all([task], 100, "model", Watch())


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a\\..\\b", ""])
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str):
    with pytest.raises(DataError, match="outside its folder"):
        inside(tmp_path, name, "Dataset x")


def test_what_another_revision_left_is_removed_and_the_hub_clients_notes_stay(tmp_path: Path):
    for name in ("config.json", "old.safetensors", "sub/old.jinja", ".cache/huggingface/note"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove_others(tmp_path, [RemoteFile("config.json", 0)])
    left = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(left) == [".cache/huggingface/note", "config.json"]

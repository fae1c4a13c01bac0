"""A folder as a store: what only a folder can do or suffer."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from job.errors import AccessRefused, InternalError
from job.hashing import FileRecord, hash_file
from job.store.file import FileStore
from job.store.keys import Sent
from job.store.objects import ObjectDestination
from tests.store.conftest import no_progress


def test_of_many_threads_one_creates_and_every_swap_counts(tmp_path: Path):
    stores = [FileStore(tmp_path / "run") for _ in range(8)]
    created: list[str] = []
    swaps: list[int] = []

    def work(store: FileStore) -> None:
        if store.put_if_absent("counter", b"0"):
            created.append(store.uri)
        for _ in range(5):
            while True:
                found = store.get("counter")
                assert found is not None
                number = int(found.content) + 1
                if store.put_if_match("counter", str(number).encode(), found.etag):
                    swaps.append(number)
                    break

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(created) == 1
    assert sorted(swaps) == list(range(1, 41))  # no number twice: no swap was lost
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["counter"]


def test_a_writer_killed_in_the_middle_leaves_the_old_file(tmp_path: Path):
    store = FileStore(tmp_path)
    store.put("receipt.json", b"old")
    code = (
        "import os, job.store.file as f; from pathlib import Path\n"
        "f.os.replace = lambda *a: os.kill(os.getpid(), 9)\n"
        f"f.FileStore(Path({str(tmp_path)!r})).put('receipt.json', b'new')"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == -9
    found = store.get("receipt.json")
    assert found is not None
    assert found.content == b"old"


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path):
    outside, inside = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    inside.mkdir()
    (inside / "adapter").symlink_to(outside)
    with pytest.raises(InternalError, match="link leads out"):
        FileStore(inside).put("adapter/x", b"escaped")
    assert list(outside.iterdir()) == []


def test_a_file_in_the_way_of_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(AccessRefused, match="in the way"):
        ObjectDestination(FileStore(tmp_path / "out" / "run-a")).check()


@pytest.mark.parametrize("folder", ["/sys/run-a", "/proc/run-a"])
def test_a_folder_that_may_not_be_written_is_refused(folder: str):
    with pytest.raises(AccessRefused, match=r"not writable|cannot be made"):
        ObjectDestination(FileStore(Path(folder))).check()


def test_check_keeps_a_folder_that_was_there(tmp_path: Path):
    folder = tmp_path / "out"
    folder.mkdir()
    ObjectDestination(FileStore(folder / "run-a")).check()
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


def test_a_damaged_file_of_an_earlier_attempt_is_replaced(tmp_path: Path):
    source = tmp_path / "weights"
    source.write_bytes(b"right")
    store = FileStore(tmp_path / "run")
    store.put("adapter/weights", b"wrong")
    record = FileRecord("weights", 5, hash_file(source))
    store.put_file("adapter/weights", source, record, Sent("adapter", 5, no_progress))
    assert store.digest("adapter/weights") == (5, record.sha256)

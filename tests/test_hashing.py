"""Sizes and hashes of folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

from job.hashing import FileRecord, hash_file, hash_folder


def test_a_file_is_hashed_by_its_content(tmp_path: Path):
    path = tmp_path / "large"
    path.write_bytes(b"x" * (3 * 2**20 + 1))
    assert hash_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_is_listed_in_order_with_its_prefix(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_bytes(b"c")
    (tmp_path / "b.txt").write_bytes(b"")
    (tmp_path / "a").mkdir()  # an empty folder is nothing
    empty = hashlib.sha256(b"").hexdigest()
    assert hash_folder(tmp_path, "adapter/") == [
        FileRecord("adapter/b.txt", 0, empty),
        FileRecord("adapter/b/c.txt", 1, hashlib.sha256(b"c").hexdigest()),
    ]

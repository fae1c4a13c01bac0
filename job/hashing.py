"""What a folder holds, by size and SHA-256: the words in which receipts and uploads are checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileRecord:
    """One file of a folder.

    Attributes:
        path: relative POSIX path, e.g. `adapter/adapter_model.safetensors`.
        size: bytes.
        sha256: 64 hexadecimal digits of the content.
    """

    path: str
    size: int
    sha256: str


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits; constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def holds(folder: Path, file: FileRecord) -> bool:
    """Whether the folder holds this file, byte for byte."""
    path = folder / file.path
    whole = path.is_file() and path.stat().st_size == file.size
    return whole and hash_file(path) == file.sha256


def hash_folder(folder: Path, prefix: str = "") -> list[FileRecord]:
    """Every file below `folder`, sorted by path.

    Args:
        folder: an existing folder; links inside it are followed to files.
        prefix: put before each relative path, e.g. `adapter/`.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    records = [
        FileRecord(
            prefix + path.relative_to(folder).as_posix(), path.stat().st_size, hash_file(path)
        )
        for path in paths
    ]
    return sorted(records, key=lambda record: record.path)

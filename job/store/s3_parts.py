"""A file in parts, as S3 counts and checks them."""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import InternalError
from job.hashing import FileRecord

MOST_PARTS = 10_000  # a limit of S3
_CHUNK = 8 * 2**20


@dataclass(frozen=True)
class Part:
    """Some bytes of a file: `number` counts from 1, `start` and `size` are bytes."""

    number: int
    start: int
    size: int
    md5: bytes
    crc32: int

    @property
    def content_md5(self) -> str:
        """As the header Content-MD5 wants it."""
        return base64.b64encode(self.md5).decode()

    def is_stored_as(self, entry: Any) -> bool:
        """Whether a store that describes a part like this (ListParts) has these bytes.

        By MD5, which an ETag is as a rule; where the store makes its ETags otherwise (S3 under
        SSE-KMS), by the CRC32 that botocore sends and S3 keeps.
        """
        if entry["Size"] != self.size:
            return False
        crc32 = base64.b64encode(self.crc32.to_bytes(4, "big")).decode()
        etag = str(entry["ETag"]).strip('"')
        return etag == self.md5.hex() or entry.get("ChecksumCRC32") == crc32


def part_bytes(size: int, least: int) -> int:
    """Bytes of one part, so that a file has at most 10,000 of them.

    A file of 5 TB, the largest that S3 took for long, has parts of 500 MB, the largest that RunPod
    takes.
    """
    return max(least, -(-size // MOST_PARTS))


def split(path: Path, record: FileRecord, part: int) -> list[Part]:
    """The file in parts of `part` bytes, the last one shorter; an empty file is one empty part.

    Raises:
        InternalError: the file is no longer the one that was recorded.
    """
    sha256 = hashlib.sha256()
    parts: list[Part] = []
    with path.open("rb") as file:
        for start in range(0, max(record.size, 1), part):
            md5, crc32, size = hashlib.md5(usedforsecurity=False), 0, 0
            while chunk := file.read(min(_CHUNK, part - size)):
                md5.update(chunk)
                sha256.update(chunk)
                crc32 = zlib.crc32(chunk, crc32)
                size += len(chunk)
            parts.append(Part(len(parts) + 1, start, size, md5.digest(), crc32))
    if sha256.hexdigest() != record.sha256:
        raise InternalError(f"{path.name} changed after it was hashed")
    return parts


def etag_of(parts: list[Part], *, multipart: bool) -> str:
    """The ETag that S3 gives an object that was sent like this, in one request or in parts."""
    if not multipart:
        return parts[0].md5.hex()
    joined = hashlib.md5(b"".join(part.md5 for part in parts), usedforsecurity=False)
    return f"{joined.hexdigest()}-{len(parts)}"

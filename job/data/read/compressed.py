"""Files as streams of bytes: gzip and zstd are unpacked on the way, bombs refused before."""

from __future__ import annotations

import errno
import io
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any, Literal

from job.errors import DataError, OutOfResources

Codec = Literal["gzip", "zstd"]

BOMB_BYTES = 1 << 30
BOMB_RATIO = 200
"""What unpacks to more than both, bytes and times its size, is no data set but a trap."""

_CHUNK = 1 << 20
_WORDS = {
    "Truncated compressed stream": "it is cut off; copy or download it again",
    "incorrect header check": "something else follows the packed data",
    "unknown compression method": "something else follows the packed data",
    "Unknown frame descriptor": "something else follows the packed data",
    "incorrect data check": "its checksum is wrong",
    "doesn't match checksum": "its checksum is wrong",
}


def codec_of(head: bytes) -> Codec | None:
    """How data that begins so is packed; None when it is not."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    # The second is a frame that holds no data, which parallel packers put first (RFC 8878, 3.1.2).
    is_skippable = head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F
    return "zstd" if head.startswith(b"\x28\xb5\x2f\xfd") or is_skippable else None


def packed_as(path: Path) -> Codec | None:
    """How a file is packed, by its first bytes."""
    with path.open("rb") as file:
        return codec_of(file.read(4))


def open_bytes(path: Path, codec: Codec | None) -> IO[bytes]:
    """The file's content, unpacked; reads as much ahead as one chunk."""
    if codec is None:
        return path.open("rb", buffering=_CHUNK)
    import pyarrow  # heavy, and needed for packed files only

    raw: Any = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), codec)
    return io.BufferedReader(raw, _CHUNK)


def check_packed(path: Path, codec: Codec, into: IO[bytes] | None = None) -> None:
    """Unpack a file from end to end before anything of it is used, in memory of a few chunks.

    Args:
        into: takes the content, when it is given.

    Raises:
        DataError: the file is cut off, damaged or a bomb.
    """
    most = max(BOMB_BYTES, BOMB_RATIO * path.stat().st_size)
    unpacked = 0
    try:
        with closing(open_bytes(path, codec)) as stream:
            while chunk := stream.read(_CHUNK):
                unpacked += len(chunk)
                if unpacked > most:
                    break
                if into is not None:
                    into.write(chunk)
    except OSError as error:
        if error.errno is not None:
            raise
        reason = next((words for sign, words in _WORDS.items() if sign in str(error)), None)
        raise DataError(
            f"{path.name} is {codec} data that cannot be unpacked: {reason or 'it is damaged'}."
        ) from error
    if unpacked > most:
        raise DataError(
            f"{path.name} unpacks to over {most >> 20:,} MiB, more than {BOMB_RATIO} times its "
            "size: it is taken for a decompression bomb. Give the data unpacked."
        )


def unpacked_copy(path: Path, codec: Codec) -> IO[bytes]:
    """The content in a nameless temporary file, for what must be read out of order.

    Raises:
        DataError: as check_packed.
        OutOfResources: the temporary folder is full.
    """
    with ExitStack() as stack:
        copy = stack.enter_context(tempfile.TemporaryFile())
        try:
            check_packed(path, codec, copy)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OutOfResources(
                f"The disk is full while {path.name} is unpacked into {tempfile.gettempdir()}: "
                "give JOB_WORK_DIR a larger volume, or the file unpacked."
            ) from error
        copy.seek(0)
        stack.pop_all()
    return copy

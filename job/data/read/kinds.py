"""What a file is, told by its first bytes and never by its name."""

from __future__ import annotations

import csv
from typing import Literal, NamedTuple

from job.data.read.recognise import NEAR, READ
from job.errors import DataError

Kind = Literal["parquet", "json", "json-lines", "csv", "tsv"]

HEAD = 1 << 16
"""So many bytes are looked at."""

BOM = b"\xef\xbb\xbf"
READABLE = "read are JSON, JSON Lines, CSV and Parquet, each also .gz or .zst"


class _Other(NamedTuple):
    start: bytes
    what: str
    way_out: str
    offset: int = 0


_CONVERT = "convert it to JSON Lines or Parquet"
_UNPACK = "unpack it and give the data files"
_DECRYPT = "decrypt it first"
_UTF8 = "save it as UTF-8"
_NEVER = "it can hold code and is never loaded; export JSON Lines or Parquet"
_DOWNLOAD = "the address leads to a page and not to the file; give the download link"
_OTHERS = (
    _Other(b"PARE", "an encrypted Parquet file", _DECRYPT),
    _Other(b"PK\x03\x04", "a zip archive", _UNPACK),
    _Other(b"PK\x05\x06", "an empty zip archive", _UNPACK),
    _Other(b"ustar", "a tar archive", _UNPACK, offset=257),
    _Other(b"BZh", "bzip2 data", "pack it with gzip or zstd, or not at all"),
    _Other(b"\xfd7zXZ\0", "xz data", "pack it with gzip or zstd, or not at all"),
    _Other(b"\x04\x22\x4d\x18", "lz4 data", "pack it with gzip or zstd, or not at all"),
    _Other(b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    _Other(b"Rar!", "a rar archive", _UNPACK),
    *(_Other(b"\x80" + bytes([v]), "a Python pickle", _NEVER) for v in (2, 3, 4, 5)),
    *(_Other(start, "a Python pickle", _NEVER) for start in (b"(lp", b"(dp", b"]q\0", b"}q\0")),
    _Other(b"\x93NUMPY", "a NumPy array", _CONVERT),
    _Other(b"ARROW1", "an Arrow file", _CONVERT),
    _Other(b"\xff\xff\xff\xff", "an Arrow stream", _CONVERT),
    _Other(b"FEA1", "a Feather file", _CONVERT),
    _Other(b"Obj\x01", "an Avro file", _CONVERT),
    _Other(b"SQLite format 3\0", "an SQLite database", _CONVERT),
    _Other(b"\x89HDF", "an HDF5 file", _CONVERT),
    _Other(b"\xd0\xcf\x11\xe0", "an old Office document", "save its table as CSV UTF-8"),
    _Other(b"%PDF", "a PDF", _CONVERT),
    _Other(b"Salted__", "encrypted data", _DECRYPT),
    _Other(b"age-encryption.org", "encrypted data", _DECRYPT),
    _Other(b"-----BEGIN PGP", "encrypted data", _DECRYPT),
    _Other(b"\xff\xfe\0\0", "UTF-32 text", _UTF8),
    _Other(b"\0\0\xfe\xff", "UTF-32 text", _UTF8),
    _Other(b"\xff\xfe", "UTF-16 text", _UTF8),
    _Other(b"\xfe\xff", "UTF-16 text", _UTF8),
    _Other(
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself",
        "fetch it with `git lfs pull`",
    ),
)


def kind_of(head: bytes, name: str) -> Kind:
    """The kind of a data file, unpacked.

    Args:
        head: its first bytes, up to `HEAD`, with something else than blanks in them.
        name: how messages call the file.

    Raises:
        DataError: it is of a kind that is not read; named where it is known.
    """
    if head.startswith(b"PAR1"):
        return "parquet"
    for start, what, way_out, offset in _OTHERS:
        if head.startswith(start, offset):
            if what == "a zip archive" and b"[Content_Types].xml" in head:
                what, way_out = "an Excel or other Office document", "save its table as CSV UTF-8"
            raise DataError(f"{name} is {what}: {way_out}; {READABLE}.")
    if b"\0" in head:
        raise DataError(
            f"{name} holds NUL bytes: it is UTF-16 text, binary data, or was not written to its "
            f"end; {READABLE}."
        )
    text = head.removeprefix(BOM).lstrip()
    if text.startswith(b"<"):
        raise DataError(f"{name} is HTML or XML: {_DOWNLOAD}; {READABLE}.")
    if text.startswith(b"["):
        return "json"
    if text.startswith(b"{"):
        return "json-lines"
    return _table_or_lines(text, name)


def _table_or_lines(text: bytes, name: str) -> Kind:
    """CSV is known by its header line: at least one name in it must be one that datasets have."""
    first, *others = text.splitlines()
    kinds: dict[str, Kind] = {",": "csv", "\t": "tsv"}
    for delimiter in (",", "\t", ";"):
        if names_a_column(first, delimiter):
            if delimiter in kinds:
                return kinds[delimiter]
            raise DataError(f"{name} is a table with {delimiter!r} between fields; use commas.")
    if any(line.lstrip().startswith(b"{") for line in others):
        return "json-lines"  # whose first line is broken
    raise DataError(
        f"{name} is of another kind; {READABLE}. A CSV file begins with a line of column names, "
        "of which at least one is known, such as prompt,completion; none is in the first line. "
        'Plain text is given as JSON Lines of {"text": "..."}.'
    )


def names_a_column(line: bytes, delimiter: str) -> bool:
    """Whether a line, as a CSV header, holds the name of a column that datasets have."""
    try:
        fields = next(csv.reader([line.decode()], delimiter=delimiter), [])
    except (UnicodeDecodeError, csv.Error):
        return False
    return any(field.strip().lower() in READ | NEAR for field in fields)

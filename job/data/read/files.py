"""Dataset files to raw records, row by row: nothing here holds a whole file in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from job.data.read.compressed import (
    Codec,
    check_packed,
    codec_of,
    open_bytes,
    packed_as,
    unpacked_copy,
)
from job.data.read.json_array import json_array
from job.data.read.kinds import BOM, HEAD, Kind, kind_of
from job.data.read.tables import csv_rows, parquet_rows
from job.data.rows import MOST_BYTES, BadRow
from job.errors import DataError

Record = tuple[str, Any]
"""(place inside the file, e.g. "line 17" or "", the parsed row or the BadRow it turned out as)"""


def records(path: Path) -> Iterator[Record]:
    """Each row of the file, in order.

    Raises:
        DataError: the file is empty, of another kind, a bomb, or broken as a whole. Packed files
            are unpacked once before, so that this is known at the beginning.
    """
    codec = packed_as(path)
    if codec:
        check_packed(path, codec)
    with closing(open_bytes(path, codec)) as stream:
        head = _head(stream)
    if not head.removeprefix(BOM).strip():
        raise DataError(f"{path.name} is empty; a dataset needs at least one row.")
    if codec and codec_of(head):
        raise DataError(f"{path.name} is packed twice: unpack it once.")
    return _rows(path, codec, kind_of(head, path.name))


def _head(stream: IO[bytes]) -> bytes:
    """The first bytes; blank ones at the beginning of the file are skipped."""
    while (head := stream.read(HEAD)) and not head.removeprefix(BOM).strip():
        pass
    return head


def _rows(path: Path, codec: Codec | None, kind: Kind) -> Iterator[Record]:
    if kind == "parquet":
        with unpacked_copy(path, codec) if codec else path.open("rb") as file:
            yield from parquet_rows(file, path.name)
        return
    with closing(open_bytes(path, codec)) as stream:
        if kind == "json":
            yield from json_array(stream, path.name)
        elif kind == "json-lines":
            yield from _json_lines(stream, path.name)
        else:
            yield from csv_rows(stream, path.name, "," if kind == "csv" else "\t")


def _json_lines(stream: IO[bytes], name: str) -> Iterator[Record]:
    number = 0
    while line := stream.readline(MOST_BYTES + 1):
        number += 1
        if len(line) > MOST_BYTES:
            raise DataError(f"{name}, line {number}: is longer than {MOST_BYTES >> 20} MiB.")
        if number == 1:
            line = line.removeprefix(BOM)
        if line.strip():
            yield f"line {number}", _json_line(line, number, name)


def _json_line(line: bytes, number: int, name: str) -> Any:
    text = ""
    try:
        text = line.decode().rstrip()
        return json.loads(text)
    except UnicodeDecodeError:
        raise DataError(
            f"{name}, line {number}: is not UTF-8 text. Save the file as UTF-8."
        ) from None
    except json.JSONDecodeError as error:
        if number == 1 and error.pos >= len(text) and line.endswith(b"\n"):
            raise DataError(
                f"{name}: its first line ends inside an object. Write each row on one line (JSON "
                "Lines), or all of them as one list."
            ) from None
        return BadRow(f"broken JSON at character {error.colno} ({error.msg})", content=text)
    except (RecursionError, ValueError):
        return BadRow("JSON with nesting or numbers beyond all use", content=text)

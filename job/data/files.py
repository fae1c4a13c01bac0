"""Dataset files to raw records: JSON, JSON Lines and Parquet, told apart by their first bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from job.data.rows import BadRow
from job.errors import DataError

Record = tuple[str, Any]
"""(place inside the file, e.g. "line 17" or "", the parsed row or the BadRow it turned out as)"""

_BOM = b"\xef\xbb\xbf"
_MAGIC = {b"PAR1": "parquet", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstandard", b"PK": "zip"}


def records(path: Path) -> Iterator[Record]:
    """Each row of the file, in order.

    Raises:
        DataError: the file is empty, of another kind, or broken as a whole.
    """
    with path.open("rb") as file:
        head = file.read(4096).removeprefix(_BOM).lstrip()
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if not head:
        raise DataError(f"{path.name} is empty; a dataset needs at least one row.")
    if kind == "parquet":
        return _parquet(path)
    if kind:
        raise DataError(f"{path.name} is {kind} data; a dataset is JSON, JSON Lines or Parquet.")
    if head.startswith(b"["):
        return _json_array(path)
    if head.startswith(b"{") or path.suffix in {".jsonl", ".ndjson"}:
        return _json_lines(path)
    raise DataError(f"{path.name} is of another kind; a dataset is JSON, JSON Lines or Parquet.")


def _json_array(path: Path) -> Iterator[Record]:
    data = path.read_bytes().removeprefix(_BOM)
    try:
        rows = json.loads(data.decode())
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path.name}, line {line}: is not UTF-8 text.") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path.name}, {place}: broken JSON ({error.msg}).") from None
    except (RecursionError, ValueError):
        raise DataError(f"{path.name}: JSON with nesting or numbers beyond all use.") from None
    return (("", row) for row in rows)


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(_BOM)
            if line.strip():
                yield f"line {number}", _json_line(line, f"{path.name}, line {number}")


def _json_line(line: bytes, place: str) -> Any:
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError:
        raise DataError(f"{place}: is not UTF-8 text.") from None
    except json.JSONDecodeError as error:
        return BadRow(f"broken JSON at character {error.colno} ({error.msg})")
    except (RecursionError, ValueError):
        return BadRow("JSON with nesting or numbers beyond all use")


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow  # heavy, and needed for this kind of file only
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                yield from (("", row) for row in batch.to_pylist())
    except UnicodeDecodeError:
        raise DataError(f"{path.name}: a text column is not UTF-8.") from None
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path.name}: cannot be read as Parquet ({reason}).") from None

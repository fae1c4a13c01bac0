"""Files of rows and columns: CSV, TSV and Parquet."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from typing import IO, Any

from job.data.read.compressed import BOMB_BYTES, BOMB_RATIO
from job.data.read.kinds import BOM
from job.data.read.recognise import READ
from job.data.rows import MOST_BYTES, BadRow
from job.errors import DataError

_BATCH = 32
"""Rows of a Parquet file in memory at once; a repeated value counts once in the file only."""


def csv_rows(stream: IO[bytes], name: str, delimiter: str) -> Iterator[tuple[str, Any]]:
    """Each line below the header line, as {column: text}.

    Columns without a name (the index that pandas writes) are left out.

    Raises:
        DataError: two columns of one name, text that is not UTF-8, a quote that is never closed,
            or a row beyond `MOST_BYTES`.
    """
    csv.field_size_limit(MOST_BYTES)
    lines = _Lines(stream, name)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        place = lines.begin_row()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield place, _broken(error, f"{name}, {place}")
            continue
        if not fields:
            continue
        if not header:
            header = _header(fields, name)
        elif len(fields) != len(header):
            counts = f"has {len(fields)} field(s), and the header line names {len(header)}"
            yield place, BadRow(counts, content=delimiter.join(fields))
        else:
            yield place, {key: value for key, value in zip(header, fields, strict=True) if key}


def _header(fields: list[str], name: str) -> list[str]:
    header = [field.strip() for field in fields]
    twice = sorted({key for key in header if key and header.count(key) > 1} & READ)
    if twice:
        raise DataError(f"{name} has two columns named {', '.join(twice)}: rename one of them.")
    return header


def _broken(error: csv.Error, place: str) -> BadRow:
    if "unexpected end" in str(error):
        raise DataError(f"{place}: a quote is opened and never closed.") from None
    if "new-line" in str(error):
        return BadRow("broken CSV (a carriage return without a line feed)")
    return BadRow("broken CSV (a quoted field goes on after its quote; quotes inside are doubled)")


class _Lines:
    """The lines of a text file; knows where a row began, which may be many lines long."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self._name = name
        self._number = 0
        self._begun = 1
        self._left = MOST_BYTES

    def begin_row(self) -> str:
        """The place of the row that comes next."""
        self._begun = self._number + 1
        self._left = MOST_BYTES
        return f"line {self._begun}"

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(self._left + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._left -= len(line)
        if self._left < 0:
            raise DataError(
                f"{self._name}, line {self._begun}: one row is longer than {MOST_BYTES >> 20} MiB, "
                "or a quote in it is never closed."
            )
        if b"\0" in line:
            raise DataError(f"{self._name}, line {self._number}: holds a NUL byte.")
        if self._number == 1:
            line = line.removeprefix(BOM)
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise DataError(
                f"{self._name}, line {self._number}: is not UTF-8 text. Save the file as UTF-8."
            ) from None


def parquet_rows(file: IO[bytes], name: str) -> Iterator[tuple[str, Any]]:
    """Each row; of columns that nobody reads only the names, with None as their value.

    All batches are decoded once before the first row is given: a file that is damaged or a bomb is
    refused before anything of it is used.

    Raises:
        DataError: it is no Parquet file, damaged, encrypted, or a bomb.
    """
    import pyarrow  # heavy, and needed for this kind of file only
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file, pre_buffer=False) as table:
            names = table.schema_arrow.names
            if twice := sorted({key for key in names if names.count(key) > 1} & READ):
                raise DataError(
                    f"{name} has two columns named {', '.join(twice)}: rename one of them."
                )
            columns = [key for key in names if key in READ]
            others = dict.fromkeys(key for key in names if key not in READ)
            if not columns:
                yield from (("", dict(others)) for _ in range(table.metadata.num_rows))
                return
            _check_batches(table, columns, file, name)
            for batch in table.iter_batches(_BATCH, columns=columns):
                yield from (("", others | without_nulls(row)) for row in batch.to_pylist())
    except UnicodeDecodeError:
        raise DataError(f"{name}: a text column is not UTF-8.") from None
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{name}: cannot be read as Parquet ({reason}).") from None


def _check_batches(table: Any, columns: list[str], file: IO[bytes], name: str) -> None:
    most = max(BOMB_BYTES, BOMB_RATIO * os.fstat(file.fileno()).st_size)
    size = 0
    read = 0
    for batch in table.iter_batches(_BATCH, columns=columns):
        more = _size(batch)
        if more > MOST_BYTES:
            sizes = [_size(batch.slice(row, 1)) for row in range(batch.num_rows)]
            if max(sizes) > MOST_BYTES:
                row = read + sizes.index(max(sizes)) + 1
                raise DataError(f"{name}, row {row}: is longer than {MOST_BYTES >> 20} MiB.")
        size, read = size + more, read + batch.num_rows
        if size > most:
            raise DataError(
                f"{name} unpacks to over {most >> 20:,} MiB, more than {BOMB_RATIO} times its "
                "size: it is taken for a decompression bomb. Write its columns plainly."
            )


def _size(batch: Any) -> int:
    """Bytes of the values, each repetition counted."""
    columns = (c.dictionary_decode() if hasattr(c, "dictionary") else c for c in batch.columns)
    return sum(int(column.nbytes) for column in columns)


def without_nulls(value: Any) -> Any:
    """The value without the null entries of its objects.

    In Arrow every object of a column has the keys of all of them: those that a row did not state
    are null. A chat template would print them.
    """
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value

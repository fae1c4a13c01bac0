"""One source as a pool of tokenised rows on disk, made once and then mapped into memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from job.data.facts import Facts
from job.data.mask.template import EncodeOptions
from job.data.pools.batches import BatchEncoder, Part
from job.data.pools.cache import ingredients, key_of, load_or_make
from job.data.pools.columns import SCHEMA, read_facts, renumber_languages
from job.data.pools.lengths import Lost
from job.data.pools.workers import in_order
from job.data.read.formats import open_rows
from job.data.rows import BadRow, Findings, Row

Progress = Callable[[int, int], None]
"""Rows done, and rows in all; 0 while that is not known."""

_ROWS, _ABOUT = "rows.arrow", "pool.json"
_BATCH_ROWS = 512
_BATCH_CHARACTERS = 4_000_000
_SMALL = 2_000_000
"""Bytes of data files below which a second process costs more time than it saves."""


@dataclass(frozen=True)
class DataSource:
    """Where rows come from, and what the spec says of them.

    Attributes:
        label: how messages name it.
        files: in their order.
        format: a key of `FORMATS`; None to recognise it.
        kind: whether its rows count as reasoning; None to look at each.
        weight: its share of what is trained, relative to the other sources.
    """

    label: str
    files: tuple[Path, ...]
    format: str | None
    kind: Literal["reasoning", "plain"] | None
    weight: float | None


@dataclass(frozen=True)
class Pool:
    """The tokenised rows of a source, in the order of its files.

    Attributes:
        folder: holds rows.arrow and pool.json.
        format: the format it was read as.
        read: rows of the source.
        counts: what is stored: {"rows", "tokens", "trained_tokens"}.
        languages: what `Facts.language` counts.
        lost: what could not be kept.
    """

    folder: Path
    source: DataSource
    format: str
    read: int
    counts: dict[str, int]
    languages: tuple[str, ...]
    lost: Lost

    @property
    def rows_file(self) -> Path:
        """An Arrow stream that `datasets.Dataset.from_file` maps; see `columns.SCHEMA`."""
        return self.folder / _ROWS

    def table(self) -> Any:
        """All rows as a pyarrow Table of `columns.SCHEMA`, mapped and not read."""
        return _map(self.rows_file)

    def facts(self) -> Facts:
        """The small columns, copied into memory: about 100 bytes a row."""
        return read_facts(self.table())


def make_pool(
    source: DataSource,
    tokenizer_folder: Path,
    options: EncodeOptions,
    cache: Path,
    workers: int,
    progress: Progress,
    show_content: bool = False,
) -> Pool:
    """The pool of a source, out of the cache where it is there.

    Memory is bounded by some batches a worker, whatever the size of the source, and what is stored
    does not depend on the number of workers.

    Args:
        tokenizer_folder: the checkpoint; its weights are not needed.
        cache: folder of all pools, made if missing.
        workers: processes at most; a small source is done in this one.
        progress: called about once a second while the pool is made.
        show_content: whether messages may quote bad rows.

    Raises:
        DataError: rows that cannot be trained on, of which the first are listed; or files that
            cannot be read as rows at all.
        OutOfResources: the cache cannot be written, or a worker was killed.
    """
    made_of = ingredients(source.files, source.format, tokenizer_folder, options, workers)
    if sum(path.stat().st_size for path in source.files) < _SMALL:
        workers = 1
    setup = partial(BatchEncoder, tokenizer_folder, options)

    def make(folder: Path) -> None:
        writer = _Writer(source, Findings(show_content), progress)
        about = writer.write(folder / _ROWS, setup, workers) | {"made_of": made_of}
        (folder / _ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")

    return load_or_make(cache / key_of(made_of), partial(_load, source=source), make)


class _Writer:
    """Reads all rows of a source, has them encoded, and stores what is kept."""

    def __init__(self, source: DataSource, findings: Findings, progress: Progress) -> None:
        self._source = source
        self._findings = findings
        self._progress = progress
        self._told = time.monotonic()
        self._read = 0
        self._languages: dict[str, int] = {}
        self._lost = Lost()

    def write(self, path: Path, setup: Callable[[], BatchEncoder], workers: int) -> dict[str, Any]:
        """Writes the rows and returns what pool.json says of them.

        Raises:
            DataError: at least one row is bad; all were looked at.
        """
        source = self._source
        format, rows = open_rows(source.files, source.format, source.label)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as stream:
            for places, part in in_order(setup, _batches(rows), workers):
                self._take(places, part)
                if not self._findings.count and len(part.columns):
                    indices = [self._language(name) for name in part.languages]
                    stream.write_batch(renumber_languages(part.columns, indices))
        self._findings.check(source.label, self._read)
        self._progress(self._read, self._read)
        return {
            "format": format,
            "read": self._read,
            "counts": _counts(_map(path)),
            "languages": list(self._languages),
            "bytes": path.stat().st_size,
            "lost": self._lost.to_dict(),
        }

    def _take(self, places: list[str], part: Part) -> None:
        self._read += len(places)
        self._lost.add(part.lost)
        for index, error in part.bad:
            self._findings.add(places[index], error)
        if time.monotonic() > self._told + 1:
            self._progress(self._read, 0)
            self._told = time.monotonic()

    def _language(self, name: str) -> int:
        return self._languages.setdefault(name, len(self._languages))


def _batches(
    rows: Iterator[tuple[str, Row | BadRow]],
) -> Iterator[tuple[list[str], list[Row | BadRow]]]:
    """Places and rows together, bounded in number and in length of text."""
    places, batch, characters = list[str](), list[Row | BadRow](), 0
    for place, row in rows:
        places.append(place)
        batch.append(row)
        characters += _characters(row) if isinstance(row, Row) else 0
        if len(batch) == _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield places, batch
            places, batch, characters = [], [], 0
    if batch:
        yield places, batch


def _characters(row: Row) -> int:
    if row.text is not None:
        return len(row.text)
    turns = row.messages or ()
    return sum(len(turn["content"]) + len(turn.get("thinking", "")) for turn in turns)


def _load(folder: Path, source: DataSource) -> Pool | None:
    """The pool in a folder; None where it is not there or is damaged.

    Checked: both files are there, rows.arrow has its size, Arrow reads it through with the columns
    that it should have, and it holds as many rows, tokens and trained tokens as pool.json says.
    The token ids themselves are not read.
    """
    try:
        about = json.loads((folder / _ABOUT).read_bytes())
        lost = Lost.from_dict(about["lost"], source.label)
        pool = Pool(
            folder,
            source,
            about["format"],
            about["read"],
            about["counts"],
            tuple(about["languages"]),
            lost,
        )
        whole = pool.rows_file.stat().st_size == about["bytes"]
        return pool if whole and _counts(_map(pool.rows_file)) == pool.counts else None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def _map(path: Path) -> Any:
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return stream.read_all()


def _counts(table: Any) -> dict[str, int]:
    if table.schema != SCHEMA:
        return {}
    return {
        "rows": table.num_rows,
        "tokens": sum(len(chunk.flatten()) for chunk in table.column("input_ids").chunks),
        "trained_tokens": int(table.column("trained").to_numpy().sum()),
    }

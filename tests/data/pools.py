"""Pools of rows that were never tokenised, for what works on facts and row numbers alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from job.data.facts import Facts
from job.data.pools.columns import SCHEMA
from job.data.pools.lengths import Lost
from job.data.pools.pool import DataSource, Pool
from job.spec import JobSpec, read_spec
from tests.data.examples import row

_NAMES = count()


def digests(names: list[Any]) -> np.ndarray:
    """16 bytes a name, equal for equal names."""
    return np.array([str(name).encode().ljust(16, b".") for name in names], dtype="V16")


def facts(rows: int, same: list[Any] | None = None, **columns: Any) -> Facts:
    """Rows of 100 tokens, of which 60 are trained, none like another; with some columns changed.

    Args:
        same: a name for each row; rows of one name have the same digests.
        columns: a value or a list of them; names for `exact`, `normalized` and `conversation`.
    """
    names = same or [next(_NAMES) for _ in range(rows)]
    given: dict[str, Any] = {
        "number": np.arange(1, rows + 1),
        **{"tokens": 100, "trained": 60, "stops": 1, "effort": 1, "language": -1, "stop_token": 2},
        **dict.fromkeys(("exact", "normalized", "conversation"), names),
    } | columns
    table = {}
    for column in SCHEMA:
        if column.name in ("input_ids", "labels"):
            continue
        value = given.get(column.name, 0)
        table[column.name] = (
            digests(value)
            if pa.types.is_binary(column.type)
            else np.broadcast_to(value, rows).astype(column.type.to_pandas_dtype())
        )
    return Facts(**table)


@dataclass(frozen=True)
class Known(Pool):
    """A pool whose facts are given and not read from its folder."""

    known: Facts

    def facts(self) -> Facts:
        return self.known


def pool(label: str, rows: int, **given: Any) -> Known:
    """A pool of `rows` rows; its folder does not exist.

    Args:
        given: `kind` and `weight` of the source; `languages` and `lost` of the pool; the others
            are columns of `facts`.
    """
    source = DataSource(label, (), None, given.pop("kind", None), given.pop("weight", None))
    languages, lost = given.pop("languages", ()), given.pop("lost", Lost())
    known = facts(rows, **given)
    lost.rows += rows
    read = rows + lost.dropped.total()
    return Known(Path("/pools") / label, source, "messages", read, {}, languages, lost, known)


def store(folder: Path, made: Known, examples: list[tuple[list[int], list[int]]]) -> Known:
    """The pool with a rows.arrow of these input_ids and labels, one pair a row."""
    columns: dict[str, Any] = {
        "input_ids": [ids for ids, _ in examples],
        "labels": [labels for _, labels in examples],
    }
    for column in SCHEMA:
        if column.name not in columns:
            values = getattr(made.known, column.name)
            columns[column.name] = (
                [value.tobytes() for value in values]
                if (pa.types.is_binary(column.type))
                else values
            )
    found = replace(made, folder=folder / made.source.label)
    found.folder.mkdir(exist_ok=True)
    with pa.ipc.new_stream(str(found.rows_file), SCHEMA) as stream:
        stream.write_table(pa.table(columns, schema=SCHEMA))
    return found


def lost(source: str, tokens: list[int], reason: str = "overlength") -> Lost:
    """Rows of these lengths that could not be kept, numbered from 1."""
    found = Lost()
    for number, size in enumerate(tokens, 1):
        found.see(size)
        found.drop(reason, row(source=source, number=number), size)
    return found


def spec(**changed: Any) -> JobSpec:
    """A job of 16 rows a step, one epoch; with some keys changed."""
    given = {"model": "/model", "dataset": "/rows.jsonl", "output": "file:///out"}
    return read_spec({"JOB_SPEC": json.dumps(given | changed)})

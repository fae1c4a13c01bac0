"""Encoded rows as Arrow columns and back: the tokens, and beside them the row's facts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from job.data.facts import EFFORTS, Facts
from job.data.mask.encode import Encoded
from job.data.pools.identity import SIZE

_NUMBERS = {
    "number": np.int64,
    "turn": np.int16,
    "tokens": np.int32,
    "trained": np.int32,
    "cut": np.int32,
    "unstopped": np.int16,
    "stops": np.int16,
    "dropped_thinking": np.int16,
    "escaped": np.int16,
    "folded": np.bool_,
    "reasoning": np.bool_,
    "effort": np.int8,
    "language": np.int16,
    "stop_token": np.int32,
}
_DIGESTS = ("exact", "normalized", "conversation")

# Offsets of 32 bits do: they count the tokens of one batch. The digests all have `SIZE` bytes, but
# `datasets` knows no type of fixed width.
SCHEMA = pa.schema(
    [("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))]
    + [(name, pa.from_numpy_dtype(kind)) for name, kind in _NUMBERS.items()]
    + [(name, pa.binary()) for name in _DIGESTS]
)


class Kept(NamedTuple):
    """One example that is stored.

    Attributes:
        cut: tokens that were taken away.
        unstopped: whether an answer lost its stop token by that.
        digests: exact, normalized, conversation.
    """

    encoded: Encoded
    cut: int
    unstopped: bool
    digests: tuple[bytes, bytes, bytes]


def to_columns(kept: Sequence[Kept], effort: str, languages: dict[str, int]) -> Any:
    """A pyarrow RecordBatch of `SCHEMA`, one row an example.

    Args:
        effort: the job's reasoning effort, for rows that state none.
        languages: language -> index; those that are not yet in it are added.
    """
    numbers = np.array([_numbers(one, effort, languages) for one in kept], np.int64)
    numbers = numbers.reshape(len(kept), len(_NUMBERS))  # also where none is kept
    columns = [
        _lists([one.encoded.input_ids for one in kept]),
        _lists([one.encoded.labels for one in kept]),
        *(pa.array(numbers[:, i].astype(kind)) for i, kind in enumerate(_NUMBERS.values())),
        *(pa.array([one.digests[i] for one in kept], pa.binary()) for i in range(len(_DIGESTS))),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _numbers(kept: Kept, effort: str, languages: dict[str, int]) -> tuple[int, ...]:
    """What `_NUMBERS` names, in its order."""
    example, row = kept.encoded, kept.encoded.row
    language = row.language
    return (
        row.number,
        example.turn,
        len(example.input_ids),
        example.trained,
        kept.cut,
        kept.unstopped,
        len(example.stops),
        example.dropped_thinking,
        example.escaped,
        example.folded,
        example.reasoning,
        EFFORTS.index(row.reasoning_effort or effort),
        -1 if language is None else languages.setdefault(language, len(languages)),
        example.input_ids[example.stops[-1]] if example.stops else -1,
    )


def _lists(rows: list[list[int]]) -> Any:
    offsets = np.fromiter(accumulate(map(len, rows), initial=0), np.int32, len(rows) + 1)
    values = np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1]))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def renumber_languages(batch: Any, indices: list[int]) -> Any:
    """The batch with its languages numbered anew.

    Args:
        indices: for each number of a language in the batch, the one to take in its place.
    """
    place = SCHEMA.get_field_index("language")
    found = np.array([*indices, -1], np.int16)[batch.column(place).to_numpy()]  # -1 is the last one
    return batch.set_column(place, SCHEMA.field(place), pa.array(found))


def read_facts(table: Any) -> Facts:
    """The facts of all rows of a pyarrow Table of `SCHEMA`, copied into memory."""
    numbers = {name: table.column(name).to_numpy() for name in _NUMBERS}
    return Facts(**numbers, **{name: _digests(table.column(name)) for name in _DIGESTS})


def _digests(column: Any) -> Any:
    kind = np.dtype((np.void, SIZE))
    parts = [np.frombuffer(chunk.buffers()[2], kind, len(chunk)) for chunk in column.chunks]
    return np.concatenate([np.empty(0, kind), *parts])

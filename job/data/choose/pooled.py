"""The rows of several pools as one long table, in the order of the pools, and its two sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from job.data.facts import Facts

if TYPE_CHECKING:
    from job.data.pools.pool import Pool


@dataclass(frozen=True)
class Pooled:
    """Facts of rows, and where each comes from.

    Attributes:
        pools: one for each source.
        facts: one entry a row.
        source: index into `pools` of each row.
        reasoning: whether the row counts as reasoning: what the source's `kind` says, else whether
            it holds any.
        languages: what `facts.language` counts.
    """

    pools: tuple[Pool, ...]
    facts: Facts
    source: NDArray[np.int32]
    reasoning: NDArray[np.bool_]
    languages: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def labels(self) -> list[str]:
        """The name of each source."""
        return [pool.source.label for pool in self.pools]


@dataclass(frozen=True)
class Split:
    """Which rows are trained and which are evaluated; no conversation is on both sides.

    Attributes:
        rows: all rows of the training sources.
        free: indices of those that may be trained; int64.
        evaluated: what `held_out` counts through: `rows`, or those of the evaluation sources.
        held_out: indices of the evaluation rows; int64.
        left_out: training rows that evaluation sources hold as well, by `holdout.SAMENESS`.
    """

    rows: Pooled
    free: NDArray[np.int64]
    evaluated: Pooled
    held_out: NDArray[np.int64]
    left_out: dict[str, int]


def join(pools: Sequence[Pool]) -> Pooled:
    """All rows of the pools, one pool after another; there is at least one pool."""
    facts = [pool.facts() for pool in pools]
    languages = list(dict.fromkeys(name for pool in pools for name in pool.languages))
    columns = {
        field.name: np.concatenate([getattr(one, field.name) for one in facts])
        for field in fields(Facts)
    }
    columns["language"] = np.concatenate(
        [_renumbered(one, pool, languages) for one, pool in zip(facts, pools, strict=True)]
    )
    kinds = [
        one.reasoning
        if pool.source.kind is None
        else np.full(len(one), pool.source.kind == "reasoning")
        for one, pool in zip(facts, pools, strict=True)
    ]
    sizes = [len(one) for one in facts]
    return Pooled(
        tuple(pools),
        Facts(**columns),
        np.repeat(np.arange(len(pools), dtype=np.int32), sizes),
        np.concatenate(kinds),
        tuple(languages),
    )


def _renumbered(facts: Facts, pool: Pool, languages: list[str]) -> NDArray[np.int16]:
    """The languages of a pool's rows as indices into the languages of all pools."""
    indices = [*(languages.index(name) for name in pool.languages), -1]  # -1 is the last one
    return np.array(indices, dtype=np.int16)[facts.language]

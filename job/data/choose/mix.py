"""Which rows are trained, how often and in which order: the same on every machine.

Rows are drawn from strata: the reasoning and the plain rows of each source. An epoch is the largest
mix of the asked shares in which no row comes twice; without wishes that is every row once. A longer
run draws on: a stratum starts over only when all its rows were taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from job.data.choose.shares import Sizes, largest_mix, target_shares

KINDS = ("plain", "reasoning")
"""By the index that `Stratum.kind` and the columns of a row have: 0 or 1."""


@dataclass(frozen=True)
class Stratum:
    """Rows that are drawn from with one share.

    Attributes:
        source: index of the source.
        kind: index into `KINDS`.
        label: what the seeds of its permutations are made of.
        rows: indices of its rows; int64.
        share: of the rows of an epoch, as asked; as they lie there without wishes.
        count: rows in an epoch.
    """

    source: int
    kind: int
    label: str
    rows: NDArray[np.int64]
    share: Fraction
    count: int


@dataclass(frozen=True)
class Mix:
    """The strata and what an epoch takes of each."""

    strata: tuple[Stratum, ...]
    seed: int

    @property
    def rows_an_epoch(self) -> int:
        """Rows of an epoch; none of them comes twice."""
        return sum(stratum.count for stratum in self.strata)

    def order(self, rows: int) -> NDArray[np.int64]:
        """Indices of the first `rows` rows of a run; asking for more gives the same beginning."""
        found: NDArray[np.int64] = np.empty(rows, dtype=np.int64)
        cycles = [_Cycle(stratum, self.seed) for stratum in self.strata]
        counts = [stratum.count for stratum in self.strata]
        for epoch, start in enumerate(range(0, rows, self.rows_an_epoch)):
            drawn = np.concatenate(
                [cycle.take(count) for cycle, count in zip(cycles, counts, strict=True)]
            )
            mixed = drawn[interleave(counts, _generator(self.seed, epoch, "epoch"))]
            found[start : start + len(mixed)] = mixed[: rows - start]
        return found


def make_mix(
    labels: Sequence[str],
    source: NDArray[np.integer],
    reasoning: NDArray[np.bool_],
    rows: NDArray[np.int64],
    weights: Sequence[float | None],
    reasoning_share: float | None,
    seed: int,
) -> Mix:
    """The strata of these rows, with their shares.

    Args:
        labels: name of each source.
        source: index into `labels`, one for each row of all pools.
        reasoning: which of them are reasoning rows.
        rows: indices of those that may be trained.
        weights: relative share of rows of each source, above 0; None for all where none is asked.
        reasoning_share: share of reasoning rows, 0 to 1; None to take kinds as they lie there.

    Raises:
        DataError: a share that these rows cannot meet.
    """
    where = source[rows] * len(KINDS) + reasoning[rows]
    members = {divmod(int(cell), len(KINDS)): rows[where == cell] for cell in np.unique(where)}
    sizes: Sizes = {cell: len(found) for cell, found in members.items()}
    shares = target_shares(sizes, labels, weights, reasoning_share)
    counts = largest_mix(sizes, shares)
    return Mix(
        tuple(
            Stratum(*cell, f"{labels[cell[0]]} {KINDS[cell[1]]}", found, shares[cell], counts[cell])
            for cell, found in members.items()
        ),
        seed,
    )


def interleave(counts: Sequence[int], generator: np.random.Generator) -> NDArray[np.intp]:
    """A seeded order of sum(counts) rows that lie there stratum after stratum.

    The n-th row of a stratum of `count` comes anywhere between n/count and (n+1)/count of the
    epoch, so that every stretch of it holds about the mix of the whole.
    """
    places = [(np.arange(count) + generator.random(count)) / max(count, 1) for count in counts]
    return np.argsort(np.concatenate(places), kind="stable")


class _Cycle:
    """A stratum's rows in one seeded permutation after the other."""

    def __init__(self, stratum: Stratum, seed: int) -> None:
        self._stratum, self._seed = stratum, seed
        self._laps = 0
        self._left = stratum.rows[:0]

    def take(self, count: int) -> NDArray[np.int64]:
        """The next `count` rows."""
        parts = [self._left[:count]]
        self._left = self._left[count:]
        while missing := count - sum(map(len, parts)):
            generator = _generator(self._seed, self._laps, self._stratum.label)
            lap = generator.permutation(self._stratum.rows)
            self._laps += 1
            parts.append(lap[:missing])
            self._left = lap[missing:]
        return np.concatenate(parts)


def _generator(seed: int, number: int, label: str) -> np.random.Generator:
    """Random numbers that depend on nothing else; not on the process's hash seed either."""
    digest = blake2b(f"{seed} {number} {label}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))

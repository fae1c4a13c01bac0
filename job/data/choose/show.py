"""A few training rows for a person to look at: which of their tokens are trained, which are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from job.data.mask.encode import IGNORED

if TYPE_CHECKING:
    from job.data.pools.pool import Pool


def sample_rows(
    pools: Sequence[Pool], order: NDArray[np.int64], tokenizer: Any, count: int
) -> list[dict[str, Any]]:
    """Rows of the run: of each source in turn a short one, a long one, then some in between.

    Args:
        pools: those that `order` counts through.
        tokenizer: turns tokens into text again.
        count: rows at most.

    Returns:
        [{"source", "row" (1-based number of the source), "tokens", "trained_tokens", "pieces"}],
        where a piece is [text, whether it is trained] of tokens that follow each other. Special
        tokens are part of the text.
    """
    found = []
    for pool, index in _choose(pools, np.unique(order), count):
        row = pool.table().slice(index, 1).to_pylist()[0]
        found.append(
            {
                "source": pool.source.label,
                "row": row["number"],
                "tokens": row["tokens"],
                "trained_tokens": row["trained"],
                "pieces": _pieces(row["input_ids"], row["labels"], tokenizer),
            }
        )
    return found


def _choose(
    pools: Sequence[Pool], used: NDArray[np.int64], count: int
) -> Iterator[tuple[Pool, int]]:
    """Pools and indices into them; the same row never twice.

    Args:
        used: the rows that are trained, ascending, counted through all pools.
    """
    by_length, start = [], 0
    for pool in pools:
        tokens = pool.table().column("tokens").to_numpy()
        own = used[(used >= start) & (used < start + len(tokens))] - start
        if len(own):
            by_length.append((pool, own[np.argsort(tokens[own], kind="stable")]))
        start += len(tokens)
    rounds = max(2, -(-count // max(len(by_length), 1)))
    chosen: dict[tuple[int, int], None] = {}
    for round_ in range(rounds):
        for place, (_, rows) in enumerate(by_length):
            # The first source begins with its shortest row, the second with its longest.
            spots = np.linspace(0, len(rows) - 1, rounds).round().astype(int)
            spot = spots[_ends_first(rounds)[(round_ + place) % rounds]]
            chosen.setdefault((place, int(rows[spot])))
    for place, row in list(chosen)[:count]:
        yield by_length[place][0], row


def _ends_first(count: int) -> list[int]:
    """0, the last one, and those between."""
    return [0, count - 1, *range(1, count - 1)]


def _pieces(ids: list[int], labels: list[int], tokenizer: Any) -> list[list[Any]]:
    pieces = []
    pairs = zip(ids, labels, strict=True)
    for trained, run in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        text = tokenizer.decode(
            [token for token, _ in run],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        pieces.append([text, trained])
    return pieces

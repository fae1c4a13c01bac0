"""What is evaluated never stands among what is trained: rows held out, and training rows left out.

Works on the digests of `identity.py`, so all rows of one conversation go to one side together.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from job.data.facts import Facts
from job.errors import DataError

SAMENESS = ("exact", "normalized", "conversation")
"""In what two rows can be the same, from the narrowest to the widest."""


def hold_out(conversation: NDArray[np.void], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which rows to hold out: the conversations whose seeded hash is smallest, each as a whole.

    At least one conversation is held out and at least one is left. Neither the order of the rows
    nor the machine makes a difference. One that is more than twice of what is wanted comes last:
    without it the share is nearer to what was asked.

    Args:
        conversation: a digest of 16 bytes for each row.
        fraction: share of the rows to hold out, above 0, below 1.
        seed: decides which.

    Raises:
        DataError: all rows are of one conversation.
    """
    groups, group, sizes = np.unique(conversation, return_inverse=True, return_counts=True)
    if len(groups) < 2:
        raise DataError(
            "JOB_EVAL_FRACTION needs at least two different rows to split: all "
            f"{len(conversation)} begin with the same exchange."
        )
    wanted = fraction * len(conversation)
    ranked = np.lexsort((_seeded(groups, seed), sizes > 2 * wanted))
    taken = np.cumsum(sizes[ranked])
    # A conversation that reaches over the wanted number counts if its larger part is below it.
    fits = int(np.sum(taken - sizes[ranked] / 2 <= wanted))
    held: NDArray[np.bool_] = np.zeros(len(groups), dtype=bool)
    held[ranked[: min(max(fits, 1), len(groups) - 1)]] = True
    return held[group]


def same_as(train: Facts, evaluated: Facts) -> NDArray[np.int8]:
    """In what each training row is the same as some evaluation row: an index into `SAMENESS`.

    The narrowest where there are several; -1 for a row that is in none of the evaluation's
    conversations. Those that have one must not be trained.
    """
    found: NDArray[np.int8] = np.full(len(train), -1, dtype=np.int8)
    for index, what in reversed(list(enumerate(SAMENESS))):
        found[_among(getattr(train, what), getattr(evaluated, what))] = index
    return found


def by_sameness(found: NDArray[np.int8]) -> dict[str, int]:
    """How many rows are the same in what, of what `same_as` found."""
    return {what: int(np.sum(found == index)) for index, what in enumerate(SAMENESS)}


def _among(digests: NDArray[np.void], others: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which of the digests are among the others; by their first halves, then as a whole."""
    found = np.isin(_half(digests), _half(others))
    found[found] = np.isin(digests[found], others)
    return found


def _half(digests: NDArray[np.void]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(digests).view("<u8")[::2]


def as_text(digests: NDArray[np.void]) -> NDArray[np.bytes_]:
    """The same bytes as a type that numpy sorts and searches fast."""
    return np.ascontiguousarray(digests).view(f"S{digests.dtype.itemsize}")


def _seeded(digests: NDArray[np.void], seed: int) -> NDArray[np.uint64]:
    """A number for each digest, as good as random and another one for another seed.

    The digests are hashes already; their first half is mixed with the seed by the last step of
    SplitMix64 (Steele, Lea and Flood 2014), whose products wrap around in 64 bits.
    """
    key = hashlib.blake2b(b"hold out %d" % seed, digest_size=8).digest()
    mixed = _half(digests) ^ np.uint64(int.from_bytes(key, "little"))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))

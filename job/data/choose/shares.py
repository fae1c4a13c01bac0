"""The shares that a mix shall have, from what is asked and what is there; exact fractions.

A cell is (index of the source, 0 for plain or 1 for reasoning rows). All sums are exact, since a
rounding that differs between machines would be another order of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from job.data.rows import LISTED
from job.errors import DataError

Cell = tuple[int, int]
Sizes = dict[Cell, int]
Shares = dict[Cell, Fraction]

PLAIN, REASONING = 0, 1


def target_shares(
    sizes: Sizes,
    labels: Sequence[str],
    weights: Sequence[float | None],
    reasoning_share: float | None,
) -> Shares:
    """The share of each cell that has rows; together 1.

    Where only sources or only kinds are asked for, the other is taken as it lies there. Where both
    are, both are met, and the odds of reasoning are raised or lowered alike in all sources.

    Raises:
        DataError: what is asked is not there.
    """
    by_source = _by_source(sizes, labels, weights)
    if reasoning_share is None:
        if by_source is None:
            return {cell: Fraction(size, sum(sizes.values())) for cell, size in sizes.items()}
        return {
            cell: by_source[cell[0]] * Fraction(size, _total(sizes, source=cell[0]))
            for cell, size in sizes.items()
        }
    wanted = Fraction(str(reasoning_share))
    by_kind = (1 - wanted, wanted)
    for kind, share in enumerate(by_kind):
        if share and not _total(sizes, kind=kind):
            raise _not_there(sizes, labels, reasoning_share)
    if by_source is None:
        return {
            cell: by_kind[cell[1]] * Fraction(size, _total(sizes, kind=cell[1]))
            for cell, size in sizes.items()
        }
    return _both(sizes, by_source, wanted)


def largest_mix(sizes: Sizes, shares: Shares) -> dict[Cell, int]:
    """Rows of each cell in the largest mix of these shares in which no row comes twice.

    Rounded by largest remainder, so each count is less than one row from its share.
    """
    total = min(size // shares[cell] for cell, size in sizes.items() if shares[cell])
    exact = {cell: total * share for cell, share in shares.items()}
    counts = {cell: int(share) for cell, share in exact.items()}
    largest = sorted(exact, key=lambda cell: (counts[cell] - exact[cell], cell))
    for cell in largest[: total - sum(counts.values())]:
        counts[cell] += 1
    return counts


def _total(sizes: Sizes, source: int | None = None, kind: int | None = None) -> int:
    return sum(size for (of, as_), size in sizes.items() if of == source or as_ == kind)


def _by_source(
    sizes: Sizes, labels: Sequence[str], weights: Sequence[float | None]
) -> list[Fraction] | None:
    """Share of each source by its weight; None where no weights are given."""
    given = [Fraction(str(weight)) for weight in weights if weight is not None]
    if not given:
        return None
    for index, label in enumerate(labels):
        if not _total(sizes, source=index):
            raise DataError(
                f"{label} has a weight in the mix, and none of its rows is left to train on. Take "
                "it out of JOB_DATASET, or look at what became of its rows."
            )
    return [weight / sum(given) for weight in given]


def _both(sizes: Sizes, by_source: list[Fraction], wanted: Fraction) -> Shares:
    """Shares that meet the sources' weights and the share of reasoning.

    A source of one kind gives that one. In each of the others the odds of reasoning are multiplied
    by the same number, which is found by bisection (raking, as for contingency tables).
    """
    has = [{kind for of, kind in sizes if of == index} for index in range(len(by_source))]
    pure = sum(by_source[i] for i, kinds in enumerate(has) if kinds == {REASONING})
    mixed = [i for i, kinds in enumerate(has) if len(kinds) == len((PLAIN, REASONING))]
    room = sum(by_source[i] for i in mixed)
    if not pure <= wanted <= pure + room:
        raise DataError(
            f"JOB_REASONING_SHARE={float(wanted):g} and the weights of JOB_DATASET exclude each "
            f"other: with these weights {_percent(pure)} to {_percent(pure + room)} of the rows "
            "are reasoning rows. Change the weights, or take one of the two away."
        )
    found = _raise_odds(
        [(by_source[i], sizes[i, REASONING], sizes[i, PLAIN]) for i in mixed], wanted - pure
    )
    reasoning = dict(zip(mixed, found, strict=True))
    shares = {}
    for source, kind in sizes:
        part = reasoning.get(source, Fraction(by_source[source] if kind == REASONING else 0))
        shares[source, kind] = part if kind == REASONING else by_source[source] - part
    return shares


def _raise_odds(sources: list[tuple[Fraction, int, int]], wanted: Fraction) -> list[Fraction]:
    """Shares of reasoning rows in all, which together are `wanted`.

    Args:
        sources: (share of the source, its reasoning rows, its plain rows) of each.
    """
    low, high, parts = 0.0, 1.0, [0.0 for _ in sources]
    for _ in range(64):
        middle = (low + high) / 2  # 0: plain rows alone, 1/2: as they lie there, 1: reasoning alone
        parts = [
            float(share) * middle * reasoning / (middle * reasoning + (1 - middle) * plain)
            for share, reasoning, plain in sources
        ]
        low, high = (middle, high) if sum(parts) < wanted else (low, middle)
    found = [Fraction(part).limit_denominator(10**9) for part in parts[:-1]]
    for share, _, _ in sources[-1:]:  # the last one takes what rounding left, if it has it
        found.append(min(max(wanted - sum(found), Fraction(0)), share))
    return found


def _percent(share: Fraction | int) -> str:
    return f"{100 * float(share):.3g} %"


def _not_there(sizes: Sizes, labels: Sequence[str], asked: float) -> DataError:
    shown = [
        f"{label}: {sizes.get((index, REASONING), 0)} reasoning rows, "
        f"{sizes.get((index, PLAIN), 0)} plain rows"
        for index, label in enumerate(labels)
    ]
    plain, reasoning = _total(sizes, kind=PLAIN), _total(sizes, kind=REASONING)
    return DataError(
        f"JOB_REASONING_SHARE={asked:g} cannot be mixed: there are {reasoning} reasoning rows and "
        f"{plain} plain rows to train on. Add a source of the other kind, say what a source holds "
        "with ?kind=reasoning or ?kind=plain, or take JOB_REASONING_SHARE away.",
        problems=shown[:LISTED],
    )

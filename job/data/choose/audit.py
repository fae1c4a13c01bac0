"""What the rows of a job come to, in figures: for the person who reads, without any row's content.

Everything is counted on what was prepared, also what should be so by construction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.data.choose.holdout import as_text, by_sameness, same_as
from job.data.choose.mix import KINDS, Mix
from job.data.choose.pooled import Pooled, Split
from job.data.facts import EFFORTS
from job.data.pools.lengths import Lost, histogram, percentiles

Figures = dict[str, Any]


def audit(
    split: Split,
    mix: Mix,
    order: NDArray[np.int64],
    reasoning_share: float | None,
    stop_texts: dict[int, str],
) -> Figures:
    """The figures, JSON-able; docs/data.md says what each of them counts.

    Args:
        mix: what is drawn of the rows that may be trained.
        order: indices of the rows of the whole run.
        reasoning_share: the share of reasoning rows that was asked for.
        stop_texts: id -> text of the tokens that may end a turn.
    """
    rows, free = split.rows, split.free
    epoch = mix.order(mix.rows_an_epoch)
    lost = _lost(rows)
    if count := sum(split.left_out.values()):
        lost.dropped["also_in_evaluation"] = count
    lengths = np.concatenate([rows.facts.tokens + rows.facts.cut, lost.tokens()])
    held_out = counts(split.evaluated, split.held_out)
    return {
        "train": counts(rows, epoch),
        "available": counts(rows, free),
        "eval": held_out if split.evaluated is rows else held_out | _losses(split.evaluated),
        "run": counts(rows, order) | {"times": int(np.bincount(order).max())},
        "sources": _sources(rows, mix, free, epoch),
        "kinds": _kinds(rows, reasoning_share, free, epoch),
        "lengths": histogram(lengths),
        "percentiles": percentiles(lengths),
        "dropped": dict(lost.dropped),
        "cut": int(np.sum(rows.facts.cut > 0)),
        "unstopped": int(rows.facts.unstopped.sum()),
        "worst_rows": lost.worst,
        **_duplicates(rows, free),
        "leakage": _leakage(split),
        **_said(rows, epoch, stop_texts),
    }


def counts(rows: Pooled, indices: NDArray[np.int64]) -> dict[str, int]:
    """Rows, tokens, and tokens that carry loss, of the rows with these indices."""
    return {
        "rows": len(indices),
        "tokens": int(rows.facts.tokens[indices].sum(dtype=np.int64)),
        "trained_tokens": int(rows.facts.trained[indices].sum(dtype=np.int64)),
    }


def _lost(rows: Pooled) -> Lost:
    lost = Lost()
    for pool in rows.pools:
        lost.add(pool.lost)
    return lost


def _losses(rows: Pooled) -> Figures:
    lost = _lost(rows)
    return {
        "dropped": dict(lost.dropped),
        "cut": int(np.sum(rows.facts.cut > 0)),
        "worst_rows": lost.worst,
    }


def _sources(
    rows: Pooled, mix: Mix, free: NDArray[np.int64], epoch: NDArray[np.int64]
) -> list[Figures]:
    """One entry a training source; `rows`, `tokens` and `trained_tokens` are those of an epoch."""
    found = []
    for index, pool in enumerate(rows.pools):
        asked = sum(stratum.share for stratum in mix.strata if stratum.source == index)
        found.append(
            {
                "source": pool.source.label,
                "format": pool.format,
                "read": pool.read,
                "available": int(np.sum(rows.source[free] == index)),
                "asked": None if pool.source.weight is None else float(asked),
                **counts(rows, epoch[rows.source[epoch] == index]),
            }
        )
    return found


def _kinds(
    rows: Pooled, asked: float | None, free: NDArray[np.int64], epoch: NDArray[np.int64]
) -> Figures:
    """Plain and reasoning rows of an epoch, beside those that there are and the share asked for."""
    found = {}
    for kind, name in enumerate(KINDS):
        share = None if asked is None else (asked if kind else 1 - asked)
        own = rows.reasoning == bool(kind)
        found[name] = {
            "available": int(np.sum(own[free])),
            "asked": share,
            **counts(rows, epoch[own[epoch]]),
        }
    return found


def _duplicates(rows: Pooled, free: NDArray[np.int64]) -> dict[str, int]:
    """Rows that say the same as another; with expand_turns, and train the same of its turns."""
    turns = rows.facts.turn[free]
    exact = len(free) - _distinct(rows.facts.exact[free], turns)
    normalized = len(free) - _distinct(rows.facts.normalized[free], turns)
    return {"duplicates": exact, "near_duplicates": normalized - exact}


def _distinct(digests: NDArray[np.void], turns: NDArray[np.int16]) -> int:
    both = np.empty(len(digests), dtype=[("digest", digests.dtype), ("turn", turns.dtype)])
    both["digest"], both["turn"] = digests, turns
    ordered = np.sort(as_text(both))
    return 1 + int(np.sum(ordered[1:] != ordered[:-1]))


def _leakage(split: Split) -> Figures:
    """Training rows that are also evaluation rows: how many had to go, and how many are left."""
    same = same_as(split.rows.facts, split.evaluated.facts.take(split.held_out))
    return {"left_out": split.left_out, "remaining": by_sameness(same[split.free])}


def _said(rows: Pooled, epoch: NDArray[np.int64], stop_texts: dict[int, str]) -> Figures:
    """What the rows of an epoch hold beside lengths."""
    facts = rows.facts
    stops, efforts = _tally(facts.stop_token[epoch]), _tally(facts.effort[epoch])
    languages = _tally(facts.language[epoch])
    return {
        "stop_tokens": {
            stop_texts.get(token, f"token {token}"): n for token, n in stops.items() if token >= 0
        },
        "without_stop_token": stops.get(-1, 0),
        "reasoning_effort": {EFFORTS[effort]: n for effort, n in efforts.items()},
        "languages": {rows.languages[i]: n for i, n in languages.items() if i >= 0},
        "dropped_thinking": int(facts.dropped_thinking[epoch].sum()),
        "escaped": int(facts.escaped[epoch].sum()),
        "folded": int(facts.folded[epoch].sum()),
    }


def _tally(column: NDArray[np.integer]) -> dict[int, int]:
    """Each value and how often it comes, the most frequent first."""
    values, times = np.unique(column, return_counts=True)
    return {int(values[i]): int(times[i]) for i in np.argsort(-times, kind="stable")}

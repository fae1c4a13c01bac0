"""Rows longer than the model's sequence: lost or cut, and always counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.data.mask.encode import IGNORED, Encoded
from job.data.mask.template import EncodeOptions
from job.data.rows import LISTED, Row
from job.errors import DataError

_BINS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
_PERCENTILES = (50, 90, 99)

Worst = list[dict[str, Any]]


@dataclass
class Lost:
    """What could not be kept as it was, of one or several pools.

    Attributes:
        rows: examples that were looked at, kept or not; with expand_turns a row makes several.
        longest: tokens of the longest of them, before cutting.
        dropped: reason -> examples that are not trained on.
        worst: reason, or "cut" for what lost only its end -> the longest, at most `LISTED`, as
            {"source", "row", "tokens"}.
        lengths: tokens -> how many dropped examples have that length; what is kept is in `Facts`.
    """

    rows: int = 0
    longest: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    worst: dict[str, Worst] = field(default_factory=dict)
    lengths: Counter[int] = field(default_factory=Counter)

    def see(self, tokens: int) -> None:
        """Count one example, whatever becomes of it."""
        self.rows += 1
        self.longest = max(self.longest, tokens)

    def drop(self, reason: str, row: Row, tokens: int) -> None:
        """Count one example that is not kept."""
        self.dropped[reason] += 1
        self.lengths[tokens] += 1
        self.note(reason, row, tokens)

    def note(self, reason: str, row: Row, tokens: int) -> None:
        """Remember one example under a reason."""
        self._note(reason, [{"source": row.source, "row": row.number, "tokens": tokens}])

    def _note(self, reason: str, entries: Worst) -> None:
        listed = [*self.worst.get(reason, ()), *entries]
        listed.sort(key=lambda entry: -entry["tokens"])  # of equal ones the first stays first
        self.worst[reason] = listed[:LISTED]

    def add(self, other: Lost) -> None:
        """Take in what became of rows that come after these."""
        self.rows += other.rows
        self.longest = max(self.longest, other.longest)
        self.dropped.update(other.dropped)
        self.lengths.update(other.lengths)
        for reason, entries in other.worst.items():
            self._note(reason, entries)

    def tokens(self) -> NDArray[np.int32]:
        """The length of every dropped example, in no particular order."""
        lengths = np.fromiter(self.lengths.keys(), np.int32, len(self.lengths))
        return np.repeat(lengths, np.fromiter(self.lengths.values(), np.int64, len(self.lengths)))

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the names of the sources."""
        return {
            "rows": self.rows,
            "longest": self.longest,
            "dropped": dict(self.dropped),
            "worst": {
                reason: [{"row": entry["row"], "tokens": entry["tokens"]} for entry in entries]
                for reason, entries in self.worst.items()
            },
            "lengths": dict(self.lengths),
        }

    @staticmethod
    def from_dict(told: dict[str, Any], source: str) -> Lost:
        """What `to_dict` gave, of a source that may have another name now."""
        return Lost(
            rows=told["rows"],
            longest=told["longest"],
            dropped=Counter(told["dropped"]),
            worst={
                reason: [{"source": source, **entry} for entry in entries]
                for reason, entries in told["worst"].items()
            },
            lengths=Counter({int(tokens): rows for tokens, rows in told["lengths"].items()}),
        )


def fit_row(encoded: Encoded, options: EncodeOptions) -> Encoded | str:
    """The example as it is trained, at most max_seq_length long and with a trained token.

    Returns:
        It, or why it is lost: "overlength", "no_trained_token", "cut_before_the_answer".
    """
    if len(encoded.input_ids) <= options.max_seq_length:
        return encoded if encoded.trained else "no_trained_token"
    if options.overlength != "truncate":
        return "overlength"
    if not encoded.trained:
        return "no_trained_token"
    return truncate(encoded, options.max_seq_length) or "cut_before_the_answer"


def truncate(encoded: Encoded, size: int) -> Encoded | None:
    """The example's first `size` tokens, less what trails after the last one that is trained.

    The question stands before the answer, so it is kept whenever a part of the answer is; a later
    question whose answer was cut away goes with it. None when nothing trained is left.
    """
    end = min(size, len(encoded.labels))
    while end > 1 and encoded.labels[end - 1] == IGNORED:
        end -= 1
    if end <= 1:  # the first token is never predicted, so it does not count
        return None
    return replace(
        encoded,
        input_ids=encoded.input_ids[:end],
        labels=encoded.labels[:end],
        stops=[stop for stop in encoded.stops if stop < end],
    )


def unstopped(before: Encoded, after: Encoded) -> bool:
    """Whether cutting took the end of an answer, its stop token, and left the beginning."""
    end = len(after.labels)
    return (
        end < len(before.labels) and before.labels[end] != IGNORED and end - 1 not in before.stops
    )


def check_lost(lost_by_pool: Iterable[Lost], options: EncodeOptions, subject: str) -> None:
    """Applies `overlength=error` and `max_dropped` to pools that are used together.

    Args:
        subject: how the message names the rows, e.g. "The training data".

    Raises:
        DataError: a row is too long and `overlength` is `error`; or more rows are lost than
            `max_dropped` allows; or none is left.
    """
    lost = Lost()
    for pool in lost_by_pool:
        lost.add(pool)
    dropped = lost.dropped.total()
    refused = options.overlength == "error" and lost.dropped["overlength"]
    if not refused and dropped < lost.rows and dropped <= options.max_dropped * lost.rows:
        return
    counts = ", ".join(f"{count} {_words(reason)}" for reason, count in lost.dropped.items())
    why = (
        "JOB_OVERLENGTH=error allows none"
        if refused
        else f"JOB_MAX_DROPPED={options.max_dropped:g} allows "
        f"{int(options.max_dropped * lost.rows)}"
    )
    raise DataError(
        f"{subject}: {dropped} of {lost.rows} rows would be lost ({counts}; the limit is "
        f"{options.max_seq_length} tokens, the longest row has {lost.longest}), and {why}. Raise "
        "JOB_MAX_SEQ_LENGTH, set JOB_OVERLENGTH to drop or truncate, or raise JOB_MAX_DROPPED.",
        problems=[
            f"{entry['source']}, row {entry['row']}: {entry['tokens']} tokens, {_words(reason)}"
            for reason in lost.dropped
            for entry in lost.worst[reason]
        ][:LISTED],
    )


def _words(reason: str) -> str:
    return reason.replace("_", " ")


def percentiles(tokens: NDArray[np.integer[Any]]) -> dict[str, int]:
    """Lengths in tokens: {"p50", "p90", "p99", "max"}, nearest rank; at least one is given."""
    ordered = np.sort(tokens)
    ranks = {f"p{p}": -(-len(ordered) * p // 100) - 1 for p in _PERCENTILES}
    return {name: int(ordered[rank]) for name, rank in ranks.items()} | {"max": int(ordered[-1])}


def histogram(tokens: NDArray[np.integer[Any]]) -> list[dict[str, int]]:
    """Rows by length: [{"from", "to", "rows"}], bounds included, without empty ends.

    At least one length is given.
    """
    longest = int(tokens.max())
    edges = [edge for edge in _BINS if edge < longest] + [longest]
    rows = np.bincount(np.searchsorted(edges, tokens), minlength=len(edges))
    lows = [0, *edges[:-1]]
    bins = [
        {"from": low + 1, "to": high, "rows": int(count)}
        for low, high, count in zip(lows, edges, rows, strict=True)
    ]
    return bins[int(np.flatnonzero(rows)[0]) :]

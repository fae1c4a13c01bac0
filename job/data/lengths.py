"""Rows longer than the model's sequence: refused, dropped or cut, and always counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from job.data.encode import Encoded, EncodeOptions
from job.data.rows import LISTED, Row
from job.errors import DataError

_BINS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
_PERCENTILES = (50, 90, 99)


@dataclass
class Lengths:
    """What became of the rows because of their length.

    Attributes:
        tokens: length of every row before anything was dropped or cut.
        dropped: reason -> rows that are not trained on.
        cut: rows that lost their end.
        worst: reason -> the longest rows, at most `LISTED`, as {"source", "row", "tokens"}.
    """

    tokens: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    worst: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def note(self, reason: str, row: Row, tokens: int) -> None:
        """Remember one row under a reason."""
        listed = self.worst.setdefault(reason, [])
        listed.append({"source": row.source, "row": row.number, "tokens": tokens})
        listed.sort(key=lambda entry: -entry["tokens"])
        del listed[LISTED:]

    def percentiles(self) -> dict[str, int]:
        """Row lengths in tokens: {"p50", "p90", "p99", "max"}, nearest rank."""
        ordered = sorted(self.tokens)
        ranks = {f"p{p}": -(-len(ordered) * p // 100) - 1 for p in _PERCENTILES}
        return {name: ordered[rank] for name, rank in ranks.items()} | {"max": ordered[-1]}

    def histogram(self) -> list[dict[str, int]]:
        """Rows by length: [{"from", "to", "rows"}], bounds included, without empty ends."""
        edges = [edge for edge in _BINS if edge < max(self.tokens)] + [max(self.tokens)]
        bins = [
            {"from": low + 1, "to": high, "rows": sum(low < t <= high for t in self.tokens)}
            for low, high in zip([0, *edges], edges, strict=False)
        ]
        first = next(i for i, bin_ in enumerate(bins) if bin_["rows"])
        return bins[first:]


def fit(
    rows: Iterable[Encoded], options: EncodeOptions, subject: str
) -> tuple[list[Encoded], Lengths]:
    """Applies `overlength` and `max_dropped`.

    Args:
        subject: how messages name the rows, e.g. "The training data".

    Returns:
        The rows to use, each at most max_seq_length long and with a trained token.

    Raises:
        DataError: a row is too long and `overlength` is `error`; or more rows are lost than
            `max_dropped` allows; or none is left.
    """
    kept, lengths = [], Lengths()
    for encoded in rows:
        size = len(encoded.input_ids)
        lengths.tokens.append(size)
        too_long = size > options.max_seq_length
        if too_long and options.overlength != "truncate":
            lengths.dropped["overlength"] += 1
            lengths.note("overlength", encoded.row, size)
            continue
        short = _cut(encoded, options.max_seq_length) if too_long else encoded
        if not short.trained:
            reason = "cut_before_the_answer" if encoded.trained else "no_trained_token"
            lengths.dropped[reason] += 1
            lengths.note(reason, encoded.row, size)
            continue
        if too_long:
            lengths.cut += 1
            lengths.note("cut", encoded.row, size)
        kept.append(short)
    _check(lengths, options, subject)
    return kept, lengths


def _cut(encoded: Encoded, size: int) -> Encoded:
    return replace(
        encoded,
        input_ids=encoded.input_ids[:size],
        labels=encoded.labels[:size],
        stops=[stop for stop in encoded.stops if stop < size],
    )


def _check(lengths: Lengths, options: EncodeOptions, subject: str) -> None:
    rows, lost = len(lengths.tokens), lengths.dropped.total()
    refused = options.overlength == "error" and lengths.dropped["overlength"]
    if not refused and lost < rows and lost <= options.max_dropped * rows:
        return
    limit = options.max_seq_length
    counts = ", ".join(
        f"{count} {reason.replace('_', ' ')}" for reason, count in lengths.dropped.items()
    )
    reason = (
        "JOB_OVERLENGTH=error allows none"
        if refused
        else f"JOB_MAX_DROPPED={options.max_dropped:g} allows {int(options.max_dropped * rows)}"
    )
    raise DataError(
        f"{subject}: {lost} of {rows} rows would be lost ({counts}; the limit is {limit} tokens, "
        f"the longest row has {max(lengths.tokens)}), and {reason}. Raise JOB_MAX_SEQ_LENGTH, set "
        "JOB_OVERLENGTH to drop or truncate, or raise JOB_MAX_DROPPED.",
        problems=[
            f"{entry['source']}, row {entry['row']}: {entry['tokens']} tokens, "
            f"{reason.replace('_', ' ')}"
            for reason in lengths.dropped
            for entry in lengths.worst[reason]
        ][:LISTED],
    )

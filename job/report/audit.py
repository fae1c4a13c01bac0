"""The data audit (job/data/build.py) as the facts, tables and bars that page and card show."""

from __future__ import annotations

from typing import Any

from job.report import words

Audit = dict[str, Any]
REASONS = {
    "overlength": "longer than max_seq_length",
    "no_trained_token": "without a trained token",
    "cut_before_the_answer": "cut before the answer",
    "also_in_evaluation": "also in the evaluation data",
    "cut": "cut to max_seq_length",
}


def facts(audit: Audit | None) -> dict[str, Any]:
    """What the page shows: "facts" (pairs), "sources", "lengths" (bars) and "lost" (rows).

    All are empty when the run failed before its data was read.
    """
    audit = audit or {}
    return {
        "facts": main_facts(audit) if audit else [],
        "sources": [_source(source) for source in audit.get("sources") or []],
        "lengths": _lengths(audit.get("lengths") or []),
        "lost": _lost(audit.get("worst_rows") or {}),
    }


def main_facts(audit: Audit) -> list[tuple[str, str]]:
    """Rows, tokens, the trained share and everything that was lost, as (what, value)."""
    found = []
    for part, label in (("train", "Training rows"), ("eval", "Held-out rows")):
        counts = audit.get(part) or {}
        if counts.get("rows"):
            found.append((label, _counts(counts)))
    if percentiles := audit.get("percentiles"):
        found.append(("Row length", _percentiles(percentiles)))
    found += _losses(audit)
    if duplicates := audit.get("duplicates"):
        found.append(("Duplicates", f"{words.count(duplicates)} rows say the same as another"))
    if thinking := audit.get("dropped_thinking"):
        text = f"{words.count(thinking)} earlier turns, by the chat template"
        found.append(("Reasoning left out", text))
    if languages := audit.get("languages"):
        found.append(("Languages", words.number(languages)))
    return found


def _losses(audit: Audit) -> list[tuple[str, str]]:
    dropped = {reason: rows for reason, rows in (audit.get("dropped") or {}).items() if rows}
    found = [
        ("Dropped", f"{words.count(rows)} rows {REASONS.get(reason, reason.replace('_', ' '))}")
        for reason, rows in dropped.items()
    ]
    if audit.get("cut"):
        found.append(("Cut", f"{words.count(audit['cut'])} rows to max_seq_length"))
    return found or [("Dropped or cut", "none")]


def _percentiles(percentiles: dict[str, int]) -> str:
    return (
        f"half have at most {words.count(percentiles['p50'])} tokens, "
        f"99 % at most {words.count(percentiles['p99'])}, "
        f"the longest has {words.count(percentiles['max'])}"
    )


def _counts(counts: Audit) -> str:
    text = f"{words.count(counts['rows'])} rows"
    if tokens := counts.get("tokens"):
        trained = words.share(counts.get("trained_tokens") or 0, tokens)
        text += f", {words.count(tokens)} tokens, {trained} of them trained on"
    return text


def _source(source: Audit) -> dict[str, str]:
    tokens, trained = source.get("tokens") or 0, source.get("trained_tokens") or 0
    return {
        "name": source["source"],
        "format": source.get("format") or "",
        "rows": words.count(source["rows"]),
        "tokens": words.count(tokens),
        "trained": words.share(trained, tokens),
    }


def _lengths(lengths: list[Audit]) -> list[tuple[str, int, float]]:
    """The histogram as (range of tokens, rows, percent of the fullest bin)."""
    most = max((bin_["rows"] for bin_ in lengths), default=0) or 1
    return [
        (f"{bin_['from']}–{bin_['to']}", bin_["rows"], 100 * bin_["rows"] / most)
        for bin_ in lengths
    ]


def _lost(worst: dict[str, list[Audit]]) -> list[str]:
    """The longest rows that were dropped or cut, each with its place."""
    return [
        f"{row['source']}, row {row['row']}: {words.count(row['tokens'])} tokens, "
        f"{REASONS.get(reason, reason.replace('_', ' '))}"
        for reason, rows in worst.items()
        for row in rows
    ]

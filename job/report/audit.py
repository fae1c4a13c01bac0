"""The data audit (job/data/choose/audit.py) as facts, tables and bars: page, card, terminal."""

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
SAMENESS = {
    "exact": "equal to one",
    "normalized": "equal but for case and spaces",
    "conversation": "of the same conversation",
}


def facts(audit: Audit | None) -> dict[str, Any]:
    """What the page shows: "facts" (pairs), "sources", "lengths" (bars), "lost" and "warnings".

    All are empty when the run failed before its data was read.
    """
    audit = audit or {}
    return {
        "facts": main_facts(audit) if audit else [],
        "sources": [source_cells(source, audit) for source in audit.get("sources") or []],
        "lengths": length_bars(audit),
        "lost": _lost(audit.get("worst_rows") or {}),
        "warnings": audit.get("warnings") or [],
    }


def main_facts(audit: Audit) -> list[tuple[str, str]]:
    """Everything but the tables as (what, value); it names no source, since cards are public."""
    found = [
        *_rows(audit),
        *_mix(audit),
        *_losses(audit),
        *_sameness(audit),
        *_said(audit),
    ]
    return [(label, text) for label, text in found if text]


def _rows(audit: Audit) -> list[tuple[str, str]]:
    used, there = audit.get("train") or {}, audit.get("available") or {}
    found = [("Training rows", _counts(used))]
    if used and there.get("rows", 0) > used["rows"]:
        found[0] = ("Rows of an epoch", _counts(used))
        found.append(("Rows available", _counts(there)))
    held_out = audit.get("eval") or {}
    found.append(("Held-out rows", _counts(held_out) if held_out.get("rows") else ""))
    if run := audit.get("run"):
        steps = many(run["steps"], "step")
        epochs = many(round(run["rows"] / used["rows"], 2), "epoch")
        found.append(
            (
                "The run",
                f"{steps} of {many(run['batch_size'], 'row')}: "
                f"{epochs}, {words.count(run['tokens'])} tokens",
            )
        )
    percentiles = audit.get("percentiles")
    return [*found, ("Row length", _percentiles(percentiles) if percentiles else "")]


def _mix(audit: Audit) -> list[tuple[str, str]]:
    """Reasoning and plain rows; the sources' shares are in their table."""
    thought = (audit.get("kinds") or {}).get("reasoning")
    if not thought:
        return []
    total = audit["train"]
    text = (
        "none"
        if not thought["rows"]
        else f"{words.share(thought['rows'], total['rows'])} of the rows"
    )
    if thought["asked"] is not None:
        text += f" (asked: {words.share(thought['asked'], 1)})"
    if 0 < thought["rows"] < total["rows"]:
        text += f", {words.share(thought['tokens'], total['tokens'])} of the tokens"
    return [("Reasoning", text)]


def _losses(audit: Audit) -> list[tuple[str, str]]:
    dropped = {reason: rows for reason, rows in (audit.get("dropped") or {}).items() if rows}
    found = [
        ("Dropped", f"{many(rows, 'row')} {REASONS.get(reason, reason.replace('_', ' '))}")
        for reason, rows in dropped.items()
    ]
    if audit.get("cut"):
        found.append(("Cut", f"{many(audit['cut'], 'row')} to max_seq_length"))
    return found or [("Dropped or cut", "none")]


def _sameness(audit: Audit) -> list[tuple[str, str]]:
    exact, near = audit.get("duplicates"), audit.get("near_duplicates")
    texts = []
    if exact:
        texts.append(f"{many(exact, 'row')} equal to another")
    if near:
        texts.append(f"{many(near, 'row')} equal but for case and spaces")
    found = [("Duplicates", ", ".join(texts) or ("none" if exact == 0 else ""))]
    if (leakage := audit.get("leakage")) and (audit.get("eval") or {}).get("rows"):
        left = sum(leakage["remaining"].values())
        text = f"{many(left, 'row')}!" if left else "none"
        out = [
            f"{words.count(rows)} {SAMENESS[what]}"
            for what, rows in leakage["left_out"].items()
            if rows
        ]
        text += f"; left out of training: {', '.join(out)}" if out else ""
        found.append(("Trained and held out", text))
    return found


def _said(audit: Audit) -> list[tuple[str, str]]:
    """What the rows hold: stop tokens, efforts, languages, and what the template cannot say."""
    stops = audit.get("stop_tokens") or {}
    ends = [f"{token} ends {many(rows, 'row')}" for token, rows in stops.items()]
    efforts = audit.get("reasoning_effort") or {}
    thinking = audit.get("dropped_thinking")
    escaped, folded = audit.get("escaped"), audit.get("folded")
    return [
        ("Stop tokens trained", ", ".join(ends)),
        ("Reasoning effort", _tally(efforts)),
        ("Languages", _tally(audit.get("languages") or {})),
        (
            "Reasoning left out",
            f"{many(thinking, 'earlier turn')}, by the chat template" if thinking else "",
        ),
        (
            "Like control tokens",
            f"{many(escaped, 'text')}, encoded as the plain text they are" if escaped else "",
        ),
        (
            "Folded into text",
            f"{many(folded, 'row')} with what the chat template has no words for: tools, "
            "calls, results or a system turn"
            if folded
            else "",
        ),
    ]


def many(count: float, noun: str) -> str:
    """A number of things: "1 row", "1,200 rows", "1.5 epochs"."""
    number = words.count(count) if count == int(count) else words.number(count)
    return f"{number} {noun}" if count == 1 else f"{number} {noun}s"


def _tally(rows: dict[str, int]) -> str:
    """Names with their rows; only the names where there are many."""
    shown = list(rows.items())[:8]
    more = [f"{len(rows) - len(shown)} more"] if len(rows) > len(shown) else []
    return ", ".join([f"{name} {words.count(count)}" for name, count in shown] + more)


def _percentiles(percentiles: dict[str, int]) -> str:
    return (
        f"median {words.count(percentiles['p50'])} tokens, "
        f"99 % have at most {words.count(percentiles['p99'])}, "
        f"the longest {words.count(percentiles['max'])}"
    )


def _counts(counts: Audit) -> str:
    if not counts:
        return ""
    text = many(counts["rows"], "row")
    if tokens := counts.get("tokens"):
        trained = words.share(counts.get("trained_tokens") or 0, tokens)
        text += f", {words.count(tokens)} tokens, {trained} of them trained on"
    return text


def source_cells(source: Audit, audit: Audit) -> dict[str, str]:
    """A source's row of the table; "asked" is empty where no weight was given."""
    tokens, rows = source.get("tokens") or 0, source["rows"]
    asked = source.get("asked")
    return {
        "name": source["source"],
        "format": source.get("format") or "",
        "rows": words.count(rows),
        "tokens": words.count(tokens),
        "trained": words.share(source.get("trained_tokens") or 0, tokens),
        "share": words.share(rows, (audit.get("train") or {}).get("rows") or 0),
        "asked": "" if asked is None else words.share(asked, 1),
    }


def length_bars(audit: Audit) -> list[tuple[str, int, float]]:
    """The histogram as (range of tokens, rows, percent of the fullest bin)."""
    lengths = audit.get("lengths") or []
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

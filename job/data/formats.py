"""Dataset files to rows: recognises the format from the columns and reads every row of it.

Covers Multilingual-Thinking, messages, ShareGPT, Alpaca, prompt/completion and plain text.
Preference rows (chosen/rejected) are refused with a message of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from job.data import conversations
from job.data.files import records
from job.data.rows import BadRow, Findings, Row
from job.errors import DataError

__all__ = ["FORMATS", "Row", "read_rows"]

_LOOKED_AT = 10
"""The columns of so many rows decide what the format is."""

_EFFORTS = ("low", "medium", "high")

Columns = dict[str, Any]
Parser = Callable[[Columns], Columns]

FORMATS: dict[str, tuple[frozenset[str], Parser]] = {
    "multilingual-thinking": (
        frozenset({"reasoning_language", "user", "analysis", "final", "messages"}),
        conversations.multilingual_thinking,
    ),
    "messages": (frozenset({"messages"}), conversations.messages),
    "sharegpt": (frozenset({"conversations"}), conversations.sharegpt),
    "alpaca": (frozenset({"instruction", "output"}), conversations.alpaca),
    "prompt-completion": (frozenset({"prompt", "completion"}), conversations.prompt_completion),
    "text": (frozenset({"text"}), conversations.text),
}
"""Name -> the columns it is recognised by, and the function from a record to a Row's fields."""


def read_rows(files: Sequence[Path], format: str | None, label: str) -> tuple[str, list[Row]]:
    """Read one dataset source.

    Args:
        files: its files, in order.
        format: a key of `FORMATS`, or None to recognise it.
        label: how messages name the source.

    Returns:
        The format's name, and the rows in the order of the files.

    Raises:
        DataError: nothing to read, no format or several fit, or at least one row is bad; then the
            first bad rows are listed with their place and never with their content.
    """
    found = list(_all_records(files, label))
    if not found:
        raise DataError(f"{label}: holds no rows.")
    name = format or _recognise([row for _, row in islice(found, _LOOKED_AT)], label)
    if name not in FORMATS:
        raise DataError(f"{label}: format={name} is unknown; known are {', '.join(FORMATS)}.")
    _, parse = FORMATS[name]
    rows, findings = [], Findings()
    for number, (where, record) in enumerate(found, 1):
        try:
            rows.append(_row(record, parse, label, number, name))
        except BadRow as error:
            place = f"{label}, row {number}"
            findings.add(f"{place} ({where})" if where else place, error)
    findings.check(label, len(found))
    return name, rows


def _all_records(files: Sequence[Path], label: str) -> Iterator[tuple[str, Any]]:
    for path in files:
        try:
            for where, record in records(path):
                yield (f"{path.name} {where}".strip() if len(files) > 1 else where), record
        except DataError as error:
            raise DataError(f"{label}: {error.message}") from error


def _recognise(rows: list[Any], label: str) -> str:
    """The one format whose columns are there; a superset of columns beats its subset."""
    columns = {str(key) for row in rows if isinstance(row, dict) for key in row}
    if {"chosen", "rejected"} <= columns:
        raise DataError(
            f"{label}: these are preference rows (chosen/rejected), which this job cannot train "
            "on yet. Give a dataset of conversations, or make one from the chosen answers."
        )
    fitting = {name: needs for name, (needs, _) in FORMATS.items() if needs <= columns}
    best = [name for name, needs in fitting.items() if not any(needs < n for n in fitting.values())]
    if len(best) == 1:
        return best[0]
    listed = ", ".join(sorted(columns)) or "none"
    if best:
        raise DataError(
            f"{label}: several formats fit its columns ({listed}). Say which one is meant: "
            + " or ".join(f"format={name}" for name in best)
            + "."
        )
    raise DataError(
        f"{label}: no known format fits its columns ({listed}).",
        problems=[
            f"{name} needs {', '.join(sorted(needs))}" for name, (needs, _) in FORMATS.items()
        ],
    )


def _row(record: Any, parse: Parser, label: str, number: int, name: str) -> Row:
    if isinstance(record, BadRow):
        raise record
    if not isinstance(record, dict):
        raise BadRow(f"is a {type(record).__name__}, not an object with columns")
    effort = record.get("reasoning_effort")
    if effort is not None and effort not in _EFFORTS:
        raise BadRow(f"must be one of {', '.join(_EFFORTS)}", "reasoning_effort")
    fields: Columns = {"messages": None, "text": None, **parse(record)}
    return Row(reasoning_effort=effort, source=label, number=number, format=name, **fields)

"""What the columns of a source's first rows say: which format it is, or what comes near to one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from job.errors import DataError

Columns = Mapping[str, frozenset[str]]

NEEDS: Columns = {
    "multilingual-thinking": frozenset(
        {"reasoning_language", "user", "analysis", "final", "messages"}
    ),
    "messages": frozenset({"messages"}),
    "sharegpt": frozenset({"conversations"}),
    "alpaca": frozenset({"instruction", "output"}),
    "prompt-completion": frozenset({"prompt", "completion"}),
    "text": frozenset({"text"}),
    "preference": frozenset({"chosen", "rejected"}),
}
"""The columns that each format is recognised by."""

READ = frozenset[str]().union(*NEEDS.values()) | {
    *("system", "tools", "history", "input", "reasoning_effort"),
}
"""Every column that is looked at; all others change nothing."""

# Other names for the same things, as they are met in public data.
_QUESTIONS = ("prompt", "question", "query", "instruction", "problem", "input", "user", "human")
_ANSWERS = (
    *("completion", "answer", "response", "output", "solution", "target", "reply"),
    *("assistant", "gpt", "final"),
)
_DIALOGUES = ("conversation", "dialogue", "dialog", "chat", "turns", "message")
_TEXTS = ("content", "document", "article", "body", "passage", "story")

NEAR = frozenset((*_QUESTIONS, *_ANSWERS, *_DIALOGUES, *_TEXTS, "id"))
"""Names that are no format's column, but of a header line and not of a sentence."""

_SHOWN = 20


def recognise(rows: Sequence[Any], label: str) -> str:
    """The one format whose columns are there; a superset of columns beats its subset.

    Rows with `chosen` and `rejected` are preferences, whatever else they hold.

    Args:
        rows: the first records; those that are no objects say nothing.

    Raises:
        DataError: no format fits, or several do.
    """
    columns = columns_of(rows)
    fitting = {name: needs for name, needs in NEEDS.items() if needs <= columns}
    if "preference" in fitting:
        return "preference"
    best = [name for name, needs in fitting.items() if not any(needs < n for n in fitting.values())]
    if len(best) == 1:
        return best[0]
    if best:
        raise DataError(
            f"{label}: several formats fit its columns ({_listed(columns)}). Say which one is "
            f"meant: {' or '.join(f'format={name}' for name in best)}."
        )
    raise DataError(
        f"{label}: no known format fits its columns ({_listed(columns)}).{_advice(columns)}",
        problems=[
            f"{name} needs {', '.join(sorted(needs))}{_lacking(needs, columns)}"
            for name, needs in NEEDS.items()
        ],
    )


def check_columns(rows: Sequence[Any], name: str, label: str) -> None:
    """Raises DataError when no first row has what the format that was asked for needs.

    Nothing is said when none of them has any column: what they are is said row by row.
    """
    columns = columns_of(rows)
    missing = NEEDS[name] - columns
    if columns and missing:
        raise DataError(
            f"{label}: format={name} needs the columns {', '.join(sorted(NEEDS[name]))}; missing: "
            f"{', '.join(sorted(missing))} (there are: {_listed(columns)}).{_advice(columns)}"
        )


def columns_of(rows: Sequence[Any]) -> set[str]:
    """The names of the columns of all rows together."""
    return {key for row in rows if isinstance(row, dict) for key in row}


def _advice(columns: set[str]) -> str:
    """What to rename, where the names come near to those of a format."""
    by_plain_name = {re.sub(r"[^a-z]", "", name.lower()): name for name in sorted(columns)}
    for name in sorted(READ):
        found = by_plain_name.get(name.replace("_", ""))
        if found and found not in READ:
            return f" Rename {found!r} to {name}."
    question = next((name for name in _QUESTIONS if name in columns), None)
    answer = next((name for name in _ANSWERS if name in columns and name != question), None)
    if question and answer:
        pairs = (question, "prompt"), (answer, "completion")
        renamed = " and ".join(f"{old} to {new}" for old, new in pairs if old != new)
        return f" Rename {renamed}." if renamed else ""
    if dialogue := next((name for name in _DIALOGUES if name in columns), None):
        return f" Rename {dialogue} to messages (turns of role and content) or to conversations."
    if text := next((name for name in _TEXTS if name in columns), None):
        return f" Rename {text} to text, if it is to be continued as plain text."
    return ""


def _lacking(needs: frozenset[str], columns: set[str]) -> str:
    missing = needs - columns
    return f" ({', '.join(sorted(missing))} missing)" if missing != needs else ""


def _listed(columns: set[str]) -> str:
    """The names themselves: words only, since a broken file may have content in their place."""
    names = sorted(name for name in columns if re.fullmatch(r"[\w.-]{1,40}", name))[:_SHOWN]
    more = len(columns) - len(names)
    return ", ".join([*names, *([f"{more} more"] if more else [])]) or "none"

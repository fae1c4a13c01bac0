"""A row of a dataset in the one shape that the rest of the job knows, and how rows are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from job.errors import DataError

Message = dict[str, Any]

LISTED = 20
"""So many bad rows are named; the others are only counted."""

MOST_BYTES = 64 << 20
"""One row may be so long in its file; more is a file without line ends, or a trap."""

SHOWN = 200
"""So many characters of a bad row are shown where content is asked for."""


@dataclass(frozen=True, slots=True)
class Row:
    """One training example.

    A message is {"role": system|user|assistant|tool, "content": str}, with "thinking" (the
    reasoning of an assistant turn), "tool_calls" ([{"type": "function", "function": {"name",
    "arguments": dict}}], with "id" where it has one), "name" and "tool_call_id" only where they are
    not empty. Results of tools carry the name of the call that they answer.

    Attributes:
        messages: the conversation, which ends with an assistant turn; None for a text row.
        text: plain text to continue; None for a conversation.
        reasoning_effort: low, medium, high, or None when the row says nothing.
        source: the label of the dataset it comes from.
        number: 1-based, counted over all files of the source.
        format: name of the format it was read as.
        tools: JSON schemas of the functions that the conversation may call.
        context: assistant turns before this message index are prompt and never trained.
        is_pair: prompt and completion were plain strings, which a tokenizer without chat template
            may join as they are.
        rejected: of a preference row, the turns that are not wanted in place of
            messages[context:], which are the chosen ones; None for every other row.
        language: of the reasoning, where the row states it; None where it says nothing.
    """

    messages: tuple[Message, ...] | None
    text: str | None
    reasoning_effort: str | None
    source: str
    number: int
    format: str = "messages"
    tools: tuple[dict[str, Any], ...] | None = None
    context: int = 0
    is_pair: bool = False
    rejected: tuple[Message, ...] | None = None
    language: str | None = None

    @property
    def place(self) -> str:
        """Where the row is, for a message."""
        return f"{self.source}, row {self.number}"


class BadRow(Exception):
    """What is wrong with one row, and where in it.

    Args:
        what: the end of a sentence about the column or the row, without its content.
        column: the path of the value, e.g. messages[2].content.
        content: the value itself, for a person who asked to see it.
    """

    def __init__(self, what: str, column: str = "", content: Any = "") -> None:
        super().__init__(what)
        self.what = what
        self.column = column
        self.content = excerpt(content)

    def at(self, place: str) -> str:
        """The sentence for a person, e.g. "x, row 17, column messages[2].content: is null"."""
        return (
            f"{place}, column {self.column}: {self.what}"
            if self.column
            else f"{place}: {self.what}"
        )


def excerpt(content: Any) -> str:
    """The beginning of a value on one line, with what a terminal would obey made visible."""
    text = content if isinstance(content, str) else repr(content)
    return repr(text[:SHOWN])[1:-1] + ("…" if len(text) > SHOWN else "")


class Findings:
    """Collects bad rows, so that a person sees them together and not one per attempt.

    Args:
        show_content: list what stands there, too. Logs and reports outlive a run: only when asked.
    """

    def __init__(self, show_content: bool = False) -> None:
        self.count = 0
        self._show_content = show_content
        self._listed: list[str] = []

    def add(self, place: str, error: BadRow) -> None:
        """Count one bad row; the first `LISTED` are kept with their reason."""
        self.count += 1
        if len(self._listed) < LISTED:
            shown = f" [{error.content}]" if self._show_content and error.content else ""
            self._listed.append(error.at(place) + shown)

    def check(self, subject: str, rows: int) -> None:
        """Raises DataError when there is any finding.

        Args:
            subject: what was read, e.g. the label of the dataset.
            rows: how many rows were looked at.
        """
        if not self.count:
            return
        shown = "" if self.count <= LISTED else f" (the first {LISTED} are listed)"
        raise DataError(
            f"{subject}: {self.count} of {rows} rows cannot be trained on{shown}. "
            "Repair or remove them; nothing was trained.",
            problems=self._listed,
        )

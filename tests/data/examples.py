"""Rows that several tests use, and short ways to make them."""

from __future__ import annotations

from typing import Any

from job.data.mask.encode import IGNORED, Encoded, RowEncoder
from job.data.mask.render import Renderer
from job.data.mask.rendered import Rendered
from job.data.mask.template import EncodeOptions
from job.data.rows import BadRow, Row


def options(**changed: Any) -> EncodeOptions:
    """The options of the reference job, with some changed."""
    given: dict[str, Any] = {
        "train_on": "assistant",
        "overlength": "drop",
        "max_dropped": 0.05,
        "max_seq_length": 4096,
        "reasoning_effort": "medium",
        "template_date": "2026-01-31",
    }
    return EncodeOptions(**given | changed)


def row(*messages: dict[str, Any], number: int = 1, **fields: Any) -> Row:
    """A row of these messages."""
    given: dict[str, Any] = {"text": None, "reasoning_effort": None, "source": "rows.jsonl"}
    return Row(messages=messages, number=number, **given | fields)


def rendered(tokenizer: Any, given: Row, **changed: Any) -> Rendered:
    """The one example of a row as text."""
    (found,) = Renderer(tokenizer, options(**changed)).render(given)
    return found


def encode_all(tokenizer: Any, rows: list[Row], **changed: Any) -> list[list[Encoded] | BadRow]:
    """What a RowEncoder makes of them."""
    return RowEncoder(tokenizer, options(**changed)).encode(rows)


def encode(tokenizer: Any, given: Row, **changed: Any) -> Encoded:
    """The one example of a row.

    Raises:
        BadRow: it is not one.
    """
    (found,) = encode_all(tokenizer, [given], **changed)
    if isinstance(found, BadRow):
        raise found
    (example,) = found
    return example


def trained_runs(tokenizer: Any, found: Encoded) -> list[str]:
    """The trained text, one string for each unbroken run of trained tokens."""
    runs: list[str] = []
    current: list[int] = []
    for label in [*found.labels, IGNORED]:
        if label != IGNORED:
            current.append(label)
        elif current:
            runs.append(tokenizer.decode(current, clean_up_tokenization_spaces=False))
            current = []
    return runs


def user(content: str) -> dict[str, Any]:
    """A user turn."""
    return {"role": "user", "content": content}


def system(content: str) -> dict[str, Any]:
    """A system turn."""
    return {"role": "system", "content": content}


def assistant(content: str, thinking: str = "", **fields: Any) -> dict[str, Any]:
    """An assistant turn."""
    turn = {"role": "assistant", "content": content, **fields}
    return turn | {"thinking": thinking} if thinking else turn


def call(name: str, **arguments: Any) -> dict[str, Any]:
    """One tool call."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name: str) -> dict[str, Any]:
    """The schema of a function."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": "Tells something.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }


WEATHER = (
    user("Weather in Oslo?"),
    assistant("", tool_calls=[call("weather", city="Oslo")]),
    {"role": "tool", "name": "weather", "content": '{"sky": "clear"}'},
    assistant("Clear sky."),
)
CLOCK = (
    user("What time is it?"),
    assistant("", tool_calls=[call("clock")]),
    {"role": "tool", "name": "clock", "content": "12:00"},
    assistant("Noon."),
)


TALK = (
    user("Hi"),
    assistant("Hello", "A greeting."),
    user("Bye"),
    assistant("See you", "It ends."),
)

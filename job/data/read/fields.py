"""Single values of a record: each is checked, or refused with BadRow that names its column."""

from __future__ import annotations

import json
from typing import Any

from job.data.rows import BadRow, Message

DEPTH = 100
"""JSON in a tool call or schema may be nested so deep; templates walk it by recursion."""

_KINDS = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def kind_of(value: Any) -> str:
    """What a parsed value is, in the words of JSON."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def calls_in_text(value: str, column: str) -> list[Message]:
    """The calls that a function_call turn holds as JSON: one object or a list of them."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        raise BadRow("is not JSON with name and arguments", column) from None
    calls = parsed if isinstance(parsed, list) else [parsed]
    if not calls:
        raise BadRow("holds no call", column)
    return [tool_call(call, column) for call in calls]


def tool_call(call: Any, column: str) -> Message:
    """One call, with its arguments as an object, which is what chat templates render."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise BadRow("is not an object with a function", column)
    name = string(function.get("name"), f"{column}.name")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise BadRow("is not JSON", f"{column}.arguments") from None
    if not isinstance(arguments, dict):
        raise BadRow(f"is {kind_of(arguments)}, not an object", f"{column}.arguments")
    _plain_json(arguments, f"{column}.arguments")
    identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def tools(value: Any) -> tuple[dict[str, Any], ...] | None:
    """The `tools` column: a list of schemas, or the same as JSON text; None when it is empty."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            raise BadRow("is not JSON", "tools") from None
    if not value:
        return None
    found = []
    for index, tool in enumerate(items(value, "tools")):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRow("is not an object with a name", f"tools[{index}]")
        found.append({"type": "function", "function": function})
    _plain_json(found, "tools")
    return tuple(found)


def items(value: Any, column: str) -> list[Any]:
    """A list with something in it; CSV, and many a Parquet file, hold it as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRow("is text that looks like a list and is not JSON", column) from None
    if value is None:
        raise BadRow("is null or missing", column)
    if not isinstance(value, list):
        raise BadRow(f"is {kind_of(value)}, not a list", column)
    if not value:
        raise BadRow("is empty", column)
    return value


def optional_string(value: Any, column: str) -> str:
    """The text, or "" where the column is missing, null or blank."""
    return "" if value is None or value == "" else string(value, column, blank=True)


def string(value: Any, column: str, *, blank: bool = False) -> str:
    """Text with something in it; with `blank`, whitespace counts as ""."""
    if value is None:
        raise BadRow("is null or missing", column)
    if not isinstance(value, str):
        raise BadRow(f"is {kind_of(value)}, not text", column)
    if not value.strip():
        if blank:
            return ""
        raise BadRow("is empty", column)
    return encodable(value, column)


def content(value: Any, column: str) -> str | None:
    """The content of a turn as text, or None where there is none.

    A list of parts is joined with line breaks, as servers do for a model that takes text alone.
    """
    if not isinstance(value, list):
        return None if value is None else string(value, column, blank=True)
    found = []
    for index, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise BadRow("is not an object with a type", f"{column}[{index}]")
        if kind not in ("text", "input_text", "output_text"):
            raise BadRow(
                "is a part of another type than text; this job trains text only",
                f"{column}[{index}]",
            )
        found.append(string(part.get("text"), f"{column}[{index}].text", blank=True))
    return "\n".join(text for text in found if text)


def encodable(value: str, column: str) -> str:
    """The text itself, when UTF-8 can hold it (a JSON escape can name half a character)."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow("holds half a surrogate pair, which is no Unicode text", column) from None
    return value


def _plain_json(value: Any, column: str) -> None:
    """Refuse what a template could not write as JSON: dates, bytes, NaN, nesting without end."""
    try:
        if _depth(value) > DEPTH:
            raise RecursionError
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise BadRow(f"is nested more than {DEPTH} levels deep", column) from None
    except (TypeError, ValueError):
        raise BadRow(
            "holds a value that JSON does not know, such as NaN or a date", column
        ) from None
    encodable(text, column)


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(one) for one in inside), default=0)

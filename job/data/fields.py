"""Single values of a record: each is checked, or refused with BadRow that names its column."""

from __future__ import annotations

import json
from typing import Any

from job.data.rows import BadRow, Message


def calls_in_text(value: str, column: str) -> list[Message]:
    """The calls that a function_call turn holds as JSON: one object or a list of them."""
    try:
        parsed = json.loads(value)
    except ValueError:
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
        except ValueError:
            raise BadRow("is not JSON", f"{column}.arguments") from None
    if not isinstance(arguments, dict):
        raise BadRow("is not an object", f"{column}.arguments")
    encodable(json.dumps(arguments, ensure_ascii=False), f"{column}.arguments")
    identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def tools(value: Any) -> tuple[dict[str, Any], ...] | None:
    """The `tools` column: a list of schemas, or the same as JSON text; None when it is empty."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except ValueError:
            raise BadRow("is not JSON", "tools") from None
    if not value:
        return None
    found = []
    for index, tool in enumerate(items(value, "tools")):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRow("is not an object with a name", f"tools[{index}]")
        found.append({"type": "function", "function": function})
    encodable(json.dumps(found, ensure_ascii=False), "tools")
    return tuple(found)


def items(value: Any, column: str) -> list[Any]:
    """A list with something in it."""
    if value is None:
        raise BadRow("is null or missing", column)
    if not isinstance(value, list):
        raise BadRow(f"is a {type(value).__name__}, not a list", column)
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
        raise BadRow(f"is a {type(value).__name__}, not text", column)
    if not value.strip():
        if blank:
            return ""
        raise BadRow("is empty", column)
    return encodable(value, column)


def encodable(value: str, column: str) -> str:
    """The text itself, when UTF-8 can hold it (a JSON escape can name half a character)."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow("holds half a surrogate pair, which is no Unicode text", column) from None
    return value

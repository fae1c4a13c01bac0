"""The turns of a conversation: each brought to one shape, and the rules that hold for all of them.

Both ways to write a turn are read, {role, content} and ShareGPT's {from, value}, with the names
that public datasets give to the speakers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from job.data.read import fields
from job.data.rows import BadRow, Message

_NAMES = {
    "system": "system developer",
    "user": "user human prompter",
    "assistant": "assistant gpt chatgpt bot model ai bing bard function_call tool_call",
    "tool": "tool observation function function_response tool_response tool_result ipython",
}
ROLES = {name: role for role, names in _NAMES.items() for name in names.split()}
"""Every name of a speaker, in lower case -> system, user, assistant or tool."""

_CALLS_ALONE = ("function_call", "tool_call")
"""Their content is the call itself, as JSON."""

_THINKING = ("thinking", "reasoning_content", "reasoning")
_INLINE_THINKING = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)


def read_turns(value: Any, column: str) -> list[Message]:
    """A list of turns, each by itself; `check_turns` looks at them together."""
    return [read_turn(turn, f"{column}[{i}]") for i, turn in enumerate(fields.items(value, column))]


def read_turn(turn: Any, column: str) -> Message:
    """One turn of either shape."""
    if not isinstance(turn, dict):
        raise BadRow(f"is {fields.kind_of(turn)}, not an object", column)
    who, said = ("role", "content") if "role" in turn or "from" not in turn else ("from", "value")
    name = turn.get(who)
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise BadRow(f"must be one of {', '.join(ROLES)}", f"{column}.{who}")
    found: Message = {"role": role, "content": ""}
    if str(name).lower() in _CALLS_ALONE:
        text = fields.string(turn.get(said), f"{column}.{said}")
        found["tool_calls"] = fields.calls_in_text(text, f"{column}.{said}")
        return found
    found["content"] = fields.content(turn.get(said), f"{column}.{said}") or ""
    if calls := _calls(turn, column):
        found["tool_calls"] = calls
    elif turn.get(said) is None or (role != "tool" and not found["content"]):
        empty = "is null or missing" if turn.get(said) is None else "is empty"
        raise BadRow(empty, f"{column}.{said}")
    _add_rest(found, turn, column)
    return found


def _calls(turn: dict[str, Any], column: str) -> list[Message]:
    """`tool_calls`, and the one `function_call` that older data has in its place."""
    if calls := turn.get("tool_calls"):
        column = f"{column}.tool_calls"
        listed = fields.items(calls, column)
        return [fields.tool_call(call, f"{column}[{i}]") for i, call in enumerate(listed)]
    if call := turn.get("function_call"):
        return [fields.tool_call(call, f"{column}.function_call")]
    return []


def _add_rest(found: Message, turn: dict[str, Any], column: str) -> None:
    """Reasoning, name and the id of the call that is answered, where they are there."""
    for key in _THINKING:
        thinking = fields.optional_string(turn.get(key), f"{column}.{key}")
        if thinking and "thinking" not in found:
            found["thinking"] = thinking
    if name := fields.optional_string(turn.get("name"), f"{column}.name"):
        found["name"] = name
    role = found["role"]
    if role == "assistant":
        _take_thinking_out(found)
    elif "thinking" in found or "tool_calls" in found:
        raise BadRow("only an assistant turn can have thinking or tool_calls", column)
    if role == "tool" and isinstance(answered := turn.get("tool_call_id"), str) and answered:
        found["tool_call_id"] = answered


def _take_thinking_out(found: Message) -> None:
    """Reasoning that stands in the answer as <think>...</think> becomes `thinking`."""
    if "thinking" in found:
        return
    inline = _INLINE_THINKING.fullmatch(found["content"])
    if inline and inline[1].strip() and inline[2].strip():
        found["thinking"], found["content"] = inline[1].strip(), inline[2].strip()


def check_turns(turns: Sequence[Message], column: str) -> tuple[Message, ...]:
    """What must hold for every conversation, whatever format it came in; names the tool results."""
    roles = [turn["role"] for turn in turns]
    if roles.count("system") > 1:
        raise BadRow("has two system turns", column)
    if "system" in roles[1:]:
        raise BadRow("the system turn is not the first", column)
    spoken = [role for role in roles if role != "system"]
    if "assistant" not in spoken:
        raise BadRow("has no assistant turn, so there is nothing to learn", column)
    if spoken[0] != "user":
        raise BadRow(f"the first turn is from the {spoken[0]}, not from the user", column)
    if spoken[-1] != "assistant":
        raise BadRow(f"the last turn is from the {spoken[-1]}, not from the assistant", column)
    if "tool" in roles:
        return _with_results_named(turns, column)
    return tuple(turns)


def _with_results_named(turns: Sequence[Message], column: str) -> tuple[Message, ...]:
    """Gives each tool result the name of its call: by the call's id, else in the order of calls."""
    found = []
    by_id: dict[str, str] = {}
    waiting: list[str] = []  # calls of the newest turns with calls, the last one stays
    for index, turn in enumerate(turns):
        before = turns[index - 1]
        if calls := turn.get("tool_calls"):
            names = [call["function"]["name"] for call in calls]
            waiting = [*waiting, *names] if "tool_calls" in before else names
            by_id |= {call["id"]: call["function"]["name"] for call in calls if "id" in call}
        elif turn["role"] == "tool":
            if before["role"] not in ("assistant", "tool"):
                raise BadRow("is a tool result, and no call comes before it", f"{column}[{index}]")
            answered = turn.get("tool_call_id")
            if answered and by_id and answered not in by_id:
                raise BadRow("is the id of no call before it", f"{column}[{index}].tool_call_id")
            name = turn.get("name") or by_id.get(answered or "") or (waiting or [""])[0]
            turn = turn | ({"name": name} if name else {})
            waiting = waiting[1:] or waiting
        found.append(turn)
    return tuple(found)

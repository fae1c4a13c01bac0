"""Each format's record to the fields of a Row: one function a format, and the rules for all.

Every function takes the record as it was parsed, returns keyword arguments for `Row`, and raises
BadRow that names the column and never the content.
"""

from __future__ import annotations

import re
from typing import Any

from job.data import fields
from job.data.rows import BadRow, Message

Columns = dict[str, Any]

_ROLES = {r: r for r in ("system", "user", "assistant", "tool")} | {"developer": "system"}
_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}
_INLINE_THINKING = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)


def multilingual_thinking(record: Columns) -> Columns:
    """The reference format; the reasoning is a message's `thinking`, else the row's `analysis`."""
    found = messages(record)
    last = found["messages"][-1]
    analysis = fields.optional_string(record.get("analysis"), "analysis")
    if analysis and "thinking" not in last:
        last["thinking"] = analysis
    return found


def messages(record: Columns) -> Columns:
    """OpenAI style: a list of {role, content, thinking|reasoning_content, tool_calls, name}."""
    turns = _conversation(_messages(record.get("messages"), "messages"), "messages")
    return {"messages": turns, "tools": fields.tools(record.get("tools"))}


def sharegpt(record: Columns) -> Columns:
    """ShareGPT: `conversations` of {from, value}, and the columns `system` and `tools`."""
    found = _system(record)
    name = ""
    for index, turn in enumerate(fields.items(record.get("conversations"), "conversations")):
        column = f"conversations[{index}]"
        if not isinstance(turn, dict):
            raise BadRow("is not an object", column)
        who = turn.get("from")
        role = _SHAREGPT_ROLES.get(who) if isinstance(who, str) else None
        if role is None:
            raise BadRow(f"must be one of {', '.join(_SHAREGPT_ROLES)}", f"{column}.from")
        value = fields.string(turn.get("value"), f"{column}.value")
        if who == "function_call":
            calls = fields.calls_in_text(value, f"{column}.value")
            name = calls[-1]["function"]["name"]
            found.append({"role": role, "content": "", "tool_calls": calls})
        elif role == "tool":
            found.append({"role": role, "content": value} | ({"name": name} if name else {}))
        else:
            found.append(_with_thinking({"role": role, "content": value}))
    turns = _conversation(found, "conversations")
    return {"messages": turns, "tools": fields.tools(record.get("tools"))}


def alpaca(record: Columns) -> Columns:
    """Alpaca: `instruction`, `input`, `output`, and `system` and `history` (pairs) where given."""
    found = _system(record)
    history = record.get("history")
    for index, pair in enumerate(fields.items(history, "history") if history else []):
        column = f"history[{index}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRow("is not a pair of question and answer", column)
        found.append({"role": "user", "content": fields.string(pair[0], f"{column}[0]")})
        found.append({"role": "assistant", "content": fields.string(pair[1], f"{column}[1]")})
    question = fields.string(record.get("instruction"), "instruction")
    if more := fields.optional_string(record.get("input"), "input"):
        question = f"{question}\n\n{more}"
    found.append({"role": "user", "content": question})
    found.append({"role": "assistant", "content": fields.string(record.get("output"), "output")})
    return {"messages": tuple(map(_with_thinking, found))}


def prompt_completion(record: Columns) -> Columns:
    """Two strings, or two lists of messages; only the completion is trained."""
    prompt, completion = record.get("prompt"), record.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        before, after = _messages(prompt, "prompt"), _messages(completion, "completion")
        turns = _conversation([*before, *after], "prompt + completion")
        return {
            "messages": turns,
            "tools": fields.tools(record.get("tools")),
            "context": len(before),
        }
    pair = (
        {"role": "user", "content": fields.string(prompt, "prompt")},
        {"role": "assistant", "content": fields.string(completion, "completion")},
    )
    return {"messages": pair, "is_pair": True}


def text(record: Columns) -> Columns:
    """Plain text, trained as it is."""
    return {"text": fields.string(record.get("text"), "text")}


def _messages(value: Any, column: str) -> list[Message]:
    return [_message(turn, f"{column}[{i}]") for i, turn in enumerate(fields.items(value, column))]


def _message(turn: Any, column: str) -> Message:
    if not isinstance(turn, dict):
        raise BadRow("is not an object", column)
    role = turn.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise BadRow(f"must be one of {', '.join(_ROLES)}", f"{column}.role")
    found: Message = {"role": _ROLES[role]}
    calls = turn.get("tool_calls")
    if calls:
        found["content"] = fields.optional_string(turn.get("content"), f"{column}.content")
        found["tool_calls"] = [
            fields.tool_call(call, f"{column}.tool_calls[{i}]")
            for i, call in enumerate(fields.items(calls, f"{column}.tool_calls"))
        ]
    else:
        found["content"] = fields.string(turn.get("content"), f"{column}.content")
    for key in ("thinking", "reasoning_content"):
        if thinking := fields.optional_string(turn.get(key), f"{column}.{key}"):
            found["thinking"] = thinking
    if name := fields.optional_string(turn.get("name"), f"{column}.name"):
        found["name"] = name
    if role != "assistant" and not found.keys().isdisjoint({"thinking", "tool_calls"}):
        raise BadRow("only an assistant turn can have thinking or tool_calls", column)
    return _with_thinking(found)


def _with_thinking(message: Message) -> Message:
    """Reasoning that stands in the answer as <think>...</think> becomes `thinking`."""
    if message["role"] == "assistant" and "thinking" not in message:
        inline = _INLINE_THINKING.fullmatch(message["content"])
        if inline and inline[1].strip() and inline[2].strip():
            return {**message, "thinking": inline[1].strip(), "content": inline[2].strip()}
    return message


def _conversation(turns: list[Message], column: str) -> tuple[Message, ...]:
    """What must hold for every conversation, whatever format it came in."""
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
    return tuple(turns)


def _system(record: Columns) -> list[Message]:
    system = fields.optional_string(record.get("system"), "system")
    return [{"role": "system", "content": system}] if system else []

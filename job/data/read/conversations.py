"""Each format's record to the fields of a Row: one function a format.

Every function takes the record as it was parsed, returns keyword arguments for `Row`, and raises
BadRow that names the column and never the content. Preference rows are in preferences.py.
"""

from __future__ import annotations

from typing import Any

from job.data.read import fields
from job.data.read.turns import check_turns, read_turn, read_turns
from job.data.rows import BadRow, Message

Columns = dict[str, Any]


def multilingual_thinking(record: Columns) -> Columns:
    """The reference format; the reasoning is a message's `thinking`, else the row's `analysis`."""
    found = messages(record)
    last = found["messages"][-1]
    analysis = fields.optional_string(record.get("analysis"), "analysis")
    if analysis and "thinking" not in last:
        last["thinking"] = analysis
    return found


def messages(record: Columns) -> Columns:
    """OpenAI style: a list of {role, content, thinking|reasoning_content|reasoning, tool_calls}.

    Results are turns of the role tool; a `system` column is the system turn where there is none.
    """
    return _conversation(record, "messages")


def sharegpt(record: Columns) -> Columns:
    """ShareGPT: `conversations` of {from, value}, and the columns `system` and `tools`."""
    return _conversation(record, "conversations")


def _conversation(record: Columns, column: str) -> Columns:
    turns = read_turns(record.get(column), column)
    found = check_turns([*system_turn(record, turns), *turns], column)
    return {"messages": found, "tools": fields.tools(record.get("tools"))}


def alpaca(record: Columns) -> Columns:
    """Alpaca: `instruction`, `input`, `output`, and `system` and `history` (pairs) where given."""
    found = system_turn(record, [])
    history = record.get("history")
    for index, pair in enumerate(fields.items(history, "history") if history else []):
        column = f"history[{index}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRow("is not a pair of question and answer", column)
        found += [
            _said("user", pair[0], f"{column}[0]"),
            _said("assistant", pair[1], f"{column}[1]"),
        ]
    question = fields.string(record.get("instruction"), "instruction")
    if more := fields.optional_string(record.get("input"), "input"):
        question = f"{question}\n\n{more}"
    found.append({"role": "user", "content": question})
    found.append(_said("assistant", record.get("output"), "output"))
    return {"messages": tuple(found)}


def prompt_completion(record: Columns) -> Columns:
    """Two strings, or two lists of messages; only the completion is trained."""
    prompt, completion = record.get("prompt"), record.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        before, after = read_turns(prompt, "prompt"), read_turns(completion, "completion")
        return {
            "messages": check_turns([*before, *after], "prompt + completion"),
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


def system_turn(record: Columns, turns: list[Message]) -> list[Message]:
    """The column `system` as a turn, unless the turns begin with the same words."""
    system = fields.optional_string(record.get("system"), "system")
    turn: Message = {"role": "system", "content": system}
    return [turn] if system and turns[:1] != [turn] else []


def _said(role: str, value: Any, column: str) -> Message:
    """A turn that stands in a column of its own."""
    return read_turn({"role": role, "content": fields.string(value, column)}, column)

"""Preference rows: one prompt with the answer that is wanted and the one that is not."""

from __future__ import annotations

from typing import Any

from job.data.read import fields
from job.data.read.conversations import system_turn
from job.data.read.turns import check_turns, read_turn, read_turns
from job.data.rows import BadRow, Message

Columns = dict[str, Any]


def preference(record: Columns) -> Columns:
    """`chosen` and `rejected`, each a text, a turn or a list of turns.

    Lists may be whole conversations, which then begin alike. Otherwise the prompt is in `prompt`
    (text or turns), `conversations` or `messages`.
    """
    chosen, rejected = (_answer(record.get(column), column) for column in ("chosen", "rejected"))
    if chosen[0]["role"] == "assistant":
        before = _prompt(record)
    else:
        before = _common_beginning(chosen, rejected)
        chosen, rejected = chosen[len(before) :], rejected[len(before) :]
    if chosen == rejected:
        raise BadRow("is the same as chosen, so there is nothing to prefer", "rejected")
    for column, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer or answer[0]["role"] != "assistant":
            raise BadRow("begins with another prompt than the other answer does", column)
    before = [*system_turn(record, before), *before]
    liked = check_turns([*before, *chosen], "prompt + chosen")
    disliked = check_turns([*before, *rejected], "prompt + rejected")
    return {
        "messages": liked,
        "rejected": disliked[len(before) :],
        "context": len(before),
        "tools": fields.tools(record.get("tools")),
    }


def _answer(value: Any, column: str) -> list[Message]:
    if isinstance(value, list):
        return read_turns(value, column)
    if isinstance(value, dict):
        return read_turns([value], column)
    said = {"role": "assistant", "content": fields.string(value, column)}
    return [read_turn(said, column)]


def _prompt(record: Columns) -> list[Message]:
    """The turns before the answer, from the first of the columns that is there."""
    columns = ("prompt", "conversations", "messages")
    column = next((column for column in columns if record.get(column)), "prompt")
    prompt = record.get(column)
    if column == "prompt" and not isinstance(prompt, list):
        return [{"role": "user", "content": fields.string(prompt, column)}]
    turns = read_turns(prompt, column)
    if turns[-1]["role"] == "assistant":
        raise BadRow("ends with an answer, and chosen and rejected are answers, too", column)
    return turns


def _common_beginning(one: list[Message], other: list[Message]) -> list[Message]:
    """The turns with which both begin, up to the last answer of either."""
    same = 0
    while same < min(len(one), len(other)) - 1 and one[same] == other[same]:
        same += 1
    return one[:same]

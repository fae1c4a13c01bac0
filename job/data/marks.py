"""Marks around parts of a conversation, by which those parts are found again in rendered text.

A mark is one private-use character that the conversation does not contain. Rendering the marked
conversation and taking the marks out must give what the plain conversation renders to; then the
place of a mark is the place of the part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from job.data.rows import BadRow, Message

_FIRST, _LAST = 0x10F000, 0x10FFFD
_MARK = re.compile(f"[{chr(_FIRST)}-{chr(_LAST)}]")


@dataclass
class Part:
    """One text of a message between two marks."""

    name: str
    before: str
    after: str


@dataclass
class Turn:
    """A message on its way through the template.

    Attributes:
        message: what the template gets.
        column: how the row's message is called in a finding.
        trained: an assistant turn that is not part of a given prompt.
        calls: number of tool calls of the row's message, also when they were folded into text.
        thinking: reasoning that is put before the content after rendering ("" for none).
        slot: the character that stands for that reasoning while the template works.
    """

    message: Message
    column: str
    trained: bool
    calls: int
    thinking: str = ""
    slot: str = ""
    parts: list[Part] = field(default_factory=list)


def unused_characters(turns: list[Turn], tools: list[Message] | None) -> Iterator[str]:
    """Characters for marks and slots, none of which occurs in the conversation."""
    said = [[turn.message for turn in turns], [turn.thinking for turn in turns], tools]
    used = set(_MARK.findall(json.dumps(said, ensure_ascii=False)))
    return (chr(code) for code in range(_FIRST, _LAST + 1) if chr(code) not in used)


def marked(turn: Turn, thinking_key: str, characters: Iterator[str]) -> Message:
    """The turn's message with marks around what it says; its `parts` are set on the way.

    A tool call is marked at its name: the arguments are an object whose form the template chooses.
    """
    turn.parts = []

    def mark(name: str, text: str) -> str:
        part = Part(name, next(characters), next(characters))
        turn.parts.append(part)
        return f"{part.before}{text}{part.after}"

    message = dict(turn.message)
    if message.get(thinking_key):
        message[thinking_key] = mark("thinking", message[thinking_key])
    if message["content"]:
        message["content"] = turn.slot + mark("content", message["content"])
    elif turn.slot:
        message["content"] = turn.slot
    if "tool_calls" in message:
        message["tool_calls"] = [
            {
                **call,
                "function": {**call["function"], "name": mark("call", call["function"]["name"])},
            }
            for call in message["tool_calls"]
        ]
    return message


def plain(turn: Turn) -> Message:
    """The turn's message without marks."""
    return {**turn.message, "content": turn.slot + turn.message["content"]}


def fill_slots(text: str, turns: list[Turn]) -> str:
    """Puts each turn's reasoning where its slot stands.

    This happens after rendering because some templates cut what looks like reasoning out of an
    answer (DeepSeek-R1's does).

    Raises:
        BadRow: the template leaves a slot out (Llama 3.1's does beside a tool call).
    """
    for turn in turns:
        if turn.slot:
            if turn.slot not in text:
                raise BadRow("the model's chat template leaves out its thinking", turn.column)
            block = f"<think>\n{turn.thinking}\n</think>\n\n"
            text = text.replace(turn.slot, block, 1)
    return text


def locate(text: str, turns: list[Turn]) -> tuple[str, dict[str, int]]:
    """Takes the marks out.

    Returns:
        The plain text, and for every mark that was in it the index of its first occurrence there
        (a template may print a call's name again with the result).
    """
    marks = {mark for turn in turns for part in turn.parts for mark in (part.before, part.after)}
    places: dict[str, int] = {}
    pieces, length, last = [], 0, 0
    for found in _MARK.finditer(text):
        if found[0] not in marks:
            continue  # a character of the content's own
        pieces.append(text[last : found.start()])
        length += len(pieces[-1])
        places.setdefault(found[0], length)
        last = found.end()
    pieces.append(text[last:])
    return "".join(pieces), places

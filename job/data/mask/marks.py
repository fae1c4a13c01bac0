"""Marks around parts of a conversation, by which those parts are found again in rendered text.

A mark is one private-use character that the conversation does not contain. Rendering the marked
conversation and taking the marks out must give what the plain conversation renders to; then the
place of a mark is the place of the part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from job.data.rows import BadRow, Message

_FIRST, _LAST = 0x10F000, 0x10FFFD
_MARK = re.compile(f"([{chr(_FIRST)}-{chr(_LAST)}])")

_THINKING = "<think>\n{}\n</think>\n\n"
# What OpenAI's Harmony format calls a preamble: words for the user before a call.
_HEADER = "<|start|>assistant"
_PREAMBLE = _HEADER + "<|channel|>commentary<|message|>{}<|end|>"


@dataclass(slots=True)
class Part:
    """One text of a message between two marks."""

    name: str
    before: str
    after: str


@dataclass(slots=True)
class Turn:
    """A message on its way through the template.

    Attributes:
        message: what the template gets.
        index: of the row's message; several turns may be made of one.
        trained: an assistant turn that is not part of a given prompt.
        calls: number of tool calls in it, also when they were folded into text.
        thinking: reasoning that is put before the content after rendering ("" for none).
        preamble: words for the user that are put before a call after rendering ("" for none).
        slot: the character that stands for one of those while the template works.
    """

    message: Message
    index: int
    trained: bool
    calls: int = 0
    thinking: str = ""
    preamble: str = ""
    slot: str = ""
    parts: list[Part] = field(default_factory=list)

    @property
    def column(self) -> str:
        """How the row's message is called in a finding."""
        return f"messages[{self.index}]"


def unused_characters(*said: Any) -> Iterator[str]:
    """Characters for marks and slots, none of which occurs in the conversation, given as JSON."""
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

    message = plain(turn)
    if message.get(thinking_key):
        message[thinking_key] = mark("thinking", message[thinking_key])
    content = turn.message["content"]
    if content or turn.message["role"] != "assistant":  # a tool may answer nothing
        message["content"] = turn.slot + mark("content", content)
    if "tool_calls" in message:
        message["tool_calls"] = [
            _renamed(call, mark("call", call["function"]["name"])) for call in message["tool_calls"]
        ]
    return message


def plain(turn: Turn) -> Message:
    """The turn's message without marks, with its slot."""
    message = dict(turn.message)
    if turn.preamble:
        first, *others = message["tool_calls"]
        named = _renamed(first, turn.slot + first["function"]["name"])
        message["tool_calls"] = [named, *others]
    elif turn.slot:
        message["content"] = turn.slot + message["content"]
    return message


def _renamed(call: Message, name: str) -> Message:
    return {**call, "function": {**call["function"], "name": name}}


def without_lost(
    messages: list[Message], turns: Sequence[Turn], text: str, thinking_key: str
) -> list[Message]:
    """The messages without the reasoning that is not in the text that a template made of them.

    A template may draw a turn with such reasoning otherwise than one that has none: Unsloth's for
    gpt-oss puts its answer into the channel of the reasoning.

    Returns:
        The same list where nothing is lost.
    """
    lost = [
        any(part.name == "thinking" and part.before not in text for part in turn.parts)
        for turn in turns
    ]
    if not any(lost):
        return messages
    return [
        {key: value for key, value in message.items() if not gone or key != thinking_key}
        for message, gone in zip(messages, lost, strict=True)
    ]


def fill_slots(text: str, turns: Sequence[Turn]) -> str:
    """Puts each turn's reasoning or preamble where its slot stands.

    This happens after rendering because some templates cut what looks like reasoning out of an
    answer (DeepSeek-R1's does), and Harmony's has no words for a preamble.

    Raises:
        BadRow: the template leaves a slot out (Llama 3.1's does beside a tool call).
    """
    for turn in turns:
        if not turn.slot:
            continue
        place = text.find(turn.slot)
        if place < 0:
            what = "preamble" if turn.preamble else "thinking"
            raise BadRow(f"the model's chat template leaves out its {what}", turn.column)
        if turn.preamble:
            place = text.rindex(_HEADER, 0, place)
            block = _PREAMBLE.format(turn.preamble)
        else:
            block = _THINKING.format(turn.thinking)
        text = text[:place] + block + text[place:].replace(turn.slot, "")
    return text


def take_out(text: str, marks: Collection[str]) -> tuple[str, dict[str, int]]:
    """Takes the marks out; other characters of their kind are the content's own and stay.

    Returns:
        The text without them, and for every mark that was in it the index of its first occurrence
        there (a template may print a call's name again with the result).
    """
    places: dict[str, int] = {}
    pieces, length = [], 0
    for piece in _MARK.split(text):
        if piece in marks:
            places.setdefault(piece, length)
        else:
            pieces.append(piece)
            length += len(piece)
    return "".join(pieces), places

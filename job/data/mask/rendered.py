"""A row as text, and what the tokenizer has to know about places in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """Characters [start, end) of a text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row, or one example of it, as text.

    Attributes:
        text: all of it, BOS and stop tokens included as text.
        spans: the trained parts, in order, not overlapping.
        stops: the stop tokens inside the spans.
        control: the control tokens that belong there, in order.
        breaks: places inside text of the row's own that looks like a control token, in order; no
            token may reach over one.
        turn: index of the message that is trained, where each turn is an example; else 0.
        dropped_thinking: turns whose reasoning the template leaves out on purpose, and that have no
            example of their own.
        folded: something is said as text for which the template has no words.
        reasoning: the text says what the assistant thought in a turn that is its to answer.
    """

    text: str
    spans: tuple[Span, ...]
    stops: tuple[Span, ...]
    control: tuple[str, ...]
    breaks: tuple[int, ...] = ()
    turn: int = 0
    dropped_thinking: int = 0
    folded: bool = False
    reasoning: bool = False

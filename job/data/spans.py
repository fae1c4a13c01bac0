"""One conversation as the template draws it, and where each turn of the assistant lies in it."""

from __future__ import annotations

import re
from typing import NamedTuple

from job.data import marks
from job.data.marks import Turn
from job.data.rows import BadRow, Message
from job.data.template import ChatTemplate

_SCAFFOLD = re.compile(r"(?:\s|</?think>)*")
"""What a generation prompt may add for the model's reasoning and a given answer not contain."""


class Span(NamedTuple):
    """Characters [start, end) of a text."""

    start: int
    end: int


class MarkedText:
    """One conversation as the template draws it, with the places of what was said."""

    def __init__(
        self,
        template: ChatTemplate,
        turns: list[Turn],
        said: list[Message],
        tools: list[Message] | None,
        effort: str | None,
    ) -> None:
        self._template, self._turns, self._said = template, turns, said
        self._tools, self._effort = tools, effort
        self.text, self.places = self._draw(len(turns), prompt=False)
        untouched = template.render([marks.plain(turn) for turn in turns], tools, effort)
        if marks.fill_slots(untouched, turns) != self.text:
            raise BadRow("the model's chat template changes what is said in this conversation")
        self._check_all_said()

    def _draw(self, count: int, *, prompt: bool) -> tuple[str, dict[str, int]]:
        text = self._template.render(self._said[:count], self._tools, self._effort, prompt=prompt)
        turns = self._turns[:count]
        return marks.locate(marks.fill_slots(text, turns), turns)

    def _check_all_said(self) -> None:
        last = self._turns[-1]
        for turn in self._turns:
            for part in turn.parts:
                lost = part.before not in self.places
                if lost and (part.name != "thinking" or turn is last):
                    raise BadRow(
                        f"the model's chat template leaves out its {part.name}", turn.column
                    )

    def dropped_thinking(self) -> int:
        """Turns whose reasoning is not in the text."""
        return sum(
            part.name == "thinking" and part.before not in self.places
            for turn in self._turns
            for part in turn.parts
        )

    def _bounds(self, index: int, places: dict[str, int]) -> Span:
        parts = [part for part in self._turns[index].parts if part.before in places]
        return Span(
            min(places[part.before] for part in parts), max(places[part.after] for part in parts)
        )

    def start(self, index: int) -> int:
        """Where the assistant begins to speak: after what the template prints to make it speak.

        Raises:
            BadRow: the generation prompt is not how the template begins an assistant turn.
        """
        text, places = self._draw(index, prompt=True)
        opening = text[self._bounds(index - 1, places).end :]
        begin = self._bounds(index - 1, self.places).end
        given = self.text[begin : self._bounds(index, self.places).start]
        common = _common(opening, given)
        if not _SCAFFOLD.fullmatch(opening, common):
            raise BadRow(
                "the model's chat template begins this turn otherwise than it prompts for one",
                self._turns[index].column,
            )
        return begin + common

    def end(self, index: int, stop: re.Pattern[str]) -> tuple[int, Span]:
        """Where the turn ends, and its stop token.

        Raises:
            BadRow: no stop token follows, so that the model would never learn to stop.
        """
        last = self._bounds(index, self.places).end
        native_calls = "tool_calls" in self._turns[index].message
        if native_calls:
            end = last + self._closing(index, last)
            ends = (m for m in stop.finditer(self.text, last, end) if m.end() == end)
            found = next(ends, None)
        else:
            found = stop.match(self.text, last)
        if found is None:
            raise BadRow("no stop token follows what the assistant says", self._turns[index].column)
        return found.end(), Span(*found.span(1))

    def _closing(self, index: int, last: int) -> int:
        """Length of what the template prints after the name of a turn's last call."""
        text, places = self._draw(index + 1, prompt=False)
        alone = text[self._bounds(index, places).end :]
        common = _common(alone, self.text[last:])
        return len(alone[:common].rstrip())


def _common(one: str, other: str) -> int:
    """Length of the common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))

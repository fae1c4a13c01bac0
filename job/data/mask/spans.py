"""One conversation as the template draws it, and where each turn of the assistant lies in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from job.data.mask import marks
from job.data.mask.marks import Turn
from job.data.mask.rendered import Span
from job.data.mask.template import ChatTemplate
from job.data.rows import BadRow, Message

_SCAFFOLD = re.compile(r"(?:\s|</?think>)*")
"""What a generation prompt may add for the model's reasoning and a given answer not contain."""


class MarkedText:
    """One conversation, or its beginning, as the template draws it.

    Attributes:
        text: what the template prints; slots of hidden characters are still in it.
        places: mark -> its place in the text.
        control: the control tokens that the template wrote, in order.
    """

    def __init__(
        self,
        template: ChatTemplate,
        tools: list[dict[str, Any]] | None,
        turns: Sequence[Turn],
        said: list[Message],
        effort: str | None,
    ) -> None:
        """turns, said: the turns of the conversation as they are, and marked.

        Raises:
            BadRow: the template leaves out or changes what is said.
        """
        self._template, self._turns = template, turns
        self._tools, self._effort = tools, effort
        parts = [part for turn in turns for part in turn.parts]
        self._marks = {mark for part in parts for mark in (part.before, part.after)}
        key, plain = template.thinking_key, [marks.plain(turn) for turn in turns]
        drawn = self._render(said, turns, prompt=False)
        self._said = marks.without_lost(said, turns, drawn, key)
        if self._said is not said:
            plain = marks.without_lost(plain, turns, drawn, key)
            drawn = self._render(self._said, turns, prompt=False)
        self.control = template.control.findall(drawn)
        self.text, self.places = marks.take_out(drawn, self._marks)
        if self._render(plain, turns, prompt=False) != self.text:
            raise BadRow("the model's chat template changes what is said in this conversation")
        self._check_all_said()

    def _render(self, said: list[Message], turns: Sequence[Turn], *, prompt: bool) -> str:
        text = self._template.render(said, self._tools, self._effort, prompt=prompt)
        return marks.fill_slots(text, turns)

    def _draw(self, count: int, *, prompt: bool) -> tuple[str, dict[str, int]]:
        text = self._render(self._said[:count], self._turns[:count], prompt=prompt)
        return marks.take_out(text, self._marks)

    def _check_all_said(self) -> None:
        last = self._turns[-1]
        for turn in self._turns:
            for part in turn.parts:
                lost = part.before not in self.places
                if lost and (part.name != "thinking" or turn is last):
                    raise BadRow(
                        f"the model's chat template leaves out its {part.name}", turn.column
                    )

    def shows_thinking(self, turn: Turn) -> bool:
        """Whether the turn's reasoning is in the text."""
        if turn.thinking:
            return True
        return any(part.name == "thinking" and part.before in self.places for part in turn.parts)

    def drops_thinking(self, turn: Turn) -> bool:
        """Whether the template left the turn's reasoning out."""
        return any(
            part.name == "thinking" and part.before not in self.places for part in turn.parts
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
        ends = range(_common(opening, given), -1, -1)  # back out of a tag: <t|hink>, <t|ool_call>
        common = next((i for i in ends if _SCAFFOLD.fullmatch(opening, i)), None)
        if common is None:
            raise BadRow(
                "the model's chat template begins this turn otherwise than it prompts for one",
                self._turns[index].column,
            )
        return begin + common

    def end(self, index: int) -> tuple[int, Span]:
        """Where the turn ends, and its stop token.

        Raises:
            BadRow: no stop token follows, so that the model would never learn to stop.
        """
        stop = self._template.stop
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
        eos = self._template.any_eos
        if eos and found[1] != eos and self.text.startswith(eos, found.end()):
            # Cohere's ends an answer with a token of its own, and then the turn.
            return found.end() + len(eos), Span(found.end(), found.end() + len(eos))
        return found.end(), Span(*found.span(1))

    def _closing(self, index: int, last: int) -> int:
        """Length of what the template prints after the name of a turn's last call."""
        text, places = self._draw(index + 1, prompt=False)
        alone = text[self._bounds(index, places).end :]
        common = _common(alone, self.text[last:])
        return len(alone[:common].rstrip())


def _common(one: str, other: str) -> int:
    """Length of the common beginning."""
    if other.startswith(one):
        return len(one)
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))

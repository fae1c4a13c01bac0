"""One conversation through the chat template: its text, and which parts of it are trained.

The parts are found by marks (`marks.py`), not by markers written down for each model family. Three
facts of a template are used, all of them measured on the row itself:
- a turn of the assistant begins where the generation prompt after the previous message ends;
- it ends with the first token that stands for itself after what the assistant said;
- a turn with tool calls ends where the text ends when the conversation stops there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from job.data.mask import marks
from job.data.mask.prepare import prepare
from job.data.mask.rendered import Rendered, Span
from job.data.mask.spans import MarkedText
from job.data.mask.template import ChatTemplate
from job.data.rows import Message, Row


class Chat:
    """A conversation that is ready for the template.

    Raises:
        BadRow: calls that the template has no way to say.
    """

    def __init__(self, template: ChatTemplate, row: Row, messages: Sequence[Message]) -> None:
        self._template, self._effort = template, row.reasoning_effort
        self._prepared = prepare(row, messages, template)
        self._turns = self._prepared.turns
        key, characters = template.thinking_key, self._prepared.characters
        self._said = [marks.marked(turn, key, characters) for turn in self._turns]

    def whole(self, train_on: str) -> Rendered:
        """All of it, with every turn trained that may be.

        Raises:
            BadRow: the template cannot say it without loss.
        """
        return self._rendered(train_on, len(self._turns), None)

    def each(self, train_on: str) -> Iterator[Rendered]:
        """One example for each message of the assistant: all up to it, with only it trained.

        Raises:
            BadRow: the template cannot say it without loss.
        """
        ends = {turn.index: end for end, turn in enumerate(self._turns, 1) if turn.trained}
        for index, end in ends.items():
            yield self._rendered(train_on, end, index)

    def _rendered(self, train_on: str, count: int, index: int | None) -> Rendered:
        """The first `count` turns; those of the message `index` are trained, with None all."""
        turns, said = self._turns[:count], self._said[:count]
        drawn = MarkedText(self._template, self._prepared.tools, turns, said, self._effort)
        own = [i for i, t in enumerate(turns) if t.trained and index in (None, t.index)]
        found = [self._trained(drawn, i, train_on) for i in own]
        spans = [span for span, _ in filter(None, found)]
        if train_on == "all":
            spans = [Span(0, len(drawn.text))]
        text = self._prepared.hidden.show(drawn.text)
        dropping = [turn for turn in turns if index is None or not turn.trained]
        return Rendered(
            text,
            tuple(spans),
            stops=tuple(stop for _, stop in filter(None, found)),
            control=tuple(drawn.control),
            breaks=self._breaks(drawn.text, text),
            turn=index or 0,
            dropped_thinking=sum(drawn.drops_thinking(turn) for turn in dropping),
            folded=self._prepared.folded,
            reasoning=any(drawn.shows_thinking(turns[i]) for i in own),
        )

    def _trained(self, drawn: MarkedText, index: int, train_on: str) -> tuple[Span, Span] | None:
        """A turn's trained part and the stop token that ends it; None where nothing is trained."""
        turn = self._turns[index]
        end, stop = drawn.end(index)
        start = drawn.start(index)
        if train_on == "final":
            if turn.calls or not turn.message["content"]:
                return None  # a call is not what the user reads
            start = drawn.places[turn.parts[-1].before]
        return Span(start, end), stop

    def _breaks(self, text: str, shown: str) -> tuple[int, ...]:
        """The places after the first characters of control tokens that are only said."""
        if not (slots := self._prepared.hidden.slots):
            return ()
        at, begins = enumerate(text), self._template.control.match
        return tuple(i + 1 for i, slot in at if slot in slots and begins(shown, i))

"""A row to text with the checkpoint's own chat template, and which parts of that text are trained.

The parts are found by marks (`marks.py`), not by markers written down for each model family. Three
facts of a template are used, all of them measured on the row itself:
- a turn of the assistant begins where the generation prompt after the previous message ends;
- it ends with the first token that stands for itself after what the assistant said;
- a turn with tool calls ends where the text ends when the conversation stops there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from job.data import marks
from job.data.answer import split_answer
from job.data.prepare import prepare
from job.data.rows import BadRow, Message, Row
from job.data.spans import MarkedText, Span
from job.data.template import ChatTemplate, EncodeOptions, ReasoningMode
from job.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["EncodeOptions", "Rendered", "Renderer", "Span", "render_prompt", "split_answer"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as text.

    Attributes:
        text: all of it, BOS and stop tokens included as text.
        spans: the trained parts, in order, not overlapping.
        stops: the stop tokens inside the spans.
        dropped_thinking: turns whose reasoning the template leaves out on purpose.
    """

    text: str
    spans: tuple[Span, ...]
    stops: tuple[Span, ...]
    dropped_thinking: int = 0


class Renderer:
    """Turns rows into text and spans, for one tokenizer and one set of options."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, options: EncodeOptions) -> None:
        self.template = ChatTemplate(tokenizer, options)
        self._train_on = options.train_on
        self._stop = re.compile(rf"\s*({self.template.added.pattern})")

    @cached_property
    def mode(self) -> ReasoningMode:
        """How reasoning is written for this checkpoint."""
        return self.template.mode

    def render(self, row: Row) -> Rendered:
        """The row's text and trained spans.

        Raises:
            BadRow: the row cannot be rendered without loss with this template.
            DataError: conversations without a chat template, text without an EOS token.
        """
        if row.text is not None:
            self.template.refuse_control(row.text, "text")
            return self._continued("", row.text)
        assert row.messages is not None  # noqa: S101 (a row has one of the two)
        if self.template.exists:
            return self._conversation(row, row.messages)
        if not row.is_pair:
            raise DataError(
                f"{row.source} holds conversations, but the model's tokenizer has no chat "
                "template. Train an instruct checkpoint, or give text or prompt/completion rows."
            )
        prompt, completion = (message["content"] for message in row.messages)
        self.template.refuse_control(prompt, "prompt")
        self.template.refuse_control(completion, "completion")
        return self._continued(prompt, completion)

    def _continued(self, prompt: str, text: str) -> Rendered:
        """Plain text as a base model reads it: BOS where the tokenizer uses one, and EOS."""
        before = self.template.bos + prompt
        end = len(before) + len(text) + len(self.template.eos)
        start = 0 if self._train_on == "all" else len(before)
        stop = Span(end - len(self.template.eos), end)
        return Rendered(before + text + self.template.eos, (Span(start, end),), (stop,))

    def _conversation(self, row: Row, messages: Sequence[Message]) -> Rendered:
        turns, tools = prepare(row, messages, self.template)
        characters = marks.unused_characters(turns, tools)
        for turn in turns:
            turn.slot = next(characters) if turn.thinking else ""
        said = [marks.marked(turn, self.template.thinking_key, characters) for turn in turns]
        drawn = MarkedText(self.template, turns, said, tools, row.reasoning_effort)
        text, spans, stops = drawn.text, [], []
        for index, turn in enumerate(turns):
            if not turn.trained:
                continue
            end, stop = drawn.end(index, self._stop)
            start = drawn.start(index)
            if self._train_on == "final":
                if turn.calls or not turn.message["content"]:
                    continue  # a call is not what the user reads
                start = drawn.places[turn.parts[-1].before]
            spans.append(Span(start, end))
            stops.append(stop)
        if self._train_on == "all":
            spans = [Span(0, len(text))]
        return Rendered(text, tuple(spans), tuple(stops), drawn.dropped_thinking())


def render_prompt(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerFast, options: EncodeOptions
) -> str:
    """The text after which the model answers; tokenise it with add_special_tokens=False.

    Without a chat template the messages are joined as plain text.

    Raises:
        DataError: a control token in a message, or the template refuses the conversation.
    """
    template = ChatTemplate(tokenizer, options)
    if not template.exists:
        return template.bos + "\n\n".join(message["content"] for message in messages)
    row = Row(tuple(messages), None, None, "prompts", 1)
    try:
        turns, tools = prepare(row, messages, template)
        characters = marks.unused_characters(turns, tools)
        for turn in turns:
            turn.slot = next(characters) if turn.thinking else ""
        text = template.render([marks.plain(turn) for turn in turns], prompt=True)
        return marks.fill_slots(text, turns)
    except BadRow as error:
        raise DataError(error.at("A prompt cannot be used")) from None

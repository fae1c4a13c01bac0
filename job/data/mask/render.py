"""Rows to text and spans, conversation or not, and prompts in the same way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from re import Pattern
from typing import TYPE_CHECKING

from job.data.mask import marks
from job.data.mask.chat import Chat
from job.data.mask.control import starts
from job.data.mask.prepare import prepare
from job.data.mask.rendered import Rendered, Span
from job.data.mask.template import ChatTemplate, EncodeOptions, ReasoningMode
from job.data.rows import BadRow, Message, Row
from job.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["EncodeOptions", "Renderer", "render_prompt"]


class Renderer:
    """Turns rows into text and spans, for one tokenizer and one set of options."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, options: EncodeOptions) -> None:
        self.template = ChatTemplate(tokenizer, options)
        self._train_on = options.train_on
        self._expand = options.expand_turns

    @cached_property
    def mode(self) -> ReasoningMode:
        """How reasoning is written for this checkpoint."""
        return self.template.mode

    def render(self, row: Row) -> list[Rendered]:
        """The text and trained spans of the row, or with `expand_turns` of each of its turns.

        A turn without a trained part is no example; when none has one, the whole row is it.

        Raises:
            BadRow: the row cannot be rendered without loss with this template.
            DataError: conversations without a chat template, text without an EOS token.
        """
        if row.is_pair and row.messages:
            self._refuse_rendered(row.messages[0]["content"], "prompt")
        if row.messages is None:
            self._refuse_rendered(row.text or "", "text")
            return [self._continued("", row.text or "")]
        if self.template.exists:
            chat = Chat(self.template, row, row.messages)
            each = chat.each(self._train_on) if self._expand else ()
            return [one for one in each if one.stops] or [chat.whole(self._train_on)]
        if not row.is_pair:
            raise DataError(
                f"{row.source} holds conversations, but the model's tokenizer has no chat "
                "template. Train an instruct checkpoint, or give text or prompt/completion rows."
            )
        prompt, completion = (message["content"] for message in row.messages)
        return [self._continued(prompt, completion)]

    def _continued(self, prompt: str, text: str) -> Rendered:
        """Plain text as a base model reads it: BOS where the tokenizer uses one, and EOS."""
        bos, eos, said = self.template.bos, self.template.eos, prompt + text
        end = len(bos) + len(said) + len(eos)
        start = 0 if self._train_on == "all" else len(bos) + len(prompt)
        return Rendered(
            bos + said + eos,
            spans=(Span(start, end),),
            stops=(Span(end - len(eos), end),),
            control=(bos, eos) if bos else (eos,),
            breaks=tuple(len(bos) + i + 1 for i in starts(self.template.control, said)),
        )

    def _refuse_rendered(self, text: str, column: str) -> None:
        """Raises BadRow for text that holds the control tokens of a chat already."""
        found = self.template.control.findall(text)
        if len(found) > 1 and text.lstrip().startswith(found[0]):
            raise BadRow(
                f"begins with the model's control token {found[0]} and holds others, as what a "
                "chat template has written does; give the conversation as messages",
                column,
            )


def render_prompt(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerFast, options: EncodeOptions
) -> str:
    """The text after which the model answers; tokenise it with add_special_tokens=False.

    Without a chat template the messages are joined as plain text.

    Raises:
        DataError: a control token in a message, which the tokenizer would take for one; or the
            template refuses the conversation.
    """
    template = ChatTemplate(tokenizer, options)
    try:
        for index, message in enumerate(messages):
            _refuse_control(message, f"messages[{index}]", template.control)
        if not template.exists:
            return template.bos + "\n\n".join(message["content"] for message in messages)
        row = Row(tuple(messages), None, None, "prompts", 1)
        prepared = prepare(row, messages, template)
        turns, key = prepared.turns, template.thinking_key
        marked = [marks.marked(turn, key, prepared.characters) for turn in turns]
        drawn = template.render(marked, prepared.tools, prompt=True)
        said = marks.without_lost([marks.plain(turn) for turn in turns], turns, drawn, key)
        text = template.render(said, prepared.tools, prompt=True)
        return prepared.hidden.show(marks.fill_slots(text, turns))
    except BadRow as error:
        raise DataError(error.at("A prompt cannot be used")) from None


def _refuse_control(message: Message, column: str, control: Pattern[str]) -> None:
    for key, value in message.items():
        if found := control.search(json.dumps(value, ensure_ascii=False)):
            raise BadRow(f"holds the model's control token {found[0]}", f"{column}.{key}")

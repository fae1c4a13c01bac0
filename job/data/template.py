"""The checkpoint's own chat template, asked once what it can say, and always with the same date."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import jinja2

from job.data.rows import BadRow, Message
from job.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ReasoningMode = Literal["template:thinking", "template:reasoning_content", "think-tags"]

_THOUGHT, _ANSWER, _RESULT, _NAME = (
    "Sentinelthought",
    "Sentinelanswer",
    "Sentinelresult",
    "probe_fn",
)
_CALL = {"type": "function", "function": {"name": _NAME, "arguments": {}}}
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {}},
    },
}


@dataclass(frozen=True)
class EncodeOptions:
    """The spec's keys that decide what a row becomes; the names and meanings are the spec's.

    Attributes:
        max_seq_length: tokens.
        max_dropped: share of rows, 0 to 1.
        template_date: ISO day, which the template prints instead of today.
    """

    train_on: Literal["all", "assistant", "final"]
    overlength: Literal["error", "drop", "truncate"]
    max_dropped: float
    max_seq_length: int
    reasoning_effort: str
    template_date: str


class ChatTemplate:
    """Renders messages as text, and knows which parts of a conversation the template can say."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, options: EncodeOptions) -> None:
        if not tokenizer.is_fast:
            raise DataError(
                "The model's tokenizer is a slow one, which cannot tell which text a token stands "
                "for. Use a checkpoint that holds tokenizer.json."
            )
        self._tokenizer = tokenizer
        self._effort = options.reasoning_effort
        self._day = datetime.fromisoformat(options.template_date)

    @property
    def exists(self) -> bool:
        """Whether the checkpoint has a chat template at all."""
        return bool(self._tokenizer.chat_template)

    def render(
        self,
        messages: list[Message],
        tools: list[dict[str, Any]] | None = None,
        effort: str | None = None,
        *,
        prompt: bool = False,
    ) -> str:
        """The conversation as text; with `prompt`, up to where the assistant would speak.

        A template asks for today's date through `strftime_now`, a global of the environment that
        transformers makes; a render argument of that name hides it. Llama 3 takes `date_string`.

        Raises:
            BadRow: the template refuses the conversation, in its own words.
        """
        try:
            text = self._tokenizer.apply_chat_template(
                messages,
                tools=tools,
                tokenize=False,
                add_generation_prompt=prompt,
                reasoning_effort=effort or self._effort,
                strftime_now=self._day.strftime,
                date_string=self._day.strftime("%d %b %Y"),
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise BadRow(f"the model's chat template refuses it ({error})") from error
        return str(text)

    @cached_property
    def mode(self) -> ReasoningMode:
        """How the reasoning of an assistant turn is written: by the template, or as tags by us."""
        for key in ("thinking", "reasoning_content"):
            turn = {"role": "assistant", "content": _ANSWER, key: _THOUGHT}
            if _THOUGHT in self._probe([turn]):
                return "template:thinking" if key == "thinking" else "template:reasoning_content"
        return "think-tags"

    @property
    def thinking_key(self) -> str:
        """The message key by which the template takes reasoning; it takes none in tags mode."""
        return self.mode.removeprefix("template:")

    @cached_property
    def says_calls(self) -> bool:
        """Whether the template writes `tool_calls`."""
        return _NAME in self._probe([{"role": "assistant", "content": "", "tool_calls": [_CALL]}])

    @cached_property
    def says_results(self) -> bool:
        """Whether the template writes turns of the role `tool`."""
        call: Message = {"role": "assistant", "content": _ANSWER}
        if self.says_calls:
            call = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
        result = {"role": "tool", "name": _NAME, "content": _RESULT}
        last = {"role": "assistant", "content": _ANSWER}
        return _RESULT in self._probe([call, result, last])

    @cached_property
    def says_tools(self) -> bool:
        """Whether the template writes the schemas of `tools`."""
        return _NAME in self._probe([{"role": "assistant", "content": _ANSWER}], [_TOOL])

    def _probe(self, turns: list[Message], tools: list[dict[str, Any]] | None = None) -> str:
        if not self.exists:
            return ""
        try:
            return self.render([{"role": "user", "content": "Sentinelquestion"}, *turns], tools)
        except BadRow:
            return ""  # what it refuses, it cannot say

    @cached_property
    def added(self) -> re.Pattern[str]:
        """Matches any token that stands for itself, longest first; one of them ends a turn."""
        tokens = [t.content for t in self._tokenizer.added_tokens_decoder.values()]
        return _any_of([token for token in tokens if token.strip()])

    @cached_property
    def control(self) -> re.Pattern[str]:
        """Matches tokens that steer the model, which the content of a row must not hold.

        Those are the special ones, and the others that the template itself writes (Qwen's
        `<think>` is not marked special).
        """
        source = str(self._tokenizer.chat_template or "")
        return _any_of(
            [
                token.content
                for token in self._tokenizer.added_tokens_decoder.values()
                if token.content.strip() and (token.special or token.content in source)
            ]
        )

    def refuse_control(self, text: str, column: str) -> None:
        """Raises BadRow when the text would smuggle in a control token."""
        if found := self.control.search(text):
            raise BadRow(f"holds the model's control token {found[0]}", column)

    @cached_property
    def bos(self) -> str:
        """What the tokenizer itself puts before plain text: its BOS token, or ""."""
        bos = self._tokenizer.bos_token_id
        starts = self._tokenizer("a").input_ids[0] == bos
        return str(self._tokenizer.bos_token) if bos is not None and starts else ""

    @property
    def eos(self) -> str:
        """The token that ends plain text.

        Raises:
            DataError: the tokenizer has none, so the model could not learn to stop.
        """
        if self._tokenizer.eos_token is None:
            raise DataError("The model's tokenizer has no EOS token, so text could not end.")
        return str(self._tokenizer.eos_token)


def _any_of(tokens: list[str]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

"""The checkpoint's own chat template, asked once what it can say, and always with the same date."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from re import Pattern
from typing import TYPE_CHECKING, Any, Literal

import jinja2

from job.data.mask.control import any_of, is_control, tags_in
from job.data.rows import BadRow, Message
from job.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ReasoningMode = Literal["template:thinking", "template:reasoning_content", "think-tags"]

_THOUGHT, _ANSWER, _RESULT, _SYSTEM = (
    "Sentinelthought",
    "Sentinelanswer",
    "Sentinelresult",
    "Sentinelsystem",
)
_NAME, _OTHER = "probe_fn", "other_fn"
_CALL, _SECOND = (
    {"type": "function", "function": {"name": name, "arguments": {}}} for name in (_NAME, _OTHER)
)
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
        expand_turns: one example for each turn of the assistant: the conversation up to it, with
            only that turn trained. A template that drops the thinking of earlier turns (Harmony's,
            Qwen 3's) so shows all of it, each in its own example; one that keeps all thinking
            gives as many examples. With `train_on="all"` every token of each is trained.
    """

    train_on: Literal["all", "assistant", "final"]
    overlength: Literal["error", "drop", "truncate"]
    max_dropped: float
    max_seq_length: int
    reasoning_effort: str
    template_date: str
    expand_turns: bool = False


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
        day = datetime.fromisoformat(options.template_date)
        self._dates = {"strftime_now": day.strftime, "date_string": day.strftime("%d %b %Y")}

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
                **self._dates,
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
    def says_many_calls(self) -> bool:
        """Whether the template writes several calls in one turn."""
        turn = {"role": "assistant", "content": "", "tool_calls": [_CALL, _SECOND]}
        return _OTHER in self._probe([turn])

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

    @cached_property
    def says_system(self) -> bool:
        """Whether the template writes a system turn."""
        system = {"role": "system", "content": _SYSTEM}
        return _SYSTEM in self._probe([{"role": "assistant", "content": _ANSWER}], before=[system])

    @cached_property
    def is_harmony(self) -> bool:
        """Whether answers go to a channel of OpenAI's Harmony format."""
        answer = self._probe([{"role": "assistant", "content": _ANSWER}])
        return f"<|channel|>final<|message|>{_ANSWER}" in answer

    def _probe(
        self,
        turns: list[Message],
        tools: list[dict[str, Any]] | None = None,
        before: Sequence[Message] = (),
    ) -> str:
        if not self.exists:
            return ""
        question = {"role": "user", "content": "Sentinelquestion"}
        try:
            return self.render([*before, question, *turns], tools)
        except BadRow:
            return ""  # what it refuses, it cannot say

    @cached_property
    def added(self) -> Pattern[str]:
        """Matches any token that stands for itself."""
        tokens = self._tokenizer.added_tokens_decoder.values()
        return any_of(token.content for token in tokens if token.content.strip())

    @cached_property
    def stop(self) -> Pattern[str]:
        """Matches what may end a turn: the first token that stands for itself; it is group 1."""
        return re.compile(rf"\s*({self.added.pattern})")

    @cached_property
    def control_ids(self) -> dict[str, int]:
        """The tokens that steer the model, which nothing but the template may write; text -> id.

        Those are the special ones, and others that look like them (Qwen's `<think>` is not marked
        special).
        """
        source = str(self._tokenizer.chat_template or "")
        return {
            token.content: id_
            for id_, token in self._tokenizer.added_tokens_decoder.items()
            if is_control(token.content, token.special, source)
        }

    @cached_property
    def control(self) -> Pattern[str]:
        """Matches a control token."""
        return any_of(self.control_ids)

    @cached_property
    def guarded(self) -> Pattern[str]:
        """Matches what the template must not meet in the content of a row.

        Beside control tokens those are tags that it mentions: DeepSeek-R1's cuts an answer at
        </think>.
        """
        return any_of([*self.control_ids, *tags_in(str(self._tokenizer.chat_template or ""))])

    @cached_property
    def bos(self) -> str:
        """What the tokenizer itself puts before plain text: its BOS token, or ""."""
        bos = self._tokenizer.bos_token_id
        starts = self._tokenizer("a").input_ids[0] == bos
        return str(self._tokenizer.bos_token) if bos is not None and starts else ""

    @cached_property
    def any_eos(self) -> str:
        """The tokenizer's EOS token, or "" where it has none."""
        return str(self._tokenizer.eos_token or "")

    @property
    def eos(self) -> str:
        """The token that ends plain text.

        Raises:
            DataError: the tokenizer has none, so the model could not learn to stop.
        """
        if not self.any_eos:
            raise DataError("The model's tokenizer has no EOS token, so text could not end.")
        return self.any_eos

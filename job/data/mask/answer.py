"""A generated answer, told apart into the reasoning and what the user reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CHANNEL = re.compile(
    r"<\|channel\|>(\w+).*?<\|message\|>(.*?)(?=<\|(?:end|return|call|start)\|>|$)", re.DOTALL
)


def split_answer(
    text_or_ids: str | Sequence[int], tokenizer: PreTrainedTokenizerFast, mode: str
) -> dict[str, str]:
    """Separates the reasoning of an answer from its visible part.

    Args:
        text_or_ids: what was generated, without the prompt; text must still hold its control
            tokens.
        mode: `Renderer.mode` of the checkpoint. Templates that write `thinking` are Harmony's, with
            a channel for each part; all others use <think> tags.

    Returns:
        {"analysis", "final"}; "" for what is not there. An answer that was cut off while the model
        reasoned has no final part.
    """
    text = text_or_ids
    if not isinstance(text, str):
        text = str(tokenizer.decode(list(text), clean_up_tokenization_spaces=False))
    if mode == "template:thinking" and (found := _CHANNEL.findall(text)):
        parts: dict[str, list[str]] = {"analysis": [], "final": []}
        for channel, content in found:
            parts["final" if channel == "final" else "analysis"].append(content.strip())
        return {name: "\n\n".join(texts) for name, texts in parts.items()}
    before, closed, after = text.partition("</think>")
    if not closed:
        before, opened, thought = text.partition("<think>")
        after, before = before, thought if opened else ""
    thinking = before.strip().removeprefix("<think>")
    return {"analysis": _clean(thinking, tokenizer), "final": _clean(after, tokenizer)}


def _clean(text: str, tokenizer: PreTrainedTokenizerFast) -> str:
    for token in tokenizer.all_special_tokens:
        text = text.replace(token, "")
    return text.strip()

"""Independent references for what is trained: token indices found without marks.

There are two. Where TRL ships a training template, transformers computes the mask from the
generation marks in it. Elsewhere a slow oracle renders the conversation message by message. Both
get messages in the words of the template, and know nothing of job.data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.data import families

Messages = list[dict[str, Any]]

_PRINTED = {
    "strftime_now": lambda _: "2026-01-31",
    "date_string": "31 Jan 2026",
    "reasoning_effort": "medium",
}
"""What examples.options fixes."""


@dataclass(frozen=True)
class Difference:
    """What TRL marks and we do not train.

    Attributes:
        header: texts at the beginning of a marked run that the generation prompt prints, so that
            the model never says them.
        tail: texts after the stop token, where the model has long stopped.
    """

    header: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()


TRL = {
    "gptoss": Difference(header=("<|start|>assistant",)),
    "llama3": Difference(),
    "qwen2_5": Difference(header=("\n",), tail=("\n",)),
    "qwen3_instruct": Difference(tail=("\n",)),
    "gemma": Difference(tail=("\n",)),
    "gemma3": Difference(tail=("\n",)),
    "phi3": Difference(tail=("\n", "<|endoftext|>")),
    "lfm2": Difference(tail=("\n",)),
    "deepseek_r1": Difference(header=("<｜Assistant｜>", "<think>\n")),
    "cohere2": Difference(),
}
"""Families whose training template prints the same text as the one of the checkpoint."""


def trl(
    tokenizer: Any, family: str, messages: Messages, tools: Any = None
) -> tuple[list[int], list[int]]:
    """Token ids and the indices of the trained ones by TRL's marks, less the `Difference`."""
    name = f"{families.FAMILIES[family].template}_training"
    found = tokenizer.apply_chat_template(
        messages,
        tools=tools,
        chat_template=families.template(name),
        return_dict=True,
        return_assistant_tokens_mask=True,
        **_PRINTED,
    )
    ids, mask = found["input_ids"], found["assistant_masks"]
    trained = []
    for run in _runs([i for i, marked in enumerate(mask) if marked]):
        for text in TRL[family].header:
            if _begins(ids, run, own := _tokens(tokenizer, text)):
                run = run[len(own) :]
        for text in reversed(TRL[family].tail):
            if _begins(ids, run[-len(own := _tokens(tokenizer, text)) :], own):
                run = run[: -len(own)]
        trained += run
    return ids, trained


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _begins(ids: list[int], run: list[int], tokens: list[int]) -> bool:
    return [ids[i] for i in run[: len(tokens)]] == tokens


def _runs(indices: list[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for index in indices:
        if found and found[-1][-1] == index - 1:
            found[-1].append(index)
        else:
            found.append([index])
    return found


def incremental(
    tokenizer: Any, messages: Messages, stop: str, tools: Any = None
) -> tuple[list[int], list[int]]:
    """Token ids and trained indices of a conversation that is rendered again for every turn.

    A turn of the assistant begins where the prompt for it ends, and ends with the first stop token
    after that; so what is said must not hold one.
    """

    def render(given: Messages, **how: Any) -> str:
        return str(
            tokenizer.apply_chat_template(given, tools=tools, tokenize=False, **_PRINTED, **how)
        )

    text = render(messages)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = render(_history(messages, index), add_generation_prompt=True)
        if not text.startswith(prompt):  # it opens reasoning that a given answer may not have
            prompt = prompt.removesuffix("<think>\n")
        assert text.startswith(prompt)
        spans.append((len(prompt), text.index(stop, len(prompt)) + len(stop)))
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    trained = [
        i
        for i, (a, b) in enumerate(read.offset_mapping)
        if any(start <= a < b <= end for start, end in spans)
    ]
    return list(read.input_ids), trained


def _history(messages: Messages, index: int) -> Messages:
    """What comes before a turn, as the whole conversation shows it.

    Qwen's templates leave out reasoning that lies before the last question of what they get.
    """
    last = max(i for i, message in enumerate(messages) if message["role"] == "user")
    return [
        {k: v for k, v in message.items() if i > last or k != "reasoning_content"}
        for i, message in enumerate(messages[:index])
    ]

"""Prompts answered by a model: as the model's makers advise, and greedily for comparison."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from job.data.mask.answer import split_answer
from job.data.mask.render import Renderer, render_prompt
from job.data.mask.tokenizer import load_tokenizer
from job.data.request import encode_options
from job.languages import asked_language, reasoning_language
from job.spec import JobSpec

# "temperature 1.0, top_p 1.0, top_k 0": OpenAI's advice in the gpt-oss repository's README.
GPT_OSS_SAMPLING = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
GREEDY = {"do_sample": False}
PROMPTS_AT_ONCE = 8
SECONDS = 600.0  # for all answers of one model; what is not ended by then is cut


@dataclass(frozen=True)
class Question:
    """One prompt, to be answered in one way."""

    chat: list[dict[str, Any]]
    text: str  # rendered, up to where the model goes on
    effort: str | None  # of reasoning; None where the template knows none
    decoding: str  # "sampled" or "greedy"


class Sampler:
    """The spec's prompts, rendered once, and how to answer them.

    Args:
        folder: the base checkpoint; its tokenizer and chat template are used throughout, and its
            generation config says whether its makers advise to sample.
        template_date: the date that the chat template prints.
        efforts: of reasoning, that the trained rows ask for beside the spec's own.
    """

    def __init__(
        self, spec: JobSpec, folder: Path, template_date: str, efforts: Sequence[str] = ()
    ) -> None:
        self.spec = spec
        self.tokenizer = load_tokenizer(folder)
        options = encode_options(spec, template_date)
        self.mode = Renderer(self.tokenizer, options).mode
        self.texts = [render_prompt(chat, self.tokenizer, options) for chat in spec.prompts]
        self._advised = advised_sampling(folder)
        known = "reasoning_effort" in str(self.tokenizer.chat_template or "")
        asked = [spec.reasoning_effort, *efforts] if known else [None]
        self.questions = [
            Question(
                list(chat),
                render_prompt(
                    chat,
                    self.tokenizer,
                    replace(options, reasoning_effort=effort) if effort else options,
                ),
                effort,
                decoding,
            )
            for chat in spec.prompts
            for effort in dict.fromkeys(asked)
            for decoding in (["sampled", "greedy"] if self._advised else ["greedy"])
        ]

    def answers(self, model: Any) -> list[dict[str, Any]]:
        """One answer for each question, seeded, in `SECONDS` at most."""
        import torch

        found: list[dict[str, Any]] = [{}] * len(self.questions)
        ends, stops = time.monotonic() + SECONDS, self._stops(model)
        batches = self._batches()
        for done, batch in enumerate(batches):
            torch.manual_seed(self.spec.seed)
            sampled = self.questions[batch[0]].decoding == "sampled"
            left = (ends - time.monotonic()) / (len(batches) - done)
            how = {**(self._advised if sampled else GREEDY), "max_time": max(left, 1.0)}
            texts = [self.questions[i].text for i in batch]
            ids = self._generate_batch(model, texts, self.spec.sample_tokens, how)
            for i, one in zip(batch, ids, strict=True):
                found[i] = self._describe(one, stops, self.questions[i])
        return found

    def greedy(self, model: Any, tokens: int) -> list[list[int]]:
        """The most likely continuation of each prompt, at most `tokens` ids."""
        found: list[list[int]] = []
        for start in range(0, len(self.texts), PROMPTS_AT_ONCE):
            texts = self.texts[start : start + PROMPTS_AT_ONCE]
            found += self._generate_batch(model, texts, tokens, GREEDY)
        return found

    def samples(
        self, before: list[dict[str, Any]], after: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Prompts and answers side by side, for report and summary."""
        return [
            {"prompt": q.chat, "effort": q.effort, "decoding": q.decoding, "before": b, "after": a}
            for q, b, a in zip(self.questions, before, after, strict=True)
        ]

    def _batches(self) -> list[list[int]]:
        """The questions by number, a few at a time, each batch decoded in one way."""
        ways: dict[str, list[int]] = {}
        for number, question in enumerate(self.questions):
            ways.setdefault(question.decoding, []).append(number)
        return [
            numbers[start : start + PROMPTS_AT_ONCE]
            for numbers in ways.values()
            for start in range(0, len(numbers), PROMPTS_AT_ONCE)
        ]

    def _generate_batch(
        self, model: Any, texts: list[str], tokens: int, how: dict[str, Any]
    ) -> list[list[int]]:
        import torch

        self.tokenizer.padding_side = "left"
        batch = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        batch, stops = batch.to(model.device), self._stops(model)
        with torch.inference_mode():
            out = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=tokens,
                eos_token_id=stops,
                pad_token_id=self.tokenizer.pad_token_id,
                **how,
            )
        new = out[:, batch["input_ids"].shape[1] :].tolist()
        return [self._until_stop(ids, stops) for ids in new]

    def _stops(self, model: Any) -> list[int]:
        """The checkpoint's stop tokens: its generation config's and its tokenizer's."""
        configured = model.generation_config.eos_token_id
        stops = configured if isinstance(configured, list) else [configured]
        return sorted({i for i in [*stops, self.tokenizer.eos_token_id] if i is not None})

    @staticmethod
    def _until_stop(ids: list[int], stops: list[int]) -> list[int]:
        for position, token in enumerate(ids):
            if token in stops:
                return ids[: position + 1]
        return ids

    def _describe(self, ids: list[int], stops: list[int], question: Question) -> dict[str, Any]:
        """Texts, why it ended, length in tokens, and the reasoning's language.

        Where a language was asked for and there is no reasoning, it is not as asked.
        """
        text = self.tokenizer.decode(ids, skip_special_tokens=False)
        parts = split_answer(text, self.tokenizer, self.mode)
        asked = asked_language(question.chat)
        stop = "length" if len(ids) >= self.spec.sample_tokens else "time"
        return {
            "text": text,
            **parts,
            "stop": "stop" if ids and ids[-1] in stops else stop,
            "tokens": len(ids),
            "language": reasoning_language(parts["analysis"], asked),
        }


def advised_sampling(folder: Path) -> dict[str, Any]:
    """How the makers of a checkpoint advise to sample; empty when they advise nothing.

    Their advice is in generation_config.json, which `generate` reads by itself.
    """

    def read(name: str) -> dict[str, Any]:
        path = folder / name
        found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        return found

    if read("config.json").get("model_type") == "gpt_oss":
        return GPT_OSS_SAMPLING
    return {"do_sample": True} if read("generation_config.json").get("do_sample") else {}

"""Prompts answered by a model: as the model's makers advise, and greedily for comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from job.data.mask.answer import split_answer
from job.data.mask.render import Renderer, render_prompt
from job.data.mask.tokenizer import load_tokenizer
from job.data.request import encode_options
from job.spec import JobSpec

# "temperature 1.0, top_p 1.0, top_k 0": OpenAI's advice in the gpt-oss repository's README.
GPT_OSS_SAMPLING = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
PROMPTS_AT_ONCE = 8


class Sampler:
    """The spec's prompts, rendered once, and how to answer them.

    Args:
        folder: the base checkpoint; its tokenizer and chat template are used throughout.
        template_date: the date that the chat template prints.
    """

    def __init__(self, spec: JobSpec, folder: Path, template_date: str) -> None:
        self.spec = spec
        self.chats = [list(chat) for chat in spec.prompts]
        self.tokenizer = load_tokenizer(folder)
        options = encode_options(spec, template_date)
        self.mode = Renderer(self.tokenizer, options).mode
        self.texts = [render_prompt(chat, self.tokenizer, options) for chat in self.chats]

    def answers(self, model: Any) -> list[dict[str, Any]]:
        """One answer for each prompt, sampled as advised for this model, seeded."""
        import torch

        torch.manual_seed(self.spec.seed)
        advised = GPT_OSS_SAMPLING if model.config.model_type == "gpt_oss" else {}
        stops = self._stops(model)
        answers = self._generate(model, self.spec.sample_tokens, advised)
        return [self._describe(ids, stops) for ids in answers]

    def greedy(self, model: Any, tokens: int) -> list[list[int]]:
        """The most likely continuation of each prompt, at most `tokens` ids."""
        return self._generate(model, tokens, {"do_sample": False})

    def samples(
        self, before: list[dict[str, Any]], after: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Prompts and answers side by side, for report and summary."""
        return [
            {"prompt": chat, "before": b, "after": a}
            for chat, b, a in zip(self.chats, before, after, strict=True)
        ]

    def _generate(self, model: Any, tokens: int, how: dict[str, Any]) -> list[list[int]]:
        """New token ids for each prompt, up to and including a stop token; a few at a time."""
        found: list[list[int]] = []
        for start in range(0, len(self.texts), PROMPTS_AT_ONCE):
            texts = self.texts[start : start + PROMPTS_AT_ONCE]
            found += self._generate_batch(model, texts, tokens, how)
        return found

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

    def _describe(self, ids: list[int], stops: list[int]) -> dict[str, Any]:
        stopped = bool(ids) and ids[-1] in stops
        text = self.tokenizer.decode(ids, skip_special_tokens=False)
        parts = split_answer(text, self.tokenizer, self.mode)
        return {"text": text, **parts, "stop": "stop" if stopped else "length", "tokens": len(ids)}

"""A tiny random Llama that really trains, in a second and without Unsloth: the trainer's own code,
with the plain loss of transformers (TRL's is a Triton kernel, which needs a GPU)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models

from job.budget import Meter
from job.data.build import run_length
from job.pace import Pace
from job.spec import JobSpec, read_spec
from job.train import fit, watcher
from job.train.checkpoint import Keeper
from job.train.data import Rows

VOCABULARY = 64
RUN = {"spec_hash": "a" * 64}


class PlainLoss(trl.SFTTrainer):
    compute_loss = transformers.Trainer.compute_loss


class Listener:
    """Stands for the channel; `on` is called with each event's kind and fields."""

    def __init__(self, on: Any = None) -> None:
        self.events: list[dict[str, Any]] = []
        self._on = on

    def emit(self, kind: str, **fields: Any) -> None:
        self.events.append({"event": kind, **fields})
        if self._on:
            self._on(kind, fields)

    def losses(self) -> list[float]:
        return [event["loss"] for event in self.events if event["event"] == "step"]


def rows(count: int) -> list[dict[str, list[int]]]:
    """Rows of different lengths, each of its own."""
    dice = random.Random(1)  # noqa: S311
    found = []
    for _ in range(count):
        ids = [dice.randrange(2, VOCABULARY) for _ in range(dice.randrange(5, 20))]
        found.append({"input_ids": ids, "labels": list(ids)})
    return found


def ordered(job: JobSpec, held_out: int) -> Rows:
    """30 rows for the whole run, and others to evaluate on."""
    own = rows(30)
    steps, length = run_length(job, len(own))
    return Rows(
        train=Dataset.from_list([own[n % len(own)] for n in range(length)]),
        eval=Dataset.from_list(rows(held_out)) if held_out else None,
        steps=steps,
        rows_an_epoch=len(own),
        tokens=sum(len(own[n % len(own)]["input_ids"]) for n in range(length)),
    )


def spec(folder: Path, **keys: Any) -> JobSpec:
    given = {"model": "/m", "dataset": "/d", "output": "file:///out", "device": "cpu"}
    given |= {"work_dir": folder, "name": "run-a", "batch_size": 4, "learning_rate": 1e-2}
    given |= {"lora_dropout": 0.1, **keys}
    rate = {"learning_rate": given.pop("learning_rate")}  # also one that no spec may have
    job = read_spec({f"JOB_{key.upper()}": str(value) for key, value in given.items()})
    return job.model_copy(update=rate)


def make_trainer(job: JobSpec, micro_batch: int = 2, held_out: int = 3) -> Any:
    """The trainer of a fresh model, always the same for the same spec."""
    transformers.set_seed(job.seed)
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=VOCABULARY,
    )
    lora = LoraConfig(r=4, lora_dropout=job.lora_dropout, target_modules=["q_proj", "down_proj"])
    model = get_peft_model(transformers.LlamaForCausalLM(config), lora)
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w0"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="w0", eos_token="w1"
    )
    plan = {
        "micro_batch_size": micro_batch,
        "gradient_accumulation": job.batch_size // micro_batch,
        "optimizer": "adamw_torch",
        "gradient_checkpointing": False,
        "packing": False,
        "experts": None,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trl, "SFTTrainer", PlainLoss)
        return fit.make_trainer(job, plan, model, tokenizer, ordered(job, held_out))


def training(
    folder: Path,
    listener: Listener,
    *,
    resume: Path | None = None,
    micro_batch: int = 2,
    held_out: int = 3,
    meter: Meter | None = None,
    **keys: Any,
) -> dict[str, Any]:
    """From a fresh model to the result of `fit`, as the trainer process does it."""
    job = spec(folder, **keys)
    trainer = make_trainer(job, micro_batch, held_out)
    keeper = Keeper(folder / "checkpoints", RUN, job.checkpoint_minutes, listener)
    keeper.meter = meter
    rows = ordered(job, held_out)
    pace = Pace(rows.steps, rows.tokens)
    if resume:
        keeper.resume(resume)
    else:
        watcher.look_at(trainer, 0, listener, keeper, pace)
    if meter:
        meter.start()
    result = fit.fit(trainer, rows, listener, keeper, pace, resume)
    result["weights"] = {
        name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad
    }
    return result


def same_weights(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return all(torch.equal(one["weights"][name], two["weights"][name]) for name in one["weights"])

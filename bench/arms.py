"""The arms of `bench/train.py`: how each library loads the model and takes the rows."""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

GIB = 2**30
BATCH, LONGEST, SEED = 16, 4096, 3407
EVALUATED = 8  # rows of 4,096 tokens
READY = "READY for its turn"  # the line that an arm prints before it
ROWS = 512  # in the data set, whatever the steps: each arm draws the same ones in the same order
# Arm -> library, sequences per forward pass, whether batches are grouped by length.
ARMS = {
    "recipe": ("unsloth", 4, False),  # the usual notebook: 4 x 4, as Unsloth comes
    "unsloth-tuned": ("unsloth", 16, True),
    "trl-eager": ("eager", 2, False),
    "trl-flex": ("flex_attention", 8, True),
    # A dense model's batches without padding, by Unsloth's collator (gpt-oss it does not pack).
    "unsloth-packing": ("unsloth", 16, False),
    "packed": ("packed", 16, False),
    # As on a smaller card: what the plan does there, within its memory.
    "packed-48": ("packed", 16, False),
    "packed-24": ("packed", 16, False),
    "packed-14": ("packed", 16, False),
}
# Bytes that tensors may take, and the compute capability that the plan is told.
SMALLER = {
    "packed-48": (48 * GIB, (9, 0)),
    "packed-24": (24 * GIB, (9, 0)),
    "packed-14": (14 * 10**9, (8, 9)),  # a card of 16 GB, without grouped products
}


def lengths(mix: str, count: int) -> list[int]:
    """Tokens of each row: lognormal around 950 (`reference`) or 250 (`short`), or all alike."""
    import numpy as np

    if mix in ("1024", "4096"):
        return [int(mix)] * count
    middle = {"reference": 6.7, "short": 5.4}[mix]
    drawn = np.random.default_rng(SEED).lognormal(middle, 0.55, count)
    return [int(n) for n in drawn.clip(64, LONGEST)]


def rows(mix: str, count: int) -> list[dict[str, list[int]]]:
    """Random token ids, every token trained."""
    import numpy as np

    generator = np.random.default_rng(SEED)
    ids = [generator.integers(1000, 199_000, n).tolist() for n in lengths(mix, count)]
    return [{"input_ids": row, "labels": row} for row in ids]


def plan_for(arm: str, spec: Any, folder: Path) -> dict[str, Any]:
    """The job's own plan for this card, changed to what the arm is about."""
    import torch

    from job.memory import RESERVE
    from job.plan import make_plan
    from job.preflight import find_gpu

    config = json.loads((folder / "config.json").read_text())
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    gpu = find_gpu(os.environ)
    if arm in SMALLER:
        tensors, capability = SMALLER[arm]
        memory = int((tensors + RESERVE) / 0.95)  # the share that a plan uses
        gpu = replace(gpu, memory=memory, free=memory, capability=capability)
        torch.cuda.set_per_process_memory_fraction(
            (tensors + RESERVE) / torch.cuda.get_device_properties(0).total_memory
        )
    plan = make_plan(spec, config, size, gpu).values()
    library, micro, _ = ARMS[arm]
    if library != "packed":
        plan |= {"packing": False, "micro_batch_size": micro, "gradient_checkpointing": "unsloth"}
        plan |= {"experts": None}
        plan["gradient_accumulation"] = BATCH // micro
    return plan


def load_plain(folder: Path, attention: str) -> tuple[Any, Any]:
    """Model and tokenizer as the libraries' own documentation loads them, without Unsloth."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Mxfp4Config

    dense = "dense" in folder.name
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16,
        attn_implementation=attention,
        use_cache=False,
        device_map={"": 0},
        **({} if dense else {"quantization_config": Mxfp4Config(dequantize=True)}),
    )
    modules = ["q_proj", "k_proj", "v_proj", "o_proj"]
    config = LoraConfig(
        r=8,
        lora_alpha=16,
        target_modules=[*modules, "gate_proj", "up_proj", "down_proj"] if dense else modules,
        target_parameters=(
            None if dense else ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
        ),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config), AutoTokenizer.from_pretrained(folder)


def write_dense(folder: Path, layers: int) -> None:
    """A random checkpoint of Llama-3-8B's shape, bfloat16, with gpt-oss's stand-in tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from bench.gptoss import write_tokenizer

    config = LlamaConfig(
        hidden_size=4096, num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=14336, vocab_size=201_088, max_position_embeddings=8192,
        rope_theta=500_000.0, pad_token_id=199_999, eos_token_id=200_002, dtype="bfloat16",
    )  # fmt: skip
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        LlamaForCausalLM(config).save_pretrained(folder)
        torch.set_default_dtype(torch.float32)
    write_tokenizer(folder)


def equal_start(model: Any) -> None:
    """The same first factors in every arm: libraries draw them in different orders."""
    import torch

    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            bound = parameter.shape[1] ** -0.5  # as PEFT's kaiming_uniform_ with a = sqrt(5)
            drawn = torch.rand(parameter.shape, generator=generator) * 2 - 1
            parameter.data.copy_(bound * drawn)


def own_packing(trainer: Any, rows: Any, tokenizer: Any) -> Any:
    """A trainer with the same settings that packs as Unsloth does by itself."""
    from trl import SFTTrainer

    trainer.args.padding_free = True
    return SFTTrainer(
        model=trainer.model, args=trainer.args, train_dataset=rows.train, processing_class=tokenizer
    )


def longest_row(plan: dict[str, Any], drawn: list[int], steps: int) -> int:
    """Tokens of the longest packed row that these steps have."""
    from job.train.packed import split

    found = 0
    for step in range(steps):
        documents = drawn[step * BATCH : (step + 1) * BATCH]
        rows = split(documents, plan["packing"])
        found = max([found, *(sum(documents[i] for i in row) for row in rows)])
    return found


def evaluated(trainer: Any) -> tuple[float, float]:
    """Peak memory in GiB of an evaluation on rows of 4,096 tokens, and its loss."""
    import torch
    from datasets import Dataset

    trainer.eval_dataset = Dataset.from_list(rows("4096", EVALUATED))
    trainer.model.zero_grad()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    loss = float(trainer.evaluate()["eval_loss"])
    return round(torch.cuda.max_memory_allocated() / GIB, 1), loss


def run_arm(arm: str, folder: Path, mix: str, steps: int, longest: float) -> dict[str, Any]:
    """Train `steps` steps, in about `longest` seconds at most, and return what was measured."""
    library, _, grouped = ARMS[arm]
    started = time.monotonic()
    if library in ("unsloth", "packed"):
        from job.train.__main__ import import_unsloth

        import_unsloth(on_cpu=False)
    import torch
    from datasets import Dataset
    from transformers import set_seed

    from job.spec import read_spec
    from job.train import data, fit, load

    imported = time.monotonic()
    print(READY, flush=True)
    if not sys.stdin.readline():
        sys.exit("the bench has gone")
    begun = time.monotonic()
    spec = read_spec(
        {
            "JOB_MODEL": str(folder),
            "JOB_DATASET": "/unused.jsonl",
            "JOB_OUTPUT": "file:///unused",
            "JOB_WORK_DIR": str(folder.parent / f"work-{arm}"),
            "JOB_MAX_STEPS": str(steps),
        }
    )
    set_seed(spec.seed)
    plan = plan_for(arm, spec, folder)
    if library in ("unsloth", "packed"):
        model, tokenizer = load.load_model(spec, plan, folder)
    else:
        model, tokenizer = load_plain(folder, library)
    equal_start(model)
    loaded = time.monotonic()
    drawn = data.Rows(
        Dataset.from_list(rows(mix, ROWS)), None, steps, ROWS, sum(lengths(mix, ROWS))
    )
    if plan["packing"] and not plan["experts"]:
        from job.train.packed_library import PackedLibrary, autocast, packing_error

        packed = PackedLibrary(model, autocast(spec))
        print("packing error", packing_error(packed, drawn.train[0]["input_ids"]))
    trainer = fit.make_trainer(spec, plan, model, tokenizer, drawn)
    if arm == "unsloth-packing":
        trainer = own_packing(trainer, drawn, tokenizer)
    if grouped:
        trainer.args.train_sampling_strategy = "group_by_length"
    clock = _clock(longest)
    trainer.add_callback(clock)
    trainer.train()
    peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    ours = library in ("unsloth", "packed") and arm != "unsloth-packing"
    eval_gib, eval_loss = evaluated(trainer) if ours else (None, None)
    versions = {name: sys.modules[name].__version__ for name in ("torch", "triton", "transformers")}
    return {
        "arm": arm,
        "card": torch.cuda.get_device_name(),
        "plan": plan,
        "trainable": load.trainable_parameters(model),
        "import_s": round(imported - started, 1),
        "load_s": round(loaded - begun, 1),
        "longest_row": longest_row(plan, lengths(mix, ROWS), len(clock.seconds))
        if plan["packing"]
        else None,
        "peak_gib": round(peak / GIB, 2),
        "reserved_gib": round(reserved / GIB, 2),
        "eval_gib": eval_gib,
        "eval_loss": eval_loss,
        "seconds": [round(s, 3) for s in clock.seconds],
        "tokens": clock.tokens,
        "loss": clock.losses,
        "grad_norm": clock.norms,
        "versions": versions,
    }


def _clock(longest: float) -> Any:
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.tokens: list[int] = []
            self.losses: list[float] = []
            self.norms: list[float] = []

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = self.last = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            torch.cuda.synchronize()
            now = time.monotonic()
            self.seconds.append(now - self.last)
            self.tokens.append(int(state.num_input_tokens_seen) - sum(self.tokens))
            self.last = now
            control.should_training_stop |= now - self.began > longest

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                self.losses.append(round(float(logs["loss"]), 5))
                self.norms.append(round(float(logs["grad_norm"]), 5))

    return Clock()

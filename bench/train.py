"""Training speed on gpt-oss's shape: this project's packed path beside Unsloth's and TRL's own.

    python bench/train.py --folder /dev/shm/bench --arms recipe:4,packed,trl-flex,packed

Writes a random checkpoint once (MXFP4 layout, `bench/gptoss.py`), runs each arm in a process of its
own on the same rows from the same adapter, and prints a table, and below it how far losses and
gradient norms are from those of the first arm that took the same rows in each step. A step's time
runs from the end of the step before to its own, data and logging included; real tokens are those
that are not padding.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))  # also when started as a file

from job.child import child_environment  # noqa: E402

GIB = 2**30
BATCH, LONGEST, SEED = 16, 4096, 3407
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
    gpu = find_gpu()
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
        plan |= {"experts": False}
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


def run_arm(arm: str, folder: Path, mix: str, steps: int) -> dict[str, Any]:
    """Train `steps` steps and return what was measured."""
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
    drawn = data.Rows(Dataset.from_list(rows(mix, ROWS)), None, steps, ROWS)
    if plan["packing"] and not plan["experts"]:
        from job.train.packed_library import PackedLibrary, autocast, packing_error

        packed = PackedLibrary(model, autocast(spec))
        print("packing error", packing_error(packed, drawn.train[0]["input_ids"]))
    trainer = fit.make_trainer(spec, plan, model, tokenizer, drawn)
    if arm == "unsloth-packing":
        trainer = own_packing(trainer, drawn, tokenizer)
    if grouped:
        trainer.args.train_sampling_strategy = "group_by_length"
    clock = _clock()
    trainer.add_callback(clock)
    trainer.train()
    versions = {name: sys.modules[name].__version__ for name in ("torch", "triton", "transformers")}
    return {
        "arm": arm,
        "card": torch.cuda.get_device_name(),
        "plan": plan,
        "trainable": load.trainable_parameters(model),
        "import_s": round(imported - started, 1),
        "load_s": round(loaded - imported, 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 1),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 1),
        "seconds": [round(s, 3) for s in clock.seconds],
        "tokens": clock.tokens,
        "loss": clock.losses,
        "grad_norm": clock.norms,
        "versions": versions,
    }


def _clock() -> Any:
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.tokens: list[int] = []
            self.losses: list[float] = []
            self.norms: list[float] = []

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.last = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            torch.cuda.synchronize()
            now = time.monotonic()
            self.seconds.append(now - self.last)
            self.tokens.append(int(state.num_input_tokens_seen) - sum(self.tokens))
            self.last = now

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                self.losses.append(round(float(logs["loss"]), 5))
                self.norms.append(round(float(logs["grad_norm"]), 5))

    return Clock()


def line(row: dict[str, Any], warm: int) -> str:
    """One line of the table; the first `warm` steps are not counted."""
    if "error" in row:
        return f"| {row['arm']} | {row['error'][:150]} |"
    seconds, tokens = row["seconds"][warm:], row["tokens"][warm:]
    rates = sorted(t / s for t, s in zip(tokens, seconds, strict=True))
    return (
        f"| {row['arm']} | {sum(tokens) / sum(seconds):,.0f} | {statistics.median(rates):,.0f} "
        f"({rates[0]:,.0f} to {rates[-1]:,.0f}) | {statistics.median(seconds):.2f} "
        f"| {row['peak_gib']} | {row['seconds'][0]:.1f} | {row['load_s']} | {len(seconds)} |"
    )


def parity(rows: list[dict[str, Any]]) -> list[str]:
    """Each arm's largest distance from the first one's losses and gradient norms, relative."""
    lines = []
    first = next((row for row in rows if "error" not in row and not ARMS[row["arm"]][2]), None)
    for row in rows:
        if row is first or first is None or "error" in row or ARMS[row["arm"]][2]:
            continue
        worst = {
            what: max(abs(a / b - 1) for a, b in zip(row[what], first[what], strict=False))
            for what in ("loss", "grad_norm")
        }
        steps = min(len(row["loss"]), len(first["loss"]))
        lines.append(
            f"{row['arm']} against {first['arm']}, {steps} steps: losses within "
            f"{worst['loss']:.2%}, gradient norms within {worst['grad_norm']:.2%}"
        )
    return lines


def wait_for_memory() -> None:
    """The memory of a process that ended is free a moment later."""
    from job.preflight import find_gpu

    for _ in range(60):
        if find_gpu().free > 0.95 * find_gpu().memory:
            return
        time.sleep(0.5)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument(
        "--arms", default="recipe:6,packed,unsloth-tuned,trl-flex,packed", help="NAME[:STEPS],…"
    )
    parser.add_argument(
        "--mix", default="reference", choices=["reference", "short", "1024", "4096"]
    )
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--experts", type=int, default=32, help="0: Llama-3-8B's shape instead")
    parser.add_argument("--steps", default=12, type=int, help="of an arm that names none")
    parser.add_argument("--warm", type=int, default=4)
    parser.add_argument("--arm", help="run this one here and print its row")
    args = parser.parse_args()
    kind = f"gpt-oss-{args.experts}" if args.experts else "dense"
    model = args.folder / f"{kind}-{args.layers}"
    if args.arm:
        print("ROW " + json.dumps(run_arm(args.arm, model, args.mix, args.steps)))
        return 0
    if not model.exists() and not args.experts:
        write_dense(model, args.layers)
    if not model.exists():
        from bench.gptoss import Shape, write_checkpoint

        write_checkpoint(model, Shape(layers=args.layers, experts=args.experts), "mxfp4")
    environment = child_environment(os.environ, args.folder / "caches", on_cpu=False)
    found = []
    for number, item in enumerate(args.arms.split(",")):
        arm, _, steps = item.partition(":")
        wait_for_memory()
        command = [sys.executable, __file__, "--folder", str(args.folder), "--arm", arm]
        command += ["--steps", steps or str(args.steps), "--mix", args.mix]
        command += ["--layers", str(args.layers), "--experts", str(args.experts)]
        log = args.folder / f"{number}-{arm}.log"
        with log.open("w") as output:  # a run that is killed leaves its log
            subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        last = [text for text in log.read_text().splitlines() if text.startswith("ROW ")]
        row = json.loads(last[-1][4:]) if last else {"arm": arm, "error": f"see {log}"}
        print(json.dumps(row), flush=True)
        found.append(row)
    print("| arm | real tokens/s | median step (range) | s/step | peak GiB | first step s | load s "
          "| steps |\n| --- | --- | --- | --- | --- | --- | --- | --- |")  # fmt: skip
    print("\n".join(line(row, args.warm) for row in found))
    print("\n".join(parity(found)))
    return int(any("error" in row for row in found))


if __name__ == "__main__":
    sys.exit(main())

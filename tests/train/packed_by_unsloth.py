"""A process that imports Unsloth, packs rows of the small model, and prints the result as JSON.

python tests/train/packed_by_unsloth.py CHECKPOINT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from job.train.__main__ import import_unsloth

import_unsloth(on_cpu=True)

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402

from bench.gptoss import TINY, write_checkpoint  # noqa: E402
from job.data.mask.tokenizer import load_tokenizer  # noqa: E402
from job.spec import JobSpec, read_spec  # noqa: E402
from job.train import fit, load, load_mxfp4  # noqa: E402
from job.train.data import Rows  # noqa: E402
from job.train.packed import Packed, pack  # noqa: E402
from job.train.packed_library import PackedLibrary, autocast, packing_error  # noqa: E402

LENGTHS = [5, 33, 17, 9] * 3  # of the rows of three steps
PLAN = {"experts": None, "precision": "16bit", "gradient_checkpointing": False, "packing": False}
TEXT = "The river was quiet that day, and nobody knew why. The old man by the bridge said nothing."


class Leaking(PackedLibrary):
    """Packs as if a row were one document."""

    def loss(self, row: Packed, items: int) -> tuple[Any, None]:
        tokens = len(row.input_ids)
        whole = {"position_ids": torch.arange(tokens), "starts": torch.tensor([0, tokens])}
        return super().loss(Packed(**(vars(row) | whole)), items)


def documents(lengths: list[int]) -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(0, 40_000, (n,), generator=generator).tolist() for n in lengths]
    return [{"input_ids": ids, "labels": [-100] * (len(ids) // 3) + ids[len(ids) // 3 :]}
            for ids in drawn]  # fmt: skip


def gradients(model: Any) -> dict[str, Any]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return found


def trained(spec: JobSpec, folder: Path, limit: int | bool) -> list[float]:
    """Loss of each step of a training whose rows are packed, or padded one at a time."""
    plan = PLAN | {"packing": limit, "micro_batch_size": 4 if limit else 1}
    plan |= {"gradient_accumulation": 1 if limit else 4, "optimizer": "adamw_torch"}
    model, tokenizer = load.load_model(spec, plan, folder)
    rows = Rows(Dataset.from_list(documents(LENGTHS)), None, 3, 12, sum(LENGTHS))
    trainer = fit.make_trainer(spec, plan, model, tokenizer, rows)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def trained_in_mxfp4(spec: JobSpec, folder: Path, *, lean: bool) -> list[float]:
    """Loss of each step of a tiny gpt-oss whose experts stay in MXFP4."""
    plan = PLAN | {"packing": 40, "micro_batch_size": 4, "gradient_accumulation": 1}
    plan |= {"experts": "mxfp4", "expert_products": "loop", "optimizer": "adamw_torch"}
    model = load_mxfp4.load_model(spec, folder, "cpu", lean=lean)
    rows = Rows(Dataset.from_list(documents(LENGTHS)), None, 3, 12, sum(LENGTHS))
    trainer = fit.make_trainer(spec, plan, model, load_tokenizer(folder), rows)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main(folder: Path, gptoss: Path) -> dict[str, float]:
    keys = {"MODEL": str(folder), "DATASET": "/rows.jsonl", "OUTPUT": "file:///out"}
    keys |= {"DEVICE": "cpu", "BATCH_SIZE": "4", "MAX_STEPS": "3", "LEARNING_RATE": "1e-2"}
    spec = read_spec({f"JOB_{key}": value for key, value in keys.items()})
    padded, packed_losses = trained(spec, folder, limit=False), trained(spec, folder, limit=40)
    write_checkpoint(gptoss, TINY, "mxfp4")
    kept, lean = (trained_in_mxfp4(spec, gptoss, lean=lean) for lean in (False, True))
    model, tokenizer = load.load_model(spec, PLAN, folder)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.02)
    packed, docs = PackedLibrary(model, autocast(spec)), documents([5, 33, 17])
    row = pack(docs)
    together, _ = packed.loss(row, len(row.at))
    together.backward()
    found, alone = gradients(model), 0.0
    for doc in docs:
        loss, _ = packed.loss(pack([doc]), len(row.at))
        loss.backward()
        alone += float(loss.detach())
    wanted = gradients(model)
    ids = tokenizer(TEXT)["input_ids"]
    return {
        "steps": len(padded),
        "lean steps": len(lean),
        "lean": max(abs(a / b - 1) for a, b in zip(lean, kept, strict=True)),
        "falls": lean[-1] < lean[0],
        "training": max(abs(a / b - 1) for a, b in zip(packed_losses, padded, strict=True)),
        "loss": abs(float(together.detach()) / alone - 1),
        "gradient": max(float((found[n] - g).norm() / g.norm()) for n, g in wanted.items()),
        "error": packing_error(packed, ids),
        "error when documents see each other": packing_error(Leaking(model, autocast(spec)), ids),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))  # noqa: T201

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

from job.spec import read_spec  # noqa: E402
from job.train import load  # noqa: E402
from job.train.packed import Packed, pack  # noqa: E402
from job.train.packed_library import PackedLibrary, autocast, packing_error  # noqa: E402

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


def main(folder: Path) -> dict[str, float]:
    keys = {"MODEL": str(folder), "DATASET": "/rows.jsonl", "OUTPUT": "file:///out"}
    spec = read_spec({f"JOB_{key}": value for key, value in (keys | {"DEVICE": "cpu"}).items()})
    plan = {"experts": False, "precision": "16bit", "gradient_checkpointing": False}
    model, tokenizer = load.load_model(spec, plan, folder)
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
        "loss": abs(float(together.detach()) / alone - 1),
        "gradient": max(float((found[n] - g).norm() / g.norm()) for n, g in wanted.items()),
        "error": packing_error(packed, ids),
        "error when documents see each other": packing_error(Leaking(model, autocast(spec)), ids),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))  # noqa: T201

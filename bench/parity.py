"""Each token's loss and all gradients of a deep model: packed and transformers, against float32.

    python bench/parity.py --folder /dev/shm/bench --layers 12

One set of random weights that bfloat16 holds exactly, a fresh adapter. In float32, where rounding
is small, packed and transformers must agree. In bfloat16 each is compared with transformers'
float32: rounding alone carries a random mixture model far, since its routing is nearly undecided,
so the question is whether one way is further off than the other. Half of gpt-oss-20b's layers fit
in float32 on a card of 80 GB.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))  # also when started as a file

from bench.arms import BATCH, equal_start, load_plain, rows  # noqa: E402

STEPS = 2  # as many documents as so many optimizer steps have
DIFFERENTIATED, SHORT = 8, 512  # documents for the gradients, and their tokens at most
TRUTH = "float32: transformers, a loop over experts"
Documents = list[dict[str, list[int]]]
Way = Callable[[Documents], list[Any]]  # the losses of each document's tokens but the first


def transformers(model: Any, experts: str) -> Way:
    """One document at a time, as in the HF Trainer; experts by a `loop` or `grouped` products."""
    import torch

    how = {"loop": "eager", "grouped": "grouped_mm"}[experts]
    short = next(p for p in model.parameters() if not p.requires_grad).dtype == torch.bfloat16

    def compute(documents: Documents) -> list[Any]:
        model.get_base_model().set_experts_implementation(how)
        found = []
        for document in documents:
            ids = torch.tensor([document["input_ids"]], device=model.device)
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=short):
                logits = model(input_ids=ids, use_cache=False).logits
            losses = torch.nn.functional.cross_entropy(
                logits[0, :-1].float(), ids[0, 1:], reduction="none"
            )
            if torch.is_grad_enabled():
                losses.sum().backward()
            found.append(losses.detach().cpu())
        return found

    return compute


def packed(model: Any, together: int, *, grouped: bool) -> Way:
    """By the packed path, so many documents in a row."""
    import torch

    from job.train.gptoss import PackedGptOss
    from job.train.packed import pack

    engine = PackedGptOss(model, grouped=grouped)

    def compute(documents: Documents) -> list[Any]:
        found = []
        for i in range(0, len(documents), together):
            some = documents[i : i + together]
            loss, losses = engine.loss(pack(some), items=1)
            if torch.is_grad_enabled():
                loss.backward()
            found += losses.detach().cpu().split([len(d["input_ids"]) - 1 for d in some])
        return found

    return compute


def losses(way: Way, documents: Documents) -> list[Any]:
    """What it computes without gradients."""
    import torch

    with torch.no_grad():
        return way(documents)


def gradients(model: Any, way: Way, documents: Documents) -> Any:
    """All gradients of the adapter in one vector, float32."""
    import torch

    model.zero_grad()
    way(documents)
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([p.grad.float().flatten() for p in trained])


def line(name: str, found: tuple[list[Any], Any], wanted: tuple[list[Any], Any]) -> str:
    """One line of the table: how far losses and gradients are from the wanted ones."""
    import torch

    level = float(torch.cat(wanted[0]).mean())
    off = [float((a - b).mean()) / level for a, b in zip(found[0], wanted[0], strict=True)]
    error = statistics.stdev(off) / len(off) ** 0.5
    apart = float((torch.cat(found[0]) - torch.cat(wanted[0])).square().mean().sqrt()) / level
    ours, theirs = found[1], wanted[1]
    return (
        f"| {name} | {statistics.mean(off):+.4%} ± {error:.4%} | {apart:.2e} "
        f"| {float((ours - theirs).norm() / theirs.norm()):.2e} "
        f"| {float(ours.norm() / theirs.norm()):.4f} |"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=12)
    args = parser.parse_args()
    import torch

    from bench.gptoss import Shape, write_checkpoint

    folder = args.folder / f"gpt-oss-32-{args.layers}"
    if not folder.exists():
        write_checkpoint(folder, Shape(layers=args.layers), "mxfp4")
        torch.cuda.empty_cache()
    model, _ = load_plain(folder, "eager")
    model.float()
    equal_start(model)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.train()  # checkpointing needs it; nothing drops out
    documents = rows("reference", STEPS * BATCH)
    some = [{k: v[:SHORT] for k, v in d.items()} for d in documents[:DIFFERENTIATED]]

    def both(way: Way) -> tuple[list[Any], Any]:
        return losses(way, documents), gradients(model, way, some)

    found = {
        TRUTH: both(transformers(model, "loop")),
        "float32: packed": both(packed(model, 1, grouped=False)),
    }
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    found |= {
        "transformers, a loop over experts": both(transformers(model, "loop")),
        "transformers, grouped products": both(transformers(model, "grouped")),
        "packed, a loop over experts": both(packed(model, BATCH, grouped=False)),
        "packed, grouped products": both(packed(model, BATCH, grouped=True)),
        "packed, grouped, each alone in a row": both(packed(model, 1, grouped=True)),
    }
    truth = found.pop(TRUTH)
    heads = f"against {TRUTH}", "mean loss", "a token's loss, root mean square"
    heads += "gradients, relative error", "their norm"
    print("|", " | ".join(heads), "|\n|", " --- |" * len(heads))
    for name, each in found.items():
        print(line(name, each, truth))
    grouped = found["packed, grouped products"]
    for name in ("packed, grouped, each alone in a row", "transformers, a loop over experts"):
        print(line(f"{name}, against packed, grouped products", found[name], grouped))


if __name__ == "__main__":
    main()

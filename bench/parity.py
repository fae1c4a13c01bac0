"""Each token's loss and all gradients over the full depth: packed beside transformers' eager.

    python bench/parity.py --folder /dev/shm/bench

One model in bfloat16, one set of weights, a fresh adapter, two ways to compute. Each way is
compared with itself too, the same documents in other company: padded (transformers), or alone in a
row (packed). That is how far rounding alone carries a random mixture model, whose routing is nearly
undecided; a way of computing that is wrong is further off than that, or off to one side.
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

STEPS = 3  # as many documents as so many optimizer steps have
PADDING = 64  # tokens
DIFFERENTIATED, SHORT = 8, 512  # documents for the gradients, and their tokens at most
Documents = list[dict[str, list[int]]]


def eager(model: Any, documents: Documents, padding: int) -> list[Any]:
    """The losses of each document's tokens but the first, one document at a time, padded."""
    import torch

    found = []
    for document in documents:
        ids = torch.tensor([document["input_ids"] + [0] * padding], device=model.device)
        mask = torch.ones_like(ids)
        mask[:, ids.shape[1] - padding :] = 0
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        length = len(document["input_ids"])
        losses = torch.nn.functional.cross_entropy(
            logits[0, : length - 1].float(), ids[0, 1:length], reduction="none"
        )
        if torch.is_grad_enabled():
            losses.sum().backward()
        found.append(losses.detach().cpu())
    return found


def packed(model: Any, documents: Documents, together: int) -> list[Any]:
    """The same by the packed path, so many documents in a row."""
    import torch

    from job.train.gptoss import PackedGptOss
    from job.train.packed import pack

    engine, found = PackedGptOss(model, grouped=True), []
    for i in range(0, len(documents), together):
        some = documents[i : i + together]
        loss, losses = engine.loss(pack(some), items=1)
        if torch.is_grad_enabled():
            loss.backward()
        found += losses.detach().cpu().split([len(d["input_ids"]) - 1 for d in some])
    return found


def gradients(model: Any, compute: Callable[[], Any]) -> Any:
    """All gradients of the adapter in one vector, float32."""
    import torch

    model.zero_grad()
    compute()
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([p.grad.float().flatten() for p in trained])


def about_losses(name: str, ours: list[Any], theirs: list[Any]) -> str:
    """One line of the table: how far the first losses are from the second ones."""
    import torch

    level = float(torch.cat(theirs).mean())
    off = [float((a - b).mean()) / level for a, b in zip(ours, theirs, strict=True)]
    error = statistics.stdev(off) / len(off) ** 0.5
    steps = [sum(off[i : i + BATCH]) / BATCH for i in range(0, len(off), BATCH)]
    apart = float((torch.cat(ours) - torch.cat(theirs)).square().mean().sqrt()) / level
    return (
        f"| {name} | {statistics.mean(off):+.4%} ± {error:.4%} "
        f"| {', '.join(f'{step:+.3%}' for step in steps)} | {apart:.2%} |"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="holds gpt-oss-32-24")
    parser.add_argument("--model", default="gpt-oss-32-24")
    args = parser.parse_args()
    import torch

    model, _ = load_plain(args.folder / args.model, "eager")
    equal_start(model)
    documents = rows("reference", STEPS * BATCH)
    with torch.no_grad():
        theirs, again = (eager(model, documents, padding) for padding in (0, PADDING))
        ours, alone = (packed(model, documents, together) for together in (BATCH, 1))
    print("| losses of each token | mean of documents | of each step | root mean square |")
    print("| --- | --- | --- | --- |")
    print(about_losses("packed against eager", ours, theirs))
    print(about_losses("packed, alone in a row, against eager", alone, theirs))
    print(about_losses("packed, alone in a row, against packed", alone, ours))
    print(about_losses("eager, padded, against eager", again, theirs), flush=True)

    model.train()
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    some = [{k: v[:SHORT] for k, v in d.items()} for d in documents[:DIFFERENTIATED]]
    found = {
        "eager": gradients(model, lambda: eager(model, some, 0)),
        "eager, padded": gradients(model, lambda: eager(model, some, PADDING)),
        "packed": gradients(model, lambda: packed(model, some, DIFFERENTIATED)),
        "packed, alone in a row": gradients(model, lambda: packed(model, some, 1)),
    }
    print("\n| gradients | relative error | norms |\n| --- | --- | --- |")
    for ours_, theirs_ in (
        ("packed", "eager"),
        ("packed, alone in a row", "eager"),
        ("packed, alone in a row", "packed"),
        ("eager, padded", "eager"),
    ):
        a, b = found[ours_], found[theirs_]
        error = float((a - b).norm() / b.norm())
        ratio = float(a.norm() / b.norm())
        print(f"| {ours_} against {theirs_} | {error:.4f} | {ratio:.4f} |")


if __name__ == "__main__":
    main()

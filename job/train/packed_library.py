"""Packed rows through a model's own forward pass, as Unsloth patched it; and whether it is right.

Unsloth 2026.10.7 takes the lengths of a row's documents and keeps them apart in attention, by
flash attention, xformers or one product a document (unsloth/utils/packing.py). Which models are
right is not for us to believe: each is tried before it is trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch

from job.data.mask.encode import IGNORED
from job.spec import JobSpec
from job.train.packed import Packed, pack

TRIED = 256  # tokens of a document with which packing is tried
TOLERANCE = 0.01  # relative, of its loss; bfloat16 makes a few thousandths of it


def autocast(spec: JobSpec) -> Callable[[], AbstractContextManager[Any]]:
    """What the HF Trainer runs a forward pass in: 16 bits on a GPU, as they are on a CPU."""
    if spec.device == "cpu":
        return contextlib.nullcontext
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return partial(torch.autocast, "cuda", dtype=torch.bfloat16 if bf16 else torch.float16)


class PackedLibrary:
    """Computes losses of packed rows for any model that Unsloth can pack.

    Args:
        context: what the forward pass runs in (`autocast`).
    """

    def __init__(self, model: Any, context: Callable[[], AbstractContextManager[Any]]) -> None:
        from unsloth.utils import packing

        packing.mark_allow_overlength(model)
        packing._enable_hf_packed_attention()  # for models that run transformers' own layers
        self.model, self.context = model, context

    def loss(self, row: Packed, items: int) -> tuple[Any, None]:
        """Summed loss of a row over the trained tokens of the whole optimizer step."""
        device = self.model.device
        labels = torch.full_like(row.input_ids, IGNORED)
        labels[row.at + 1] = row.target
        with self.context():
            found = self.model(
                input_ids=row.input_ids[None].to(device),
                position_ids=row.position_ids[None].to(device),
                labels=labels[None].to(device),
                packed_seq_lengths=row.starts.diff(),
                num_items_in_batch=torch.tensor(items, device=device),
                use_cache=False,
            )
        return found.loss, None


def packing_error(packed: PackedLibrary, tokens: list[int]) -> float:
    """How far a document's loss is from its own when another lies before it in the row, relative.

    The other is the same document: a model that sees it can copy, and its loss falls. The step is
    said to have twice as many trained tokens then, which halves the loss. 4 is returned for a model
    that takes no packed row at all. Gradients are thrown away.
    """
    document = {"input_ids": tokens[:TRIED], "labels": tokens[:TRIED]}
    silent = {**document, "labels": [IGNORED] * len(document["labels"])}
    alone, second = pack([document]), pack([silent, document])
    try:
        own, _ = packed.loss(alone, len(alone.at))
        beside, _ = packed.loss(second, 2 * len(second.at))
        beside.backward()
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return 4.0
    finally:
        packed.model.zero_grad()
    return abs(2 * float(beside.detach()) / float(own.detach()) - 1)

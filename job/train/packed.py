"""Packing: the sequences of one optimizer step in as few rows as memory allows, no padding.

A row holds whole documents one after the other; positions restart with each, and attention keeps
to its document. The step's loss is the sum over its trained tokens divided by their number,
whatever the rows, so packing changes speed and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from job.data.mask.encode import IGNORED


@dataclass(frozen=True)
class Packed:
    """One row of T tokens, on the host."""

    input_ids: Any  # (T,) int64
    position_ids: Any  # (T,) int64, from 0 in each document
    starts: Any  # (documents + 1,) int32
    longest: int  # tokens of the longest document
    at: Any  # (M,) int64, positions whose next token is trained
    target: Any  # (M,) int64, those next tokens


@dataclass(frozen=True)
class Step:
    """An optimizer step."""

    rows: list[Packed]
    items: int  # trained tokens
    tokens: int


def split(lengths: list[int], limit: int) -> list[list[int]]:
    """Documents, by index, in as few rows of at most `limit` tokens as a greedy choice finds.

    Longest first, each into the emptiest row, so that rows are alike. Where a document is longer
    than the limit, each gets a row of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for count in range(-(-sum(lengths) // limit), len(lengths)):
        rows: list[list[int]] = [[] for _ in range(count)]
        sizes = [0] * count
        for i in order:
            emptiest = sizes.index(min(sizes))
            rows[emptiest].append(i)
            sizes[emptiest] += lengths[i]
        if max(sizes) <= limit:
            return [sorted(row) for row in rows]
    return [[i] for i in order]


def pack(documents: list[dict[str, Any]]) -> Packed:
    """Put documents (`input_ids` and `labels`) into one row, in the order given."""
    tokens = [np.asarray(d["input_ids"], dtype=np.int64) for d in documents]
    labels = [np.array(d["labels"], dtype=np.int64) for d in documents]
    for label in labels:
        label[0] = IGNORED  # nothing in the document predicts its first token
    trained = np.concatenate(labels)
    at = np.flatnonzero(trained != IGNORED)
    lengths = [len(t) for t in tokens]
    return Packed(
        torch.from_numpy(np.concatenate(tokens)),
        torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])),
        torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32)),
        max(lengths),
        torch.from_numpy(at - 1),
        torch.from_numpy(trained[at]),
    )


def pack_step(documents: list[dict[str, Any]], limit: int) -> Step:
    """All documents of an optimizer step, in rows of at most `limit` tokens."""
    lengths = [len(d["input_ids"]) for d in documents]
    rows = [pack([documents[i] for i in row]) for row in split(lengths, limit)]
    return Step(rows, sum(len(row.at) for row in rows), sum(lengths))


def packed_trainer(limit: int, engine: Callable[[Any], Any], pad: Any, **options: Any) -> Any:
    """An SFTTrainer whose steps run packed: its loop, its optimizer, its schedule.

    Args:
        limit: tokens of a row.
        engine: makes of the model what computes a row's `loss` and perhaps `document_scores`
            (`job.train.gptoss`, `job.train.packed_library`).
        pad: the collator of evaluations that the engine leaves to the trainer.
        options: what SFTTrainer takes.
    """
    from job.train.evaluate import by_row

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        """A mapping without labels, so that nobody else counts or moves anything."""
        return {"step": pack_step(rows, limit)}

    class PackedTrainer(by_row()):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(data_collator=collate, **options)
            self.packed = engine(self.model)

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            step, total = inputs["step"], 0.0
            model.train()
            for row in step.rows:
                loss, _ = self.packed.loss(row, step.items)
                self.accelerator.backward(loss)
                total = total + loss.detach()
            self.state.num_input_tokens_seen += step.tokens
            return total

        def evaluate(self) -> dict[str, float]:
            """Mean loss of the held-out rows, each weighing the same, and token accuracy."""
            if not hasattr(self.packed, "document_scores"):
                self.data_collator = pad
                try:
                    return dict(super().evaluate())
                finally:
                    self.data_collator = collate
            scores: list[tuple[float, int, int]] = []
            rows = list(self.eval_dataset)
            for part in split([len(row["input_ids"]) for row in rows], limit):
                scores += self.packed.document_scores(pack([rows[i] for i in part]))
            means, right, trained = zip(*scores, strict=True)
            return {
                "eval_loss": math.fsum(means) / len(means),
                "eval_accuracy": sum(right) / sum(trained),
            }

    return PackedTrainer()

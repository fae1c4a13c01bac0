"""How well held-out rows are predicted: mean loss and, where it costs no memory, token accuracy.

Packed training computes both from a few thousand tokens' logits at a time (job.train.head). All
other models are evaluated by the HF Trainer, a row at a time; Unsloth computes their loss without
giving the logits away, so there is no accuracy.
"""

from __future__ import annotations

import math
from typing import Any

from job.channel import Channel
from job.errors import Diverged

PARTS = 4  # a long training is evaluated at each quarter
MOST_ROWS = 1 / 8  # of the rows that are trained: with more, evaluating would take too much time


def steps_between(steps: int, rows: int, held_out: int) -> set[int]:
    """The optimizer steps after which held-out rows are looked at, first and last not counted.

    Args:
        steps: of the whole training.
        rows: that it trains on.
        held_out: rows of an evaluation, which costs about a third of training on them.
    """
    if steps < 2 * PARTS or not 0 < held_out <= MOST_ROWS * rows:
        return set()
    return {steps * part // PARTS for part in range(1, PARTS)}


def evaluate(trainer: Any, step: int, channel: Channel) -> dict[str, Any] | None:
    """Evaluate after `step`, and tell; None without held-out rows.

    Returns:
        "step", "loss" (mean over the rows, each weighing the same, nats per token) and, where it
        is known, "accuracy" (share of all trained tokens that are the likeliest next one).

    Raises:
        Diverged: the loss is not finite.
    """
    import torch

    if trainer.eval_dataset is None:
        return None
    # A data loader draws a seed; training must not notice that it was looked at.
    with torch.random.fork_rng(devices=[]):
        found = trainer.evaluate()
    loss = float(found["eval_loss"])
    if not math.isfinite(loss):
        raise Diverged(f"The loss on the held-out rows is {loss} at step {step}.")
    point = {"step": step, "loss": loss}
    if "eval_accuracy" in found:
        point["accuracy"] = float(found["eval_accuracy"])
    channel.emit("eval", **point)
    return point


def summary(evals: list[dict[str, Any]]) -> dict[str, Any]:
    """First, last and best of the evaluations, as the totals of a training hold them."""
    if not evals:
        return {"eval_loss_before": None, "eval_loss_after": None}
    best = min(evals, key=lambda point: float(point["loss"]))
    return {
        "eval_loss_before": evals[0]["loss"],
        "eval_loss_after": evals[-1]["loss"],
        "eval_accuracy_before": evals[0].get("accuracy"),
        "eval_accuracy_after": evals[-1].get("accuracy"),
        "best_step": best["step"],
        "evals": evals,
    }

"""How well held-out rows are predicted: mean loss and token accuracy.

Packed gpt-oss computes both from a few thousand tokens' logits at a time (job.train.gptoss). All
other models are evaluated by the HF Trainer, a row at a time. Unsloth computes their loss without
giving the logits away, so the likeliest tokens are found beside it, from the same pass.
"""

from __future__ import annotations

import math
from typing import Any

from job.channel import Channel
from job.data.mask.encode import IGNORED
from job.errors import Diverged

PARTS = 4  # a long training is evaluated at each quarter
MOST_ROWS = 1 / 8  # of the rows that are trained: with more, evaluating would take too much time


def by_row() -> Any:
    """The SFTTrainer, made to count in an evaluation how many trained tokens are right."""
    from trl import SFTTrainer

    class RowTrainer(SFTTrainer):  # type: ignore[misc]
        def evaluate(self) -> dict[str, float]:
            """Mean loss of the held-out rows, each weighing the same, and token accuracy."""
            self.right = self.trained = 0
            found = super().evaluate()
            return {
                "eval_loss": found["eval_loss"],
                "eval_accuracy": self.right / self.trained,
            }

        def prediction_step(self, model: Any, inputs: Any, *args: Any, **named: Any) -> Any:
            causal, caught = self.model.get_base_model(), []
            hook = causal.base_model.register_forward_hook(lambda _, __, out: caught.append(out[0]))
            try:
                result = super().prediction_step(model, inputs, *args, **named)
            finally:
                hook.remove()
            right, trained = hits(causal, caught[0], inputs["labels"])
            self.right, self.trained = self.right + right, self.trained + trained
            return result

    return RowTrainer


def hits(causal: Any, hidden: Any, labels: Any) -> tuple[int, int]:
    """Trained tokens that are the likeliest next one, and all trained tokens.

    Logits exist of a few thousand tokens at a time. What a model does to them after its head (a
    soft cap, a scale) leaves their order as it is.

    Args:
        causal: the model whose output matrix is applied.
        hidden: (B, T, H), what its last layer gave, after the norm.
        labels: (B, T), `IGNORED` where nothing is trained.
    """
    import torch

    from job.train.head import CHUNK

    head = causal.get_output_embeddings()
    labels = labels[:, 1:].to(hidden.device)
    at = labels != IGNORED
    picked, target, right = hidden[:, :-1][at], labels[at], 0
    with torch.no_grad():
        for i in range(0, len(target), CHUNK):
            logits = head(picked[i : i + CHUNK].to(head.weight.dtype))
            right += int((logits.argmax(-1) == target[i : i + CHUNK]).sum())
            del logits
    return right, len(target)


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
        "step", "loss" (mean over the rows, each weighing the same, nats per token) and "accuracy"
        (share of all trained tokens that are the likeliest next one).

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
    point = {"step": step, "loss": loss, "accuracy": float(found["eval_accuracy"])}
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

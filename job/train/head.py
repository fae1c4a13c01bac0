"""The language model's loss: only where a token is predicted and trained, a few thousand at a time.

Logits of 4,096 tokens of gpt-oss's vocabulary take 1.6 GB. Their gradient is computed with them, in
their place, so that no more ever exists.
"""

from __future__ import annotations

from typing import Any

import torch

from job.train import glue

CHUNK = 4096  # tokens whose logits exist at once
LEAN_CHUNK = 256  # where memory is short: 103 MB for gpt-oss


class HeadLoss(torch.autograd.Function):
    """Sum of the losses at `at`, times `scale`.

    Args:
        x: (T, H), the last layer's output before the norm.
        at: (M,) positions whose next token is trained; target: (M,) those tokens.
        norm, eps, head: the final norm's weight (H,) and epsilon, and the output matrix (V, H).
        scale: one over the trained tokens of the whole optimizer step.
        chunk: tokens whose logits exist at once.

    Returns:
        A float32 scalar.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Any, at: Any, target: Any, norm: Any, eps: float, head: Any, scale: float,
        chunk: int,
    ) -> Any:  # fmt: skip
        picked = x[at]
        normed = glue.rms_norm(picked, norm, eps)
        dnormed, losses = torch.empty_like(normed), []
        for i in range(0, len(at), chunk):
            logits = normed[i : i + chunk] @ head.T
            losses.append(glue.cross_entropy(logits, target[i : i + chunk], scale))
            torch.mm(logits, head, out=dnormed[i : i + chunk])
            del logits
        dx = glue.rms_norm_backward(dnormed, picked, norm, eps, torch.zeros_like(picked))
        ctx.save_for_backward(torch.zeros_like(x).index_copy_(0, at, dx))
        losses = torch.cat(losses)
        ctx.mark_non_differentiable(losses)
        return losses.sum() * scale, losses

    @staticmethod
    def backward(ctx: Any, dloss: Any, _: Any) -> tuple[Any, ...]:
        (dx,) = ctx.saved_tensors
        return (dx * dloss.to(dx.dtype), *[None] * 7)


def head_scores(
    x: Any, at: Any, target: Any, norm: Any, eps: float, head: Any, chunk: int
) -> tuple[Any, Any]:
    """What `HeadLoss` finds at each trained place, without a gradient.

    Returns:
        The losses (M,) float32, and whether the likeliest token is the right one, (M,) bool.
    """
    normed = glue.rms_norm(x[at], norm, eps)
    losses, right = [], []
    for i in range(0, len(at), chunk):
        logits, wanted = normed[i : i + chunk] @ head.T, target[i : i + chunk]
        right.append(logits.argmax(-1) == wanted)
        losses.append(glue.cross_entropy(logits, wanted, 1.0))
        del logits
    return torch.cat(losses), torch.cat(right)

"""What lies between the matrix products of gpt-oss, forward and backward, as plain formulas.

On the CPU the formulas run; on a GPU `job.train.kernels` computes the same in Triton, in one pass
each. Shapes: T tokens of one packed row, N = T x top-k rows sorted by expert, H hidden, I inner,
E experts, r rank of the experts' adapter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

ALPHA, LIMIT = 1.702, 7.0  # gpt-oss's gate (transformers, GptOssExperts._apply_gate)


class Route(NamedTuple):
    """Which expert sees which token, as index tensors on the device: nothing waits for the host."""

    weights: Any  # (T, k) float32, the router's softmax over the chosen experts
    experts: Any  # (T, k) int64, chosen experts
    inverse: Any  # (T, k) int32, row of each token's k-th choice
    token: Any  # (N,) int32, token of each row
    expert: Any  # (N,) int64, expert of each row, ascending
    weight: Any  # (N,) float32, router weight of each row
    ends: Any  # (E,) int32, where each expert's rows end


def rms_norm(x: Any, weight: Any, eps: float) -> Any:
    """weight * x / rms(x) over the last dimension, (T, H)."""
    if x.is_cuda:
        from job.train import kernels

        return kernels.rms_norm(x, weight, eps)
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (weight.float() * wide).to(x.dtype)


def rms_norm_backward(dy: Any, x: Any, weight: Any, eps: float, residual: Any) -> Any:
    """Gradient of `rms_norm` to x, plus `residual`, (T, H)."""
    if x.is_cuda:
        from job.train import kernels

        return kernels.rms_norm_backward(dy, x, weight, eps, residual)
    wide, d = x.float(), weight.float() * dy.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    unit = wide * scale
    d = scale * (d - unit * (d * unit).mean(-1, keepdim=True))
    return (d + residual.float()).to(x.dtype)


def combine(rows: Any, inverse: Any, weights: Any | None, first: Any, second: Any = None) -> Any:
    """first (+ second) + sum over k of (weights x) rows[inverse]: (N, H) back to (T, H)."""
    if rows.is_cuda:
        from job.train import kernels

        return kernels.combine(rows, inverse, weights, first, second)
    picked = rows[inverse.long()].float()
    total = (picked if weights is None else picked * weights[..., None]).sum(1) + first.float()
    return (total if second is None else total + second.float()).to(first.dtype)


def rotate(x: Any, cos: Any, sin: Any, sign: float = 1.0) -> None:
    """Turn (T, heads, dim) in place by the angles of cos and sin, (T, dim / 2); -1 turns back."""
    if x.is_cuda:
        from job.train import kernels

        return kernels.rotate(x, cos, sin, sign)
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos[:, None], sign * sin[:, None]
    x.copy_(torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1))
    return None


def add_sink(out: Any, lse: Any, sinks: Any) -> Any:
    """Give each head's sink its share of the softmax: out (T, heads, dim), in place.

    Attention over the keys and one more of value 0 is attention over the keys, times the keys'
    share of the probability, sigmoid(lse - sink).

    Args:
        lse: log-sum-exp of the keys' scores, (heads, T) float32.

    Returns:
        The log-sum-exp with the sink.
    """
    if out.is_cuda:
        from job.train import kernels

        return kernels.add_sink(out, lse, sinks)
    sink = sinks.float()[:, None]
    out *= torch.sigmoid(lse - sink).T[..., None].to(out.dtype)
    return torch.logaddexp(lse, sink.expand_as(lse))


def _inner(gu: Any, xa: Any, route: Any, bias: Any, b1: Any) -> tuple[Any, ...]:
    """Gate and up with bias and adapter, before and after their clamps, and the gate's sigmoid."""
    experts, rank, _ = b1.shape
    rows = xa.view(-1, experts, rank)[route.token.long(), route.expert]
    lora = (rows.float()[:, None] @ b1[route.expert].float())[:, 0]
    both = gu.float() + bias[route.expert].float() + lora
    g0, u0 = both[:, ::2], both[:, 1::2]
    g, u = g0.clamp(max=LIMIT), u0.clamp(-LIMIT, LIMIT)
    return g0, u0, g, u, torch.sigmoid(ALPHA * g)


def gate(gu: Any, xa: Any, route: Route, bias: Any, b1: Any) -> Any:
    """gpt-oss's gated unit on the experts' first product: (N, 2I) to (N, I).

    Args:
        gu: base product, gate and up interleaved.
        xa: every expert's first adapter factor on every token, (T, E r).
        bias: (E, 2I).
        b1: second adapter factor with its scale, (E, r, 2I).
    """
    if gu.is_cuda:
        from job.train import kernels

        return kernels.gate(gu, xa, route, bias, b1)
    _, _, g, u, s = _inner(gu, xa, route, bias, b1)
    return ((u + 1) * g * s).to(gu.dtype)


def gate_backward(
    gu: Any, xa: Any, route: Route, bias: Any, b1: Any, dh: Any, da: Any, a2: Any
) -> tuple[Any, Any, Any]:
    """Gradients through `gate` and the down product's adapter and router weight.

    Args:
        gu, xa, route, bias, b1: as given to `gate`.
        dh: base part of the gradient to h, before the router weight, (N, I).
        da: gradient to the down adapter's hidden values, before the router weight, (T, E r).
        a2: first factor of the down adapter, (E, r, I).

    Returns:
        h again (N, I), dgu (N, 2I), and the gradient to each row's router weight without the down
        bias's part, (N,) float32.
    """
    if gu.is_cuda:
        from job.train import kernels

        return kernels.gate_backward(gu, xa, route, bias, b1, dh, da, a2)
    g0, u0, g, u, s = _inner(gu, xa, route, bias, b1)
    experts, rank, _ = b1.shape
    token = route.token.long()
    h = (u + 1) * g * s
    rows = da.view(-1, experts, rank)[token, route.expert]
    d = dh.float() + (rows.float()[:, None] @ a2[route.expert].float())[:, 0]
    dweight = (h * d).sum(1)
    d = d * route.weight[:, None]
    dg = torch.where(g0 <= LIMIT, d * (u + 1) * s * (1 + ALPHA * g * (1 - s)), 0.0)
    du = torch.where(u0.abs() <= LIMIT, d * g * s, 0.0)
    dgu = torch.stack((dg, du), -1).flatten(1).to(gu.dtype)
    return h.to(gu.dtype), dgu, dweight


def cross_entropy(logits: Any, target: Any, scale: float) -> Any:
    """Loss of each row, (n,) float32; `logits` (n, vocab) becomes scale x its own gradient."""
    if logits.is_cuda:
        from job.train import kernels

        return kernels.cross_entropy(logits, target, scale)
    log = torch.log_softmax(logits.float(), -1)
    row = torch.arange(len(target))
    gradient = log.exp()
    gradient[row, target] -= 1.0
    logits.copy_(gradient * scale)
    return -log[row, target]

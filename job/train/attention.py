"""gpt-oss's attention block with LoRA over a packed row: documents do not see each other.

On a GPU the variable-length flash attention that PyTorch brings; it knows no attention sinks, and
they are added exactly. With a sink, each head's softmax has one more key, of value 0. So the output
is flash attention's times sigmoid(lse - sink); and its backward pass, given that output and
logaddexp(lse, sink) in place of its own, yields the exact gradients to q, k and v.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from job.train import glue


class Documents(NamedTuple):
    """Where a packed row's documents lie, and the rotary angles of their positions."""

    starts: Any  # (documents + 1,) int32, on the device: where each begins, and the row's end
    longest: int  # tokens
    cos: Any  # (T, head_dim / 2)
    sin: Any


@dataclass(frozen=True)
class Linear:
    """A frozen linear layer, and the scale of the adapter on it."""

    weight: Any  # (out, in)
    bias: Any  # (out,) or None
    scaling: float


@dataclass(frozen=True)
class AttentionWeights:
    """The frozen tensors of one layer's attention, as transformers' GptOssAttention holds them."""

    norm: Any  # (H,)
    eps: float
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    sinks: Any  # (heads,)
    head_dim: int
    window: int | None  # tokens seen, the own one included; None for all


def project(x: Any, layer: Linear, a: Any | None, b: Any | None) -> tuple[Any, Any]:
    """x W^T + bias + scaling x A^T B^T, and x A^T for the backward pass (None without adapter)."""
    y = x @ layer.weight.T if layer.bias is None else torch.addmm(layer.bias, x, layer.weight.T)
    if a is None or b is None:
        return y, None
    hidden = x @ a.T
    return y.addmm_(hidden, b.T, alpha=layer.scaling), hidden


def project_backward(
    dy: Any, x: Any, hidden: Any, layer: Linear, factors: Any, dtype: Any, dx: Any = None
) -> tuple[Any, Any, Any]:
    """Gradients to x (added to `dx` where there is one), and to A and B in `dtype`."""
    a, b = factors
    dx = dy @ layer.weight if dx is None else dx.addmm_(dy, layer.weight)
    if a is None or b is None:
        return dx, None, None
    back = (dy @ b) * layer.scaling
    dx.addmm_(back, a)
    return dx, (back.T @ x).to(dtype), (dy.T @ hidden).to(dtype) * layer.scaling


class AttentionBlock(torch.autograd.Function):
    """x + attention(norm(x)) for x (T, H). Keeps x, q, k, v, the output and its log-sum-exp.

    `adapters` are A (r, in) and B (out, r) of q, k, v and o in turn, each or None.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, docs: Documents, w: AttentionWeights, *adapters: Any) -> Any:
        ctx.dtype = next((a.dtype for a in adapters if a is not None), None)
        cast = [None if a is None else a.to(x.dtype) for a in adapters]
        aq, bq, ak, bk, av, bv, ao, bo = cast
        normed = glue.rms_norm(x, w.norm, w.eps)
        q, hq = project(normed, w.q, aq, bq)
        k, hk = project(normed, w.k, ak, bk)
        v, hv = project(normed, w.v, av, bv)
        q, k, v = (t.view(len(x), -1, w.head_dim) for t in (q, k, v))
        glue.rotate(q, docs.cos, docs.sin)
        glue.rotate(k, docs.cos, docs.sin)
        out, lse, state = attend(q, k, v, docs, w.window)
        lse = glue.add_sink(out, lse, w.sinks)
        y, ho = project(out.flatten(1), w.o, ao, bo)
        ctx.save_for_backward(x, q, k, v, out, lse, hq, hk, hv, ho, *cast)
        ctx.docs, ctx.w, ctx.state = docs, w, state
        return y.add_(x)

    @staticmethod
    def backward(ctx: Any, dout: Any) -> tuple[Any, ...]:
        x, q, k, v, out, lse, hq, hk, hv, ho, *cast = ctx.saved_tensors
        fq, fk, fv, fo = zip(cast[::2], cast[1::2], strict=True)
        docs, w, dtype = ctx.docs, ctx.w, ctx.dtype
        do, gao, gbo = project_backward(dout, out.flatten(1), ho, w.o, fo, dtype)
        do = do.view_as(out)
        dq, dk, dv = attend_backward(do, q, k, v, out, lse, docs, w.window, ctx.state)
        glue.rotate(dq, docs.cos, docs.sin, -1.0)
        glue.rotate(dk, docs.cos, docs.sin, -1.0)
        normed = glue.rms_norm(x, w.norm, w.eps)
        dx, gaq, gbq = project_backward(dq.flatten(1), normed, hq, w.q, fq, dtype)
        dx, gak, gbk = project_backward(dk.flatten(1), normed, hk, w.k, fk, dtype, dx)
        dx, gav, gbv = project_backward(dv.flatten(1), normed, hv, w.v, fv, dtype, dx)
        dx = glue.rms_norm_backward(dx, x, w.norm, w.eps, dout)
        return dx, None, None, gaq, gbq, gak, gbk, gav, gbv, gao, gbo


def attend(q: Any, k: Any, v: Any, docs: Documents, window: int | None) -> tuple[Any, Any, Any]:
    """Causal attention within each document, without sinks.

    Args:
        q: (T, heads, dim); k and v: (T, kv heads, dim).

    Returns:
        The output (T, heads, dim), the log-sum-exp of the scaled scores (heads, T) float32, and
        what the backward pass needs besides.
    """
    if not _flash(q):
        return *_attend_plainly(q, k, v, docs, window), None
    out, lse, *state = torch.ops.aten._flash_attention_forward(
        q, k, v, docs.starts, docs.starts, docs.longest, docs.longest, 0.0, True, False,
        **_window(window),
    )[:4]  # fmt: skip
    return out, lse, state


def attend_backward(
    do: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, docs: Documents, window: Any, state: Any
) -> tuple[Any, Any, Any]:
    """Gradients to q, k and v of `attend` followed by `glue.add_sink`, whose results are given."""
    if not _flash(q):
        return _attend_plainly_backward(do, q, k, v, out, lse, docs, window)
    longest = docs.longest
    dq, dk, dv = torch.ops.aten._flash_attention_backward(
        do, q, k, v, out, lse, docs.starts, docs.starts, longest, longest, 0.0, True, *state,
        **_window(window),
    )  # fmt: skip
    return dq, dk, dv


def _flash(q: Any) -> bool:
    return bool(q.is_cuda) and q.dtype in (torch.bfloat16, torch.float16)


def _window(window: int | None) -> dict[str, int]:
    """Flash attention counts the tokens to the left of the own one."""
    return {} if window is None else {"window_size_left": window - 1, "window_size_right": 0}


def _scores(q: Any, k: Any, window: int | None) -> Any:
    """Scaled scores of one document, (heads, n, n) float32, -inf where nothing is seen."""
    n, heads, dim = q.shape
    k = k.repeat_interleave(heads // k.shape[1], dim=1)
    scores = torch.einsum("ihd,jhd->hij", q.float(), k.float()) * dim**-0.5
    seen = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()
    if window is not None:
        seen &= ~seen.tril(-window)
    return scores.masked_fill(~seen, float("-inf"))


def _attend_plainly(q: Any, k: Any, v: Any, docs: Documents, window: int | None) -> tuple[Any, Any]:
    out, lse = torch.empty_like(q), q.new_empty(q.shape[1], len(q)).float()
    bounds = docs.starts.tolist()
    for i, j in pairwise(bounds):
        scores = _scores(q[i:j], k[i:j], window)
        lse[:, i:j] = scores.logsumexp(-1)
        wide = v[i:j].repeat_interleave(q.shape[1] // v.shape[1], dim=1).float()
        out[i:j] = torch.einsum("hij,jhd->ihd", scores.softmax(-1), wide).to(q.dtype)
    return out, lse


def _attend_plainly_backward(
    do: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, docs: Documents, window: int | None
) -> tuple[Any, Any, Any]:
    """The formulas of flash attention's backward pass, a document at a time."""
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    bounds, (_, heads, dim) = docs.starts.tolist(), q.shape
    groups = heads // k.shape[1]
    for i, j in pairwise(bounds):
        wide_k = k[i:j].repeat_interleave(groups, dim=1).float()
        wide_v = v[i:j].repeat_interleave(groups, dim=1).float()
        d = do[i:j].float()
        p = (_scores(q[i:j], k[i:j], window) - lse[:, i:j, None]).exp()
        dp = torch.einsum("ihd,jhd->hij", d, wide_v)
        ds = p * (dp - (d * out[i:j].float()).sum(-1).T[..., None]) * dim**-0.5
        dq[i:j] = torch.einsum("hij,jhd->ihd", ds, wide_k).to(q.dtype)
        for target, whole in (
            (dk, torch.einsum("hij,ihd->jhd", ds, q[i:j].float())),
            (dv, torch.einsum("hij,ihd->jhd", p, d)),
        ):
            target[i:j] = whole.view(j - i, -1, groups, dim).sum(2).to(q.dtype)
    return dq, dk, dv


def probe() -> float:
    """Flash attention with sinks on this GPU against the plain formula in float32.

    Documents of many lengths, with a window and without, forward and backward.

    Returns:
        The largest relative error of a result; NaN where a value is not finite. 0.003 is what
        bfloat16 makes (docs/performance.md).
    """
    lengths = torch.tensor([0, 1, 5, 130, 300])
    docs = Documents(lengths.cumsum(0).to("cuda", torch.int32), 300, None, None)
    tokens, generator = int(lengths.sum()), torch.Generator("cuda").manual_seed(0)

    def random(*shape: int) -> Any:
        return torch.randn(*shape, device="cuda", generator=generator).bfloat16()

    q, k, v, do = (random(tokens, heads, 64) for heads in (64, 8, 8, 64))
    sinks, errors = random(64), []
    for window in (None, 128):
        found = []
        for t in (torch.bfloat16, torch.float32):
            out, lse, state = attend(q.to(t), k.to(t), v.to(t), docs, window)
            lse = glue.add_sink(out, lse, sinks)
            back = attend_backward(
                do.to(t), q.to(t), k.to(t), v.to(t), out, lse, docs, window, state
            )
            found.append((out, lse, *back))
        for fast, exact in zip(*found, strict=True):
            errors.append((fast.float() - exact).norm() / exact.norm())
    return float(torch.stack(errors).amax())

"""Triton kernels for what lies between the matrix products; `job.train.glue` has the formulas.

Memory-bound work: each kernel reads its inputs once and writes its outputs once. Everything is
summed in float32 and rounded once. Rows of the expert products are sorted by expert, so a tile
meets one expert's bias and adapter; `ends` (experts,) says on the GPU where each one's rows end.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

ALPHA, LIMIT = tl.constexpr(1.702), tl.constexpr(7.0)  # gpt-oss's gate (GptOssExperts._apply_gate)
ROWS, COLUMNS, WARPS = 32, 128, 8  # of a tile of the gate; columns counted after it


@triton.jit
def _norm(x, weight, y, hidden, eps, block: tl.constexpr):
    row, c = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    keep = c < hidden
    v = tl.load(x + row * hidden + c, keep, 0.0).to(tl.float32)
    w = tl.load(weight + c, keep, 0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(v * v) / hidden + eps)
    tl.store(y + row * hidden + c, w * (v * scale), keep)


@triton.jit
def _norm_backward(dy, x, weight, residual, dx, hidden, eps, block: tl.constexpr):
    row, c = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    keep = c < hidden
    v = tl.load(x + row * hidden + c, keep, 0.0).to(tl.float32)
    w = tl.load(weight + c, keep, 0.0).to(tl.float32)
    g = w * tl.load(dy + row * hidden + c, keep, 0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(v * v) / hidden + eps)
    unit = v * scale
    d = scale * (g - unit * (tl.sum(g * unit) / hidden))
    d += tl.load(residual + row * hidden + c, keep, 0.0).to(tl.float32)
    tl.store(dx + row * hidden + c, d, keep)


@triton.jit
def _combine(rows, inverse, weights, first, second, out, hidden, top: tl.constexpr,
             weighted: tl.constexpr, two: tl.constexpr, block: tl.constexpr):  # fmt: skip
    token, c = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    keep = c < hidden
    total = tl.load(first + token * hidden + c, keep, 0.0).to(tl.float32)
    if two:
        total += tl.load(second + token * hidden + c, keep, 0.0).to(tl.float32)
    for k in tl.static_range(top):
        row = tl.load(inverse + token * top + k).to(tl.int64)
        v = tl.load(rows + row * hidden + c, keep, 0.0).to(tl.float32)
        if weighted:
            v *= tl.load(weights + token * top + k).to(tl.float32)
        total += v
    tl.store(out + token * hidden + c, total, keep)


@triton.jit
def _rotate(x, cos, sin, heads, sign, half: tl.constexpr):
    token, head = tl.program_id(0).to(tl.int64), tl.arange(0, 64)
    c = tl.arange(0, half)
    keep = (head < heads)[:, None]
    at = x + token * heads * 2 * half + head[:, None] * 2 * half + c[None, :]
    a = tl.load(at, keep, 0.0).to(tl.float32)
    b = tl.load(at + half, keep, 0.0).to(tl.float32)
    co = tl.load(cos + token * half + c).to(tl.float32)[None, :]
    si = sign * tl.load(sin + token * half + c).to(tl.float32)[None, :]
    tl.store(at, a * co - b * si, keep)
    tl.store(at + half, b * co + a * si, keep)


@triton.jit
def _sink(out, lse, sinks, new_lse, tokens, heads: tl.constexpr, dim: tl.constexpr):
    token, head, c = tl.program_id(0).to(tl.int64), tl.arange(0, heads), tl.arange(0, dim)
    old = tl.load(lse + head * tokens + token)
    sink = tl.load(sinks + head).to(tl.float32)
    share = tl.sigmoid(old - sink)  # of the probability, to the real keys
    top = tl.maximum(old, sink)
    new = top + tl.log(tl.exp(old - top) + tl.exp(sink - top))
    tl.store(new_lse + head * tokens + token, new)  # not in place: warps share `old`
    at = out + (token * heads + head[:, None]) * dim + c[None, :]
    tl.store(at, tl.load(at).to(tl.float32) * share[:, None])


@triton.jit
def _tile(ends, experts: tl.constexpr, padded: tl.constexpr, size: tl.constexpr):
    """Expert, first row and end of this program's tile; expert = `padded` beyond the last tile."""
    pid, e = tl.program_id(0), tl.arange(0, padded)
    end = tl.load(ends + e, e < experts, 0)
    start = tl.load(ends + e - 1, (e > 0) & (e < experts), 0)
    tiles = (end - start + size - 1) // size
    tiles = tl.where(e < experts, tiles, 0)
    expert = tl.sum((tl.cumsum(tiles, 0) <= pid).to(tl.int32))
    before = tl.sum(tl.where(e < expert, tiles, 0))
    first = tl.sum(tl.where(e == expert, start, 0)) + (pid - before) * size
    return expert, first, tl.sum(tl.where(e == expert, end, 0))


@triton.jit
def _pair(pointer, offset, mask, packed: tl.constexpr):
    """Gate and up, which lie side by side, as float32; two bfloat16 are read as one word."""
    if packed:
        both = tl.load(pointer.to(tl.pointer_type(tl.int32)) + offset, mask, 0)
        first = (both << 16).to(tl.float32, bitcast=True)
        second = (both & -65536).to(tl.float32, bitcast=True)
    else:
        first = tl.load(pointer + 2 * offset, mask, 0.0).to(tl.float32)
        second = tl.load(pointer + 2 * offset + 1, mask, 0.0).to(tl.float32)
    return first, second


@triton.jit
def _store_pair(pointer, offset, first, second, mask, packed: tl.constexpr):
    if packed:
        low = first.to(tl.bfloat16).to(tl.int16, bitcast=True).to(tl.int32) & 65535
        high = second.to(tl.bfloat16).to(tl.int16, bitcast=True).to(tl.int32) << 16
        tl.store(pointer.to(tl.pointer_type(tl.int32)) + offset, low | high, mask)
    else:
        tl.store(pointer + 2 * offset, first, mask)
        tl.store(pointer + 2 * offset + 1, second, mask)


@triton.jit
def _gate_and_up(gu, xa, tok, bias, b1, expert, near, start, live, c, inside, inner,
                 experts: tl.constexpr, rank: tl.constexpr, packed: tl.constexpr):  # fmt: skip
    """A tile's gate and up, with bias and adapter."""
    mask = live[:, None] & inside[None, :]
    g, u = _pair(gu + start * 2 * inner, near[:, None] * inner + c[None, :], mask, packed)
    bg, bu = _pair(bias + expert * 2 * inner, c, inside, packed)
    g, u = g + bg[None, :], u + bu[None, :]
    for k in tl.range(0, rank, loop_unroll_factor=8):
        a = tl.load(xa + tok * experts * rank + expert * rank + k, live, 0.0).to(tl.float32)
        bg, bu = _pair(b1 + (expert * rank + k) * 2 * inner, c, inside, packed)
        g, u = g + a[:, None] * bg[None, :], u + a[:, None] * bu[None, :]
    return g, u


@triton.jit
def _gate(gu, xa, token, ends, bias, b1, h, inner,
          experts: tl.constexpr, padded: tl.constexpr, rank: tl.constexpr,
          packed: tl.constexpr, bm: tl.constexpr, bn: tl.constexpr):  # fmt: skip
    expert, first, end = _tile(ends, experts, padded, bm)
    if expert >= experts:
        return
    near, c = tl.arange(0, bm), tl.program_id(1) * bn + tl.arange(0, bn)
    live, inside, start = first + near < end, c < inner, first.to(tl.int64)
    tok = tl.load(token + first + near, live, 0)
    g, u = _gate_and_up(gu, xa, tok, bias, b1, expert, near, start, live, c, inside, inner,
                        experts, rank, packed)  # fmt: skip
    g, u = tl.minimum(g, LIMIT), tl.minimum(tl.maximum(u, -LIMIT), LIMIT)
    at = h + start * inner + (near[:, None] * inner + c[None, :])
    tl.store(at, (u + 1.0) * g * tl.sigmoid(ALPHA * g), live[:, None] & inside[None, :])


@triton.jit
def _gate_backward(gu, xa, token, ends, bias, b1, dh, da, a2, weight, h, dgu, dweight, inner,
                   experts: tl.constexpr, padded: tl.constexpr, rank: tl.constexpr,
                   packed: tl.constexpr, bm: tl.constexpr, bn: tl.constexpr):  # fmt: skip
    expert, first, end = _tile(ends, experts, padded, bm)
    if expert >= experts:
        return
    part, near = tl.program_id(1), tl.arange(0, bm)
    c, row = part * bn + tl.arange(0, bn), first + near
    live, inside, start = row < end, c < inner, first.to(tl.int64)
    mask = live[:, None] & inside[None, :]
    tok = tl.load(token + row, live, 0)
    g0, u0 = _gate_and_up(gu, xa, tok, bias, b1, expert, near, start, live, c, inside, inner,
                          experts, rank, packed)  # fmt: skip
    g, u = tl.minimum(g0, LIMIT), tl.minimum(tl.maximum(u0, -LIMIT), LIMIT)
    s = tl.sigmoid(ALPHA * g)
    at = start * inner + (near[:, None] * inner + c[None, :])
    d = tl.load(dh + at, mask, 0.0).to(tl.float32)
    for k in tl.range(0, rank, loop_unroll_factor=8):
        a = tl.load(da + tok * experts * rank + expert * rank + k, live, 0.0).to(tl.float32)
        b = tl.load(a2 + (expert * rank + k) * inner + c, inside, 0.0).to(tl.float32)
        d += a[:, None] * b[None, :]
    hidden = (u + 1.0) * g * s
    tl.store(h + at, hidden, mask)
    total = tl.sum(tl.where(mask, hidden * d, 0.0), 1)
    tl.store(dweight + row * tl.num_programs(1) + part, total, live)
    d *= tl.load(weight + row, live, 0.0)[:, None]
    dg = tl.where(g0 <= LIMIT, d * (u + 1.0) * s * (1.0 + ALPHA * g * (1.0 - s)), 0.0)
    du = tl.where((u0 <= LIMIT) & (u0 >= -LIMIT), d * g * s, 0.0)
    _store_pair(dgu + start * 2 * inner, near[:, None] * inner + c[None, :], dg, du, mask, packed)


@triton.jit
def _cross_entropy(logits, target, loss, scale, vocab: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = logits + row * vocab
    right = tl.load(target + row)
    picked = tl.load(at + right).to(tl.float32)
    top = tl.full([block], float("-inf"), tl.float32)
    total = tl.zeros([block], tl.float32)
    for j in range(0, vocab, block):
        c = j + tl.arange(0, block)
        v = tl.load(at + c, c < vocab, float("-inf")).to(tl.float32)
        new = tl.maximum(top, v)
        safe = tl.where(new == float("-inf"), 0.0, new)
        total = total * tl.exp(top - safe) + tl.exp(v - safe)
        top = new
    peak = tl.max(top)
    norm = peak + tl.log(tl.sum(total * tl.exp(top - peak)))
    tl.store(loss + row, norm - picked)
    for j in range(0, vocab, block):
        c = j + tl.arange(0, block)
        v = tl.load(at + c, c < vocab, float("-inf")).to(tl.float32)
        p = tl.exp(v - norm) - tl.where(c == right, 1.0, 0.0)
        tl.store(at + c, p * scale, c < vocab)


def _width(hidden: int) -> dict[str, int]:
    return {"block": triton.next_power_of_2(hidden), "num_warps": 8}


def rms_norm(x: Any, weight: Any, eps: float) -> Any:
    """See `job.train.glue`."""
    y = torch.empty_like(x)
    _norm[(x.shape[0],)](x, weight, y, x.shape[1], eps, **_width(x.shape[1]))
    return y


def rms_norm_backward(dy: Any, x: Any, weight: Any, eps: float, residual: Any) -> Any:
    """See `job.train.glue`."""
    dx = torch.empty_like(x)
    grid = (x.shape[0],)
    _norm_backward[grid](dy, x, weight, residual, dx, x.shape[1], eps, **_width(x.shape[1]))
    return dx


def combine(rows: Any, inverse: Any, weights: Any, first: Any, second: Any) -> Any:
    """See `job.train.glue`."""
    out = torch.empty_like(first)
    tokens, hidden = first.shape
    _combine[(tokens,)](
        rows, inverse, inverse if weights is None else weights, first,
        first if second is None else second, out, hidden, top=inverse.shape[1],
        weighted=weights is not None, two=second is not None, **_width(hidden),
    )  # fmt: skip
    return out


def rotate(x: Any, cos: Any, sin: Any, sign: float) -> None:
    """See `job.train.glue`."""
    tokens, heads, dim = x.shape
    _rotate[(tokens,)](x, cos, sin, heads, sign, half=dim // 2)


def add_sink(out: Any, lse: Any, sinks: Any) -> Any:
    """See `job.train.glue`."""
    tokens, heads, dim = out.shape
    new = torch.empty_like(lse)
    _sink[(tokens,)](out, lse, sinks, new, tokens, heads=heads, dim=dim)
    return new


def _tiles(gu: Any, ends: Any, rank: int) -> tuple[int, dict[str, int]]:
    """How many tiles of rows there can be, and the sizes that a kernel is compiled for."""
    experts = ends.shape[0]
    sizes = {"experts": experts, "padded": triton.next_power_of_2(experts), "rank": rank}
    sizes |= {"packed": gu.dtype == torch.bfloat16, "bm": ROWS, "bn": COLUMNS, "num_warps": WARPS}
    return triton.cdiv(gu.shape[0], ROWS) + experts, sizes


def gate(gu: Any, xa: Any, route: Any, bias: Any, b1: Any) -> Any:
    """See `job.train.glue`."""
    rows, inner = gu.shape[0], gu.shape[1] // 2
    h = gu.new_empty(rows, inner)
    tiles, sizes = _tiles(gu, route.ends, b1.shape[1])
    grid = (tiles, triton.cdiv(inner, COLUMNS))
    _gate[grid](gu, xa, route.token, route.ends, bias, b1, h, inner, **sizes)
    return h


def gate_backward(
    gu: Any, xa: Any, route: Any, bias: Any, b1: Any, dh: Any, da: Any, a2: Any
) -> tuple[Any, Any, Any]:
    """See `job.train.glue`."""
    rows, inner = gu.shape[0], gu.shape[1] // 2
    h, dgu = gu.new_empty(rows, inner), torch.empty_like(gu)
    columns = triton.cdiv(inner, COLUMNS)
    dweight = gu.new_empty(rows, columns, dtype=torch.float32)
    tiles, sizes = _tiles(gu, route.ends, b1.shape[1])
    _gate_backward[(tiles, columns)](
        gu, xa, route.token, route.ends, bias, b1, dh, da, a2, route.weight, h, dgu, dweight, inner,
        **sizes,
    )  # fmt: skip
    return h, dgu, dweight.sum(1)


def cross_entropy(logits: Any, target: Any, scale: float) -> Any:
    """See `job.train.glue`."""
    loss = logits.new_empty(logits.shape[0], dtype=torch.float32)
    _cross_entropy[(logits.shape[0],)](
        logits, target, loss, scale, vocab=logits.shape[1], block=4096, num_warps=8
    )
    return loss

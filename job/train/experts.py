"""gpt-oss's expert block with LoRA: forward and backward written out, for speed and exactness.

The frozen weights need one grouped product forward and one to the activations, and no weight
gradient. The adapters' products are dense: all experts' first factors meet every token in one plain
product of width E r, and what a row does not use is left out or zero. That costs a few percent more
arithmetic, and neither ranks nor empty experts can reach a faulty grouped kernel
(torch 2.8's weight gradient: pytorch #152668).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from job.train import glue

AT_ONCE = 32  # experts of a grouped product: dequantised, gpt-oss's take 1.06 GB


@dataclass(frozen=True)
class ExpertWeights:
    """The frozen tensors of one layer's mixture, as transformers' GptOssMLP holds them."""

    norm: Any  # (H,)
    eps: float
    router: Any  # (E, H)
    router_bias: Any  # (E,)
    gate_up: Any  # (E, H, 2I), gate and up interleaved; a tensor or `job.train.mxfp4.Mxfp4`
    gate_up_bias: Any  # (E, 2I)
    down: Any  # (E, I, H)
    down_bias: Any  # (E, H)
    top: int  # experts per token
    scaling: float  # of both adapters
    grouped: bool = False  # the products of all experts at once; else one product an expert


def products(x: Any, weight: Any, ends: Any, *, grouped: bool) -> Any:
    """x (N, K) times its expert's weight (E, K, M): rows sorted by expert, `ends` (E,) int32.

    Args:
        grouped: by PyTorch's grouped product: on Hopper, and of bfloat16, which is all that torch
            2.8's knows. Weights in MXFP4 are dequantised a few experts at a time.
    """
    if not grouped:
        return looped(x, weight, ends)
    if weight.shape[0] <= AT_ONCE:
        return torch._grouped_mm(x, weight[:], offs=ends)
    out, bounds = x.new_empty(x.shape[0], weight.shape[2]), [0, *ends.tolist()]
    for first in range(0, weight.shape[0], AT_ONCE):
        start, end = bounds[first], bounds[min(first + AT_ONCE, weight.shape[0])]
        if end > start:
            part = ends[first : first + AT_ONCE] - start
            some = weight[first : first + AT_ONCE]
            out[start:end] = torch._grouped_mm(x[start:end], some, offs=part)
    return out


def looped(x: Any, weight: Any, ends: Any) -> Any:
    """One product an expert; waits for the GPU once to learn the sizes."""
    out, start = x.new_empty(x.shape[0], weight.shape[2]), 0
    for expert, end in enumerate(ends.tolist()):
        if end > start:
            torch.mm(x[start:end], weight[expert], out=out[start:end])
        start = end
    return out


def make_route(logits: Any, top: int) -> glue.Route:
    """Choose the experts and sort the (token, choice) pairs by expert. Logits (T, E)."""
    value, experts = torch.topk(logits, top, dim=-1)
    weights = torch.softmax(value.float(), dim=-1)
    expert, slot = torch.sort(experts.flatten(), stable=True)
    rows = torch.arange(len(slot), device=slot.device, dtype=torch.int32)
    inverse = torch.empty_like(rows)
    inverse[slot] = rows
    every = torch.arange(logits.shape[1], device=slot.device)
    return glue.Route(
        weights=weights,
        experts=experts,
        inverse=inverse.view(-1, top),
        token=(slot // top).to(torch.int32),
        expert=expert,
        weight=weights.flatten()[slot],
        ends=torch.searchsorted(expert, every, right=True, out_int32=True),
    )


def spread(route: glue.Route, values: Any, experts: int) -> Any:
    """The rows' values, (N, r), each in its own expert's columns of a matrix else 0, (N, E r)."""
    rows, rank = values.shape
    out = values.new_zeros(rows, experts, rank)
    return out.scatter_(1, route.expert[:, None, None].expand(-1, 1, rank), values[:, None]).view(
        rows, -1
    )


def own(route: glue.Route, values: Any, experts: int) -> Any:
    """The rows' own experts' part, (N, r), of values for all experts, (N, E r)."""
    wide = values.view(values.shape[0], experts, -1)
    index = route.expert[:, None, None].expand(-1, 1, wide.shape[2])
    return wide.gather(1, index)[:, 0]


def factors(a: Any, b: Any, experts: int, scaling: float, dtype: torch.dtype) -> tuple[Any, Any]:
    """PEFT's lora_A (E r, in) and lora_B (out, r E) as (E, r, in) and scaling x (E, r, out)."""
    first = a.to(dtype).view(experts, -1, a.shape[1])
    second = (scaling * b.to(dtype)).view(b.shape[0], -1, experts).permute(2, 1, 0).contiguous()
    return first, second


def _gradient_b(gradient: Any, scaling: float, shape: Any, dtype: torch.dtype) -> Any:
    """From the gradient to scaling x B, (E, r, out), the one to B in PEFT's layout (out, r E)."""
    return (gradient.to(dtype) * scaling).permute(2, 1, 0).reshape(shape)


class ExpertBlock(torch.autograd.Function):
    """x + experts(norm(x)) for x (T, H). Keeps x and the first product, 2 (H + 2I k) bytes a token.

    Its adapters are PEFT's: `a1` (E r, H) and `b1` (2I, r E) of gate_up_proj, `a2` (E r, I) and
    `b2` (H, r E) of down_proj.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, a1: Any, b1: Any, a2: Any, b2: Any, w: ExpertWeights) -> Any:
        count = w.router.shape[0]
        normed = glue.rms_norm(x, w.norm, w.eps)
        logits = functional.linear(normed, w.router.to(x.dtype), w.router_bias.to(x.dtype))
        route = make_route(logits, w.top)
        fa1, fb1 = factors(a1, b1, count, w.scaling, x.dtype)
        fa2, fb2 = factors(a2, b2, count, w.scaling, x.dtype)
        xa = normed @ fa1.flatten(0, 1).T
        gu = products(normed[route.token], w.gate_up, route.ends, grouped=w.grouped)
        h = glue.gate(gu, xa, route, w.gate_up_bias, fb1)
        ha = own(route, h @ fa2.flatten(0, 1).T, count)
        y = products(h, w.down, route.ends, grouped=w.grouped)
        del h
        hidden, dense = _per_token(route, ha, count)
        extra = torch.cat((hidden, dense), 1) @ torch.cat((fb2.flatten(0, 1), w.down_bias))
        out = glue.combine(y, route.inverse, route.weights, x, extra)
        ctx.save_for_backward(x, gu, xa, ha, fa1, fb1, fa2, fb2)
        ctx.route, ctx.w, ctx.like = route, w, (a1.dtype, b1.shape, b2.shape)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Any) -> tuple[Any, ...]:
        x, gu, xa, ha, fa1, fb1, fa2, fb2 = ctx.saved_tensors
        route, w, (dtype, shape1, shape2) = ctx.route, ctx.w, ctx.like
        count, rank, _ = fa1.shape
        # The down product: its adapter and bias see whole tokens, so dense products do.
        back = dout @ torch.cat((fb2.flatten(0, 1), w.down_bias)).T
        da, to_bias = back[:, : count * rank].contiguous(), back[:, count * rank :]
        hidden, _ = _per_token(route, ha, count)
        gb2 = (hidden.T @ dout).view(count, rank, -1)
        back_down, back_gate_up = w.down.transpose(1, 2), w.gate_up.transpose(1, 2)
        dh = products(dout[route.token], back_down, route.ends, grouped=w.grouped)
        h, dgu, dweight = glue.gate_backward(gu, xa, route, w.gate_up_bias, fb1, dh, da, fa2)
        del dh
        own_da = da.view(-1, count, rank)[route.token, route.expert]
        ga2 = spread(route, (route.weight[:, None] * own_da).to(x.dtype), count).T @ h
        del h
        rows = xa.view(-1, count, rank)[route.token, route.expert]
        gb1 = (spread(route, rows, count).T @ dgu).view(count, rank, -1)
        dxa = _to_tokens(route, own(route, dgu @ fb1.flatten(0, 1).T, count), count)
        dx = products(dgu, back_gate_up, route.ends, grouped=w.grouped)
        del dgu
        # The router: softmax over the chosen, then its frozen weight.
        dscore = dweight[route.inverse] + to_bias.gather(1, route.experts).float()
        dscore = route.weights * (dscore - (route.weights * dscore).sum(1, keepdim=True))
        dlogits = torch.zeros_like(to_bias).scatter_(1, route.experts, dscore.to(x.dtype))
        both = torch.cat((dxa, dlogits), 1)
        extra = both @ torch.cat((fa1.flatten(0, 1), w.router.to(x.dtype)))
        dnormed = glue.combine(dx, route.inverse, None, extra)
        normed = glue.rms_norm(x, w.norm, w.eps)
        ga1 = dxa.T @ normed
        return (
            glue.rms_norm_backward(dnormed, x, w.norm, w.eps, dout),
            ga1.to(dtype),
            _gradient_b(gb1, w.scaling, shape1, dtype),
            ga2.to(dtype),
            _gradient_b(gb2, w.scaling, shape2, dtype),
            None,
        )


def _to_tokens(route: glue.Route, values: Any, experts: int) -> Any:
    """The rows' values, (N, r), by token and expert, (T, E r); 0 where an expert was not chosen."""
    (tokens, top), rank = route.inverse.shape, values.shape[1]
    out = values.new_zeros(tokens, experts, rank)
    index = route.experts[..., None].expand(-1, top, rank)
    return out.scatter_(1, index, values[route.inverse]).view(tokens, -1)


def _per_token(route: glue.Route, ha: Any, experts: int) -> tuple[Any, Any]:
    """The rows' weighted adapter values, (T, E r), and their weights, (T, E), by token."""
    hidden = _to_tokens(route, (route.weight[:, None] * ha).to(ha.dtype), experts)
    dense = ha.new_zeros(len(hidden), experts)
    return hidden, dense.scatter_(1, route.experts, route.weights.to(ha.dtype))


def probe() -> float:
    """The grouped product on this GPU against a float32 loop, forward and to the activations.

    Uneven and empty groups at both ends and between, in both layouts of the weight.

    Returns:
        The largest relative error; NaN where a value is not finite. 0.004 is what bfloat16 makes.
    """
    generator, errors = torch.Generator("cuda").manual_seed(0), []

    def random(*shape: int) -> Any:
        options: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
        return torch.randn(*shape, generator=generator, **options)

    for sizes in ([0, 130, 0, 1, 77, 0], [64, 64, 0, 0, 0, 3], [0, 0, 0, 0, 0, 257]):
        ends = torch.tensor(sizes, device="cuda").cumsum(0).to(torch.int32)
        for weight in (random(6, 192, 320), random(6, 320, 192).transpose(1, 2)):
            x = random(sum(sizes), 192)
            want = looped(x.float(), weight.float(), ends)
            got = products(x, weight, ends, grouped=True).float()
            errors.append((got - want).norm() / want.norm())
    return float(torch.stack(errors).amax())

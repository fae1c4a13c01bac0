"""gpt-oss in packed form: the loaded model's own tensors, run through blocks written for training.

Nothing is copied or replaced: the adapters stay PEFT's, so saving, merging and evaluating know
nothing of this. Experts that were left in MXFP4 (`job.train.load_mxfp4`) are dequantised for each
product. A lean model is trained in little memory: layers keep their input alone, in host memory,
and are computed again on the way back; embedding and output matrix lie there too.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from job.train.attention import AttentionBlock, AttentionWeights, Documents, Linear
from job.train.experts import ExpertBlock, ExpertWeights
from job.train.head import CHUNK, LEAN_CHUNK, HeadLoss, head_scores
from job.train.packed import Packed


class PackedGptOss:
    """Computes losses of packed rows for a GptOssForCausalLM with PEFT adapters on it.

    Args:
        model: a PeftModel in one 16-bit or 32-bit dtype, fused experts (E, in, out) as
            transformers stores them, no dropout in the adapters; or as `load_mxfp4` loads it.
        grouped: whether the experts' products are grouped, for Hopper and bfloat16.
    """

    def __init__(self, model: Any, *, grouped: bool = False) -> None:
        causal = model.get_base_model()
        self.model, self.config = causal.model, causal.config
        self._head, self._embedding = causal.lm_head, self.model.embed_tokens
        self.lean = hasattr(self._head, "kept")
        self.chunk = LEAN_CHUNK if self.lean else CHUNK
        self.layers = [
            _Layer(layer, self.config, lean=self.lean, grouped=grouped)
            for layer in self.model.layers
        ]

    def loss(self, row: Packed, items: int) -> tuple[Any, Any]:
        """Summed loss of a row over the trained tokens of the whole optimizer step.

        Args:
            items: trained tokens of the step.

        Returns:
            The scalar to call `backward` on, and the loss of each trained token.
        """
        x, at, target = self._through(row)
        norm, scale = self.model.norm, 1.0 / items
        loss, losses = HeadLoss.apply(
            x, at, target, norm.weight, norm.variance_epsilon, self._output(), scale, self.chunk
        )
        return loss, losses

    def document_scores(self, row: Packed) -> list[tuple[float, int, int]]:
        """Of each document: mean loss of its trained tokens, how many are right, how many."""
        with torch.no_grad():
            x, at, target = self._through(row)
            norm = self.model.norm
            losses, right = head_scores(
                x, at, target, norm.weight, norm.variance_epsilon, self._output(), self.chunk
            )
        bounds = torch.searchsorted(row.at, row.starts.long()).tolist()
        return [
            (float(losses[i:j].mean()), int(right[i:j].sum()), j - i) for i, j in pairwise(bounds)
        ]

    def _through(self, row: Packed) -> tuple[Any, Any, Any]:
        """The row after the last layer, and on the same device its trained places and tokens."""
        device = self._head.weight.device
        positions, starts, at, target = (
            t.to(device, non_blocking=True)
            for t in (row.position_ids, row.starts, row.at, row.target)
        )
        if self.lean:
            x = self._embedding.kept[row.input_ids].to(device)
        else:
            x = self._embedding(row.input_ids.to(device, non_blocking=True))
        cos, sin = self.model.rotary_emb(x[None], positions[None])
        docs = Documents(starts, row.longest, cos[0].contiguous(), sin[0].contiguous())
        for layer in self.layers:
            x = layer(x, docs)
        return x, at, target

    def _output(self) -> Any:
        """The output matrix (V, H), on the device."""
        if not self.lean:
            return self._head.weight
        return self._head.kept.to(self._head.weight.device, non_blocking=True)


class _Layer:
    """One decoder layer's tensors, taken out of transformers' and PEFT's modules."""

    def __init__(self, layer: Any, config: Any, *, lean: bool, grouped: bool) -> None:
        self.lean = lean
        attention, first, second = (
            layer.self_attn, layer.input_layernorm, layer.post_attention_layernorm
        )  # fmt: skip
        linears, self.adapters = {}, []
        for name in ("q", "k", "v", "o"):
            base, a, b, scaling = _unwrap(getattr(attention, f"{name}_proj"))
            bias = None if base.bias is None else base.bias.to(base.weight.dtype)
            linears[name] = Linear(base.weight, bias, scaling)
            self.adapters += [a, b]
        self.attention = AttentionWeights(
            norm=first.weight, eps=first.variance_epsilon, **linears, sinks=attention.sinks,
            head_dim=attention.head_dim, window=attention.sliding_window,
        )  # fmt: skip
        router, experts, found = layer.mlp.router, layer.mlp.experts, {}
        while hasattr(experts, "base_layer"):
            _, *found[experts.parameter_name] = _unwrap(experts)
            experts = experts.base_layer
        kept = getattr(experts, "kept", {})
        dtype = experts.gate_up_proj.dtype  # Unsloth keeps the biases in float32
        zero = [_zero_adapter(getattr(experts, n)) for n in ("gate_up_proj", "down_proj")]
        a1, b1, scaling = found.get("gate_up_proj", zero[0])
        a2, b2, _ = found.get("down_proj", zero[1])
        self.expert_adapters = [a1, b1, a2, b2]
        self.experts = ExpertWeights(
            norm=second.weight, eps=second.variance_epsilon, router=router.weight,
            router_bias=router.bias, gate_up=kept.get("gate_up_proj", experts.gate_up_proj),
            gate_up_bias=experts.gate_up_proj_bias.to(dtype),
            down=kept.get("down_proj", experts.down_proj),
            down_bias=experts.down_proj_bias.to(dtype), top=config.num_experts_per_tok,
            scaling=scaling, grouped=grouped,
        )  # fmt: skip
        self.trained = [
            p for p in (*self.adapters, *self.expert_adapters) if p is not None and p.requires_grad
        ]

    def __call__(self, x: Any, docs: Documents) -> Any:
        """(T, H) to (T, H)."""
        if self.lean and torch.is_grad_enabled():
            return ComputedAgain.apply(x, self, docs, *self.trained)
        return self.through(x, docs)

    def through(self, x: Any, docs: Documents) -> Any:
        """The same, keeping what the backward pass needs."""
        x = AttentionBlock.apply(x, docs, self.attention, *self.adapters)
        return ExpertBlock.apply(x, *self.expert_adapters, self.experts)


class ComputedAgain(torch.autograd.Function):
    """A layer that keeps only its input, in host memory, and is computed again on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Any, layer: _Layer, docs: Documents, *trained: Any) -> Any:
        ctx.layer, ctx.docs, ctx.device = layer, docs, x.device
        ctx.x = torch.empty(x.shape, dtype=x.dtype, pin_memory=x.is_cuda)
        ctx.x.copy_(x, non_blocking=True)
        return layer.through(x, docs)  # without a graph: autograd is off in here

    @staticmethod
    def backward(ctx: Any, dout: Any) -> tuple[Any, ...]:
        x = ctx.x.to(ctx.device, non_blocking=True).requires_grad_()
        with torch.enable_grad():
            out = ctx.layer.through(x, ctx.docs)
        dx, *gradients = torch.autograd.grad(out, [x, *ctx.layer.trained], dout)
        return dx, None, None, *gradients


def _unwrap(module: Any) -> tuple[Any, Any, Any, float]:
    """Base layer, A, B and scaling of a PEFT layer; None, None, 1 where there is no adapter."""
    if not hasattr(module, "lora_A"):
        return module, None, None, 1.0
    (name,) = module.lora_A
    a, b = module.lora_A[name].weight, module.lora_B[name].weight
    return module.base_layer, a, b, float(module.scaling[name])


def _zero_adapter(weight: Any) -> tuple[Any, Any, float]:
    """An adapter of rank 1 that changes nothing, for a weight (E, in, out) that trains none."""
    experts, inner, outer = weight.shape
    return weight.new_zeros(experts, inner), weight.new_zeros(outer, experts), 1.0

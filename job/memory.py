"""What a job takes of a card's memory, part by part, before it runs. Pure.

A simple model with measured constants: weights as they lie on the card; the adapter with its
gradient and optimizer state, in 32 bits; a constant for each token of a forward and backward pass.
tests/test_memory.py holds it against every line of the memory table in docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from job.spec import JobSpec

GIB = 2**30
PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "reserve")

# CUDA context, allocator slack, and what a library takes for a moment.
RESERVE = 2 * GIB

# Bytes of live memory for each token and hidden unit in one pass, where the layers' inputs are kept
# in host memory and the rest is computed again. Measured on an H100 (docs/benchmarks.md) but
# `dense`, which is a guess on the safe side. Packed: Llama-3-8B's shape, 46.1 between rows of
# 20,891 and of 65,536 tokens. Mixture: gpt-oss.
OFFLOADED = {"packed": 47, "dense": 72, "mixture": 117}
LLAMA_UNITS = 3.5  # of a layer's MLP for each hidden unit, in that shape
KEPT = 14  # times as much of a padded row without checkpointing; not measured

# Bytes a trained parameter for the optimizer's state: two moments, in 8 or in 32 bits.
STATE_BYTES = {"adamw_8bit": 2, "paged_adamw_8bit": 2, "sgd": 0}
FULL_STATE = 8

MXFP4_IN_16_BITS = 3.04  # 13.8 GB of gpt-oss-20b become 41.8 GB
NF4_OF_16_BITS = 0.32  # with its scales; embeddings stay in 16 bits


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's own settings, also of a model with an image part."""
    return config.get("text_config") or config


def storage_format(config: Mapping[str, Any]) -> str:
    """How the checkpoint stores its large weights: `mxfp4`, `bitsandbytes`, … or `16bit`."""
    quantization = config.get("quantization_config") or {}
    return str(quantization.get("quant_method", "16bit"))


def experts(config: Mapping[str, Any]) -> int:
    """Experts of a layer; 1 in a dense model."""
    text = text_part(config)
    return int(text.get("num_local_experts") or text.get("num_experts") or 1)


def loaded_bytes(
    config: Mapping[str, Any], weight_bytes: int, precision: str, *, on_cpu: bool
) -> int:
    """Bytes of the weights once loaded.

    Args:
        weight_bytes: size of the checkpoint's weight files.
        precision: as decided.
    """
    if on_cpu:
        return 2 * weight_bytes  # float32
    if storage_format(config) == "mxfp4":  # Unsloth dequantises it on torch 2.8
        return int(weight_bytes * MXFP4_IN_16_BITS)
    if precision == "4bit" and storage_format(config) == "16bit":
        return int(weight_bytes * NF4_OF_16_BITS)
    return weight_bytes


def merged_bytes(config: Mapping[str, Any], weight_bytes: int) -> int:
    """Bytes of the merged weights, in 16 bits."""
    growth = MXFP4_IN_16_BITS if storage_format(config) == "mxfp4" else 1
    return int(weight_bytes * growth)


def adapter_parameters(config: Mapping[str, Any], rank: int, targets: tuple[str, ...]) -> int:
    """How many numbers are trained: rank x (inputs + outputs) of each target.

    Experts share their rank: gate and up are one matrix there. Models that name their sizes
    otherwise than Llama, Qwen and gpt-oss are counted as far as their config tells.
    """
    text = text_part(config)
    hidden = int(text.get("hidden_size", 4096))
    heads = int(text.get("num_attention_heads", 32))
    kv = int(text.get("num_key_value_heads") or heads)
    head = int(text.get("head_dim") or hidden // heads)
    count = experts(config)
    units = int((count > 1 and text.get("moe_intermediate_size")) or 0)
    units = units or int(text.get("intermediate_size", 4 * hidden))
    sizes = {
        "q_proj": hidden + heads * head,
        "k_proj": hidden + kv * head,
        "v_proj": hidden + kv * head,
        "o_proj": heads * head + hidden,
        "gate_proj": count * (hidden + units),
        "up_proj": count * (hidden + units),
        "down_proj": count * (units + hidden),
    }
    if count > 1:
        sizes |= {"gate_proj": count * (hidden + 2 * units), "up_proj": 0}
    wanted = sizes if targets == ("auto",) else targets
    layers = int(text.get("num_hidden_layers", 32))
    return layers * rank * sum(sizes.get(target, 0) for target in wanted)


def trained_parts(spec: JobSpec, config: Mapping[str, Any], optimizer: str) -> dict[str, int]:
    """Bytes of the adapter, its gradient and the optimizer's state."""
    count = adapter_parameters(config, spec.lora_r, tuple(spec.lora_targets))
    state = STATE_BYTES.get(optimizer, FULL_STATE)
    return {"adapter": 4 * count, "gradients": 4 * count, "optimizer": state * count}


def token_bytes(config: Mapping[str, Any], checkpointing: Any, *, packed: bool = False) -> int:
    """Bytes that a token takes in a pass of the library's own, in padded or in packed rows.

    Args:
        checkpointing: `unsloth`, which keeps the layers' inputs in host memory, True or False.
    """
    text = text_part(config)
    hidden, layers = int(text.get("hidden_size", 4096)), int(text.get("num_hidden_layers", 32))
    kind = "mixture" if experts(config) > 1 else "dense"
    if not checkpointing:
        return hidden * OFFLOADED[kind] * KEPT
    a_unit = float(OFFLOADED[kind])
    if packed:
        width = int(text.get("intermediate_size", 4 * hidden)) / hidden
        a_unit = OFFLOADED["packed"] * max(1.0, width / LLAMA_UNITS)
    if checkpointing != "unsloth":
        a_unit += 2 * layers  # in 16 bits
    return int(hidden * a_unit)


def on_card(estimates: Mapping[str, int]) -> int:
    """Bytes of all parts together, the reserve included."""
    return sum(estimates[part] for part in PARTS)

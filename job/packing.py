"""Whether sequences are packed into rows, and how long a row may be. Pure.

Packing runs on this project's own forward and backward passes (`job.train.gptoss`), which exist for
gpt-oss in 16 bits. They keep what the backward pass needs, so memory says how long a row may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from job.spec import JobSpec

LOGITS_AT_ONCE = 4096  # tokens; as job/train/head.py computes the loss
FLASH_CAPABILITY = (8, 0)  # Ampere: bfloat16 and PyTorch's variable-length flash attention


def obstacle(
    spec: JobSpec,
    config: Mapping[str, Any],
    stored: str,
    precision: str,
    capability: tuple[int, int] | None,
) -> str | None:
    """Why this model cannot be trained packed; None if it can.

    Args:
        config: the model's config.json.
        stored: how its weights are stored, as `memory.storage_format` says.
        precision: `4bit`, `native` or `16bit`, as decided.
        capability: of the card; None on a CPU.
    """
    if config.get("model_type") != "gpt_oss":
        return "only gpt-oss is packed"
    if precision == "4bit" or stored not in ("16bit", "mxfp4"):  # MXFP4 is trained dequantised
        return "packing needs 16-bit weights"
    if spec.lora_dropout:
        return "packing knows no dropout"
    if capability is None or capability < FLASH_CAPABILITY:
        return "packing needs a GPU of compute capability 8.0 or newer"
    return None


def token_bytes(config: Mapping[str, Any]) -> int:
    """Bytes that a token of a packed row takes: what all layers keep, and what one works on.

    A layer keeps its two inputs, q, k, v, the attention's output and log-sum-exp, and the experts'
    first product, in 16 bits.
    """
    hidden, head = config["hidden_size"], config["head_dim"]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    attention = hidden + 2 * head * (heads + kv) + 2 * heads
    kept = attention + hidden + 2 * _units(config)
    return int(2 * config["num_hidden_layers"] * kept + _working_bytes(config))


def logits_bytes(config: Mapping[str, Any], tokens: int) -> int:
    """Bytes of the logits that exist at once, beyond what the experts of a layer work on.

    The loss is computed before any layer's backward pass, in the same memory.
    """
    chunk = min(tokens, LOGITS_AT_ONCE)
    return max(2 * chunk * int(config["vocab_size"]) - tokens * _working_bytes(config), 0)


def _working_bytes(config: Mapping[str, Any]) -> int:
    """Five tensors of one value for each expert unit, in the experts' backward pass."""
    return 2 * 5 * _units(config)


def _units(config: Mapping[str, Any]) -> int:
    return int(config["intermediate_size"] * config["num_experts_per_tok"])

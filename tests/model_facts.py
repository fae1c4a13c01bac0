"""What published checkpoints say in config.json, as far as the plan reads it, and their size.

Sizes are bytes of weights, as the published parameter counts make them.
"""

from __future__ import annotations

from typing import Any

from bench.gptoss import Shape, config

Facts = tuple[dict[str, Any], int]


def dense(
    hidden: int, layers: int, heads: int, kv: int, units: int, vocab: int, kind: str = "llama"
) -> dict[str, Any]:
    """The sizes under Llama's names."""
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": units,
        "vocab_size": vocab,
    }


GPT_OSS_20B: Facts = (config(Shape(), "mxfp4"), 13_761_264_768)
GPT_OSS_120B: Facts = (config(Shape(layers=36, experts=128), "mxfp4"), 65_248_815_744)
LLAMA_8B: Facts = (dense(4096, 32, 32, 8, 14336, 128_256), 16_060_522_496)
LLAMA_70B: Facts = (dense(8192, 80, 64, 8, 28672, 128_256), 141_107_412_992)
QWEN3_8B: Facts = (
    dense(4096, 36, 32, 8, 12288, 151_936, "qwen3") | {"head_dim": 128},
    16_381_470_720,
)
QWEN3_A3B: Facts = (
    dense(2048, 48, 32, 4, 6144, 151_936, "qwen3_moe")
    | {
        "head_dim": 128,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
    },
    61_064_245_248,
)
SMOLLM2: Facts = (dense(576, 30, 9, 3, 1536, 49_152), 269_060_552)

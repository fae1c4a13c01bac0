"""How sequences are packed into rows: what is kept on the card, and how long a row may be. Pure.

gpt-oss is packed by this project's own forward and backward passes (`job.train.gptoss`), which know
a few ways to use the memory; the first that holds the rows is the fastest. Other models are packed
by Unsloth's forward pass (`job.train.packed_library`), those in which it takes packed rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from job import memory
from job.spec import JobSpec

BY_LIBRARY = ("llama", "mistral", "qwen2", "qwen3")  # Unsloth's own layers, which take packed rows
FLASH_CAPABILITY = (8, 0)  # Ampere: bfloat16 and PyTorch's variable-length flash attention
HOPPER = 9  # major compute capability; torch 2.8's grouped product exists for it alone

# Tokens of a row from which longer rows are hardly faster, so that 16-bit experts are preferred.
ENOUGH = 8_192
TARGETS = frozenset(
    ("auto", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
)

# As job/train/head.py and job/train/experts.py compute.
LOGITS_AT_ONCE, LEAN_LOGITS_AT_ONCE = 4096, 256  # tokens
EXPERTS_AT_ONCE = 32  # dequantised for a grouped product


@dataclass(frozen=True)
class Way:
    """What lies on the card while packed rows are trained.

    A lean way keeps of each layer its input alone, in host memory, and computes the rest again;
    embedding and output matrix are in host memory too.
    """

    experts: str  # "16bit", or "mxfp4": dequantised for each product
    products: str  # of experts: "grouped", or "loop", one expert at a time
    lean: bool


def ways(stored: str, capability: tuple[int, int]) -> list[Way]:
    """The ways there are, the fastest first."""
    products = "grouped" if capability[0] == HOPPER else "loop"
    found = [Way("16bit", products, lean=False)]
    if stored == "mxfp4":
        found.append(Way("mxfp4", products, lean=False))
        found += [Way("mxfp4", each, lean=True) for each in dict.fromkeys((products, "loop"))]
    return found


def obstacle(
    spec: JobSpec,
    config: Mapping[str, Any],
    precision: str,
    capability: tuple[int, int] | None,
) -> str | None:
    """Why this model cannot be trained packed; None if it can.

    Args:
        config: the model's config.json.
        precision: `4bit`, `native` or `16bit`, as decided.
        capability: of the card; None on a CPU.
    """
    if capability is None or capability < FLASH_CAPABILITY:
        return "packing needs a GPU of compute capability 8.0 or newer"
    if config.get("model_type") in BY_LIBRARY:
        return None
    if config.get("model_type") != "gpt_oss":
        return f"only these are packed: gpt_oss, {', '.join(BY_LIBRARY)}"
    if precision == "4bit" or memory.storage_format(config) not in ("16bit", "mxfp4"):
        return "packing needs 16-bit or MXFP4 weights"
    if spec.lora_dropout:
        return "packing knows no dropout"
    if others := sorted(set(spec.lora_targets) - TARGETS):
        return f"packing trains no adapter on {', '.join(others)}"
    return None


def limit(way: Way, config: Mapping[str, Any], rank: int, room: int) -> int:
    """Tokens of a row for which so many bytes are room enough, the logits' among them."""
    if way.lean and room < _at_the_head(config, LEAN_LOGITS_AT_ONCE):
        return 0
    a_token = token_bytes(way, config, rank)
    tokens = max(room, 0) // a_token
    if logits_bytes(way, config, rank, tokens) == 0 or way.lean:
        return tokens
    # The logits need more than a layer gives back: the first 4,096 tokens' each their own.
    kept, logits = a_token - _working_bytes(config), 2 * int(config["vocab_size"])
    more = (room - LOGITS_AT_ONCE * logits) // kept
    return more if more >= LOGITS_AT_ONCE else room // (kept + logits)


def choose(
    candidates: list[Way],
    spec: JobSpec,
    config: Mapping[str, Any],
    weight_bytes: int,
    longest: int,
    room: int,
) -> tuple[Way, int]:
    """The first way whose rows are long enough, and how long they may be; the leanest if none.

    Args:
        candidates: as of `ways`.
        longest: tokens of the longest sequence.
        room: bytes for weights and all that a token takes.
    """
    whole_step = spec.batch_size * longest
    for way in candidates:
        tokens = limit(way, config, spec.lora_r, room - weights(way, config, weight_bytes))
        wanted = max(longest, ENOUGH) if way.experts == "16bit" and len(candidates) > 1 else longest
        if tokens >= min(wanted, whole_step):
            break
    return way, tokens


def weights(way: Way, config: Mapping[str, Any], weight_bytes: int) -> int:
    """Bytes of the frozen weights on the card, and of the experts that are dequantised at once."""
    if way.experts == "16bit":
        return memory.loaded_bytes(config, weight_bytes, "native", on_cpu=False)
    at_once = EXPERTS_AT_ONCE if way.products == "grouped" else 1
    hidden, units = int(config["hidden_size"]), int(config["intermediate_size"])
    dense = min(at_once, memory.experts(config)) * hidden * 2 * units * 2
    return weight_bytes + dense - (2 * _output_bytes(config) if way.lean else 0)


def token_bytes(way: Way, config: Mapping[str, Any], rank: int) -> int:
    """Bytes that a token of a packed row takes: what all layers keep, and what one works on.

    A layer keeps its two inputs, q, k, v, the attention's output and log-sum-exp, the experts'
    first product and their adapters' first factor, in 16 bits.
    """
    hidden, head = config["hidden_size"], config["head_dim"]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    attention = hidden + 2 * head * (heads + kv) + 2 * heads
    kept = attention + hidden + 2 * _units(config) + memory.experts(config) * rank
    layers = 1 if way.lean else config["num_hidden_layers"]
    return int(2 * layers * kept + _working_bytes(config))


def logits_bytes(way: Way, config: Mapping[str, Any], rank: int, tokens: int) -> int:
    """Bytes of the logits that exist at once, beyond what a layer gave back before.

    The loss is computed before any layer's backward pass, in the same memory. In a lean way the
    output matrix is there for that long.
    """
    if way.lean:
        there = _at_the_head(config, min(tokens, LEAN_LOGITS_AT_ONCE))
        return max(there - tokens * token_bytes(way, config, rank), 0)
    chunk = min(tokens, LOGITS_AT_ONCE)
    return max(2 * chunk * int(config["vocab_size"]) - tokens * _working_bytes(config), 0)


def _at_the_head(config: Mapping[str, Any], tokens: int) -> int:
    """Bytes of a lean way's output matrix and of so many tokens' logits."""
    return _output_bytes(config) + 2 * tokens * int(config["vocab_size"])


def _output_bytes(config: Mapping[str, Any]) -> int:
    """Bytes of the output matrix in 16 bits, which are the embedding's too."""
    return 2 * int(config["vocab_size"]) * int(config["hidden_size"])


def _working_bytes(config: Mapping[str, Any]) -> int:
    """Five tensors of one value for each expert unit, in the experts' backward pass."""
    return 2 * 5 * _units(config)


def _units(config: Mapping[str, Any]) -> int:
    return int(config["intermediate_size"] * config["num_experts_per_tok"])

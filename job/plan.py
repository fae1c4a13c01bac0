"""From spec, card and model facts to the settings of the run, each with its reason. Pure.

What the user left at `auto` is decided here and nowhere else; job/memory.py says what it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from job import architectures, memory, packing, space
from job.errors import SpecError, Unavailable
from job.library_rows import rows_by_library
from job.memory import GIB, RESERVE, storage_format
from job.settings import Gpu, Setting, room_beside, too_small
from job.spec import JobSpec


@dataclass(frozen=True)
class Plan:
    """The settings that the trainer follows. `estimates` in bytes."""

    precision: Setting  # 4bit, native, 16bit
    micro_batch_size: Setting  # sequences per forward pass
    gradient_accumulation: Setting  # forward passes per optimizer step
    gradient_checkpointing: Setting  # "unsloth", True, False; packed: True is the lean way
    optimizer: Setting
    packing: Setting  # tokens of a packed row, or False
    experts: Setting  # of packed gpt-oss: 16bit, mxfp4; else None
    expert_products: Setting  # of packed gpt-oss: grouped, loop; else None
    merge: Setting  # who merges the 16-bit weights: unsloth, peft
    estimates: dict[str, int]

    def settings(self) -> dict[str, dict[str, Any]]:
        """Each setting's value and reason, JSON-able, for events, report and receipt."""
        found = {name: value for name, value in asdict(self).items() if name != "estimates"}
        return {name: value for name, value in found.items() if value["value"] is not None}

    def values(self) -> dict[str, Any]:
        """The bare values by name, for the trainer."""
        named = {name: getattr(self, name) for name in asdict(self) if name != "estimates"}
        return {name: setting.value for name, setting in named.items()}


def make_plan(
    spec: JobSpec,
    config: Mapping[str, Any],
    weight_bytes: int,
    gpu: Gpu | None,
    longest: int | None = None,
) -> Plan:
    """Decide everything that the spec leaves open.

    Args:
        config: the model's config.json.
        weight_bytes: size of the checkpoint's weight files.
        gpu: None for device=cpu.
        longest: tokens of the longest row; `max_seq_length` while the data are not known.

    Raises:
        SpecError: the spec asks for what this model cannot do.
        Unavailable: the card is too old or too small.
    """
    if gpu is not None:
        require_supported(gpu)
    longest = min(longest or spec.max_seq_length, spec.max_seq_length)
    precision = _precision(spec, config, weight_bytes, gpu)
    optimizer = _optimizer(spec, gpu)
    fixed = {
        **memory.trained_parts(spec, config, optimizer.value),
        "reserve": RESERVE if gpu else 0,
    }
    way, packed = _packing(spec, config, weight_bytes, precision.value, longest, fixed, gpu)
    if way is not None:
        parts, settings = _packed_rows(spec, config, weight_bytes, longest, way, packed)
    else:
        parts, settings = rows_by_library(
            spec, config, weight_bytes, longest, precision.value, fixed, packed, gpu
        )
    return Plan(
        precision=precision,
        optimizer=optimizer,
        merge=_merge(config),
        estimates=parts | fixed | {"results": space.results(spec, config, weight_bytes)},
        **settings,
    )


def _packed_rows(
    spec: JobSpec,
    config: Mapping[str, Any],
    weight_bytes: int,
    longest: int,
    way: packing.Way,
    packed: Setting,
) -> tuple[dict[str, int], dict[str, Setting]]:
    """Parts of the memory and settings, when gpt-oss's rows are packed in such a way."""
    tokens, rank = min(packed.value, spec.batch_size * longest), spec.lora_r
    parts = {
        "weights": packing.weights(way, config, weight_bytes),
        "activations": tokens * packing.token_bytes(way, config, rank),
        "logits": packing.logits_bytes(way, config, rank, tokens),
    }
    kept = "all that the backward pass needs is kept, which is fastest"
    if way.lean:
        kept = "lean: inputs, embedding and output matrix in host memory, layers computed again"
    experts = "dequantised when loaded, since there is room"
    if way.experts == "mxfp4":
        experts = "kept as published, dequantised for each product"
    elif storage_format(config) == "16bit":
        experts = "as published"
    products = "one product an expert: it takes the least memory, and grouped ones need Hopper"
    if way.products == "grouped":
        products = "PyTorch's grouped product, after a probe"
    return parts, {
        "packing": packed,
        "micro_batch_size": Setting(spec.batch_size, "a whole step, in packed rows"),
        "gradient_accumulation": Setting(1, f"{spec.batch_size} sequences per optimizer step"),
        "gradient_checkpointing": Setting(way.lean, kept),
        "experts": Setting(way.experts, experts),
        "expert_products": Setting(way.products, products),
    }


def require_supported(gpu: Gpu) -> None:
    """Raises Unavailable when the card or its driver is too old, or has no machine code."""
    reason = architectures.refusal(gpu.name, gpu.capability, gpu.driver)
    if reason is not None:
        raise Unavailable(reason)


def _precision(
    spec: JobSpec, config: Mapping[str, Any], weight_bytes: int, gpu: Gpu | None
) -> Setting:
    stored = storage_format(config)
    asked = spec.precision
    if stored == "bitsandbytes" and "merged_16bit" in spec.save:
        raise SpecError(
            "This checkpoint holds only quantised weights (bitsandbytes), and a 16-bit merge needs "
            "the 16-bit base. Set JOB_MODEL to the 16-bit or MXFP4 repository, or JOB_SAVE=lora."
        )
    if gpu is None and stored != "16bit":
        raise SpecError(f"JOB_DEVICE=cpu cannot train a {stored} checkpoint; take a 16-bit one.")
    if asked == "4bit" and stored == "mxfp4":
        raise SpecError(
            "JOB_PRECISION=4bit (NF4) cannot be made of an MXFP4 checkpoint: its experts would be "
            "left untrained. Use JOB_PRECISION=native, or auto."
        )
    if asked != "auto":
        return Setting(asked, "as asked")
    if stored != "16bit":
        return Setting("native", f"the checkpoint is stored as {stored}")
    if gpu is None:
        return Setting("16bit", "the CPU computes in float32")
    if weight_bytes + 3 * RESERVE < 0.7 * gpu.memory:
        return Setting("16bit", f"{weight_bytes / GIB:.1f} GiB of weights fit in 16 bits")
    return Setting("4bit", f"{weight_bytes / GIB:.1f} GiB of weights do not fit in 16 bits")


def _packing(
    spec: JobSpec,
    config: Mapping[str, Any],
    weight_bytes: int,
    precision: str,
    longest: int,
    fixed: Mapping[str, int],
    gpu: Gpu | None,
) -> tuple[packing.Way | None, Setting]:
    """Packed where it can be; `auto` leaves alone what the user set for unpacked rows.

    Returns:
        How gpt-oss is packed, and the tokens of a row; of other models None, and whether Unsloth
        may pack them.
    """
    if spec.packing == "false":
        return None, Setting(False, "as asked")
    by_user = spec.micro_batch_size != "auto" or spec.gradient_checkpointing != "auto"
    if by_user and spec.packing != "true":
        return None, Setting(False, "micro-batch or checkpointing were set for unpacked rows")
    asked = "as asked" if spec.packing == "true" else "no padding"
    reason = packing.obstacle(spec, config, precision, gpu.capability if gpu else None)
    if reason is None and config["model_type"] in packing.BY_LIBRARY:
        return None, Setting(True, asked)
    if gpu is not None and reason is None:
        ways = packing.ways(storage_format(config), gpu.capability)
        room = room_beside(sum(fixed.values()), gpu)
        way, limit = packing.choose(ways, spec, config, weight_bytes, longest, room)
        if limit >= longest:
            return way, Setting(limit, f"{asked}; rows as long as memory allows")
        if way.lean:  # unpacked rows take more still
            shortest = Setting(longest, "")
            parts, _ = _packed_rows(spec, config, weight_bytes, longest, way, shortest)
            raise too_small(config, gpu, sum(parts.values()) + sum(fixed.values()))
        reason = f"a packed row of {limit} tokens is all that memory allows"
    if spec.packing == "true":
        raise SpecError(f"JOB_PACKING=true: {reason}; allowed here: auto, false.")
    return None, Setting(False, str(reason))


def _optimizer(spec: JobSpec, gpu: Gpu | None) -> Setting:
    if gpu is None and "8bit" in spec.optimizer:
        return Setting(
            "adamw_torch", f"{spec.optimizer} needs a GPU; the same algorithm in 32 bits"
        )
    return Setting(spec.optimizer, "as the spec says")


def _merge(config: Mapping[str, Any]) -> Setting:
    if storage_format(config) == "mxfp4":
        return Setting("peft", "Unsloth 2026.10.7 cannot merge fused experts into an MXFP4 base")
    return Setting("unsloth", "shard by shard over a copy of the base")

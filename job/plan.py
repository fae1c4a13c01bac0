"""From spec, card and model facts to the settings of the run, each with its reason. Pure.

What the user left at `auto` is decided here and nowhere else. The memory estimate is deliberately
simple: weights as they lie on the card, LoRA with its gradient and optimizer state, and a constant
per token of a forward pass; its constants are measured (docs/benchmarks.md), not derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from job import architectures, packing
from job.errors import SpecError, Unavailable
from job.spec import JobSpec

GIB = 2**30
CPU_MICRO_BATCH = 1

# Bytes of live memory per token and per hidden unit in one forward and backward pass.
BYTES_PER_TOKEN_PER_HIDDEN = {"checkpointed": 72, "kept": 72 * 14}
RESERVE = 3 * GIB  # CUDA context, allocator slack, transient stacks of the loss


@dataclass(frozen=True)
class Gpu:
    """What the driver says of the first card. Memory in bytes."""

    name: str
    memory: int
    free: int
    capability: tuple[int, int]
    driver: str


@dataclass(frozen=True)
class Setting:
    """One decided value and why."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Plan:
    """The settings that the trainer follows. `estimates` in bytes."""

    precision: Setting  # 4bit, native, 16bit
    micro_batch_size: Setting  # sequences per forward pass
    gradient_accumulation: Setting  # forward passes per optimizer step
    gradient_checkpointing: Setting  # "unsloth", True, False
    optimizer: Setting
    packing: Setting  # tokens of a packed row, or False
    merge: Setting  # who merges the 16-bit weights: unsloth, peft
    estimates: dict[str, int]

    def settings(self) -> dict[str, dict[str, Any]]:
        """Each setting's value and reason, JSON-able, for events, report and receipt."""
        return {name: value for name, value in asdict(self).items() if name != "estimates"}

    def values(self) -> dict[str, Any]:
        """The bare values by name, for the trainer."""
        return {name: setting["value"] for name, setting in self.settings().items()}


def make_plan(spec: JobSpec, config: Mapping[str, Any], weight_bytes: int, gpu: Gpu | None) -> Plan:
    """Decide everything that the spec leaves open.

    Args:
        config: the model's config.json.
        weight_bytes: size of the checkpoint's weight files.
        gpu: None for device=cpu.

    Raises:
        SpecError: the spec asks for what this model cannot do.
        Unavailable: the card is too old or too small.
    """
    if gpu is not None:
        reason = architectures.refusal(gpu.name, gpu.capability, gpu.driver)
        if reason is not None:
            raise Unavailable(reason)
    precision = _precision(spec, config, weight_bytes, gpu)
    checkpointing = _checkpointing(spec, gpu)
    weights = _loaded_bytes(config, weight_bytes, str(precision.value), gpu)
    packed = _packing(spec, config, str(precision.value), weights, gpu)
    if packed.value:
        checkpointing = Setting(False, "the rows are as long as memory allows without it")
        micro = Setting(spec.batch_size, "a whole step, in packed rows")
        activations = packed.value * packing.token_bytes(config)
    else:
        micro = _micro_batch(spec, config, weights, checkpointing, gpu)
        activations = micro.value * spec.max_seq_length * _token_bytes(config, checkpointing)
    steps = spec.batch_size // micro.value
    return Plan(
        precision=precision,
        micro_batch_size=micro,
        gradient_accumulation=Setting(steps, f"{spec.batch_size} sequences per optimizer step"),
        gradient_checkpointing=checkpointing,
        optimizer=_optimizer(spec, gpu),
        packing=packed,
        merge=_merge(config),
        estimates={
            "weights": weights,
            "activations": activations,
            "reserve": RESERVE if gpu else 0,
            "disk": _disk(spec, weight_bytes, config),
        },
    )


def with_smaller_batch(plan: Plan) -> Plan | None:
    """The same plan with rows half as long, or half the micro-batch or less.

    None when the micro-batch is one sequence already.
    """
    if limit := plan.packing.value:
        shorter = Setting(limit // 2, f"rows of {limit} tokens did not fit the GPU's memory")
        return replace(plan, packing=shorter)
    micro = plan.micro_batch_size.value
    whole = micro * plan.gradient_accumulation.value
    smaller = [n for n in range(1, micro // 2 + 1) if whole % n == 0]
    if not smaller:
        return None
    size = smaller[-1]
    return replace(
        plan,
        micro_batch_size=Setting(size, f"{micro} did not fit the GPU's memory"),
        gradient_accumulation=Setting(whole // size, plan.gradient_accumulation.reason),
    )


def storage_format(config: Mapping[str, Any]) -> str:
    """How the checkpoint stores its large weights: `mxfp4`, `bitsandbytes`, … or `16bit`."""
    quantization = config.get("quantization_config") or {}
    return str(quantization.get("quant_method", "16bit"))


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
    if weight_bytes + 2 * RESERVE < 0.7 * gpu.memory:
        return Setting("16bit", f"{weight_bytes / GIB:.1f} GiB of weights fit in 16 bits")
    return Setting("4bit", f"{weight_bytes / GIB:.1f} GiB of weights do not fit in 16 bits")


def _checkpointing(spec: JobSpec, gpu: Gpu | None) -> Setting:
    asked = spec.gradient_checkpointing
    if asked != "auto":
        return Setting({"true": True, "false": False}.get(str(asked).lower(), asked), "as asked")
    if gpu is None:
        return Setting(False, "memory is plentiful and time is not, on a CPU")
    return Setting("unsloth", "activations are kept in host memory, so longer batches fit")


def _loaded_bytes(
    config: Mapping[str, Any], weight_bytes: int, precision: str, gpu: Gpu | None
) -> int:
    """Bytes of the weights once loaded."""
    if gpu is None:
        return 2 * weight_bytes  # float32
    if storage_format(config) == "mxfp4":
        # Unsloth dequantises MXFP4 to bfloat16 on torch 2.8: 13.8 GB become 41.8 GB.
        return int(weight_bytes * 3.04)
    if precision == "4bit" and storage_format(config) == "16bit":
        return int(weight_bytes * 0.32)  # NF4 with its scales; embeddings stay in 16 bits
    return weight_bytes


def _room(weights: int, gpu: Gpu) -> int:
    """Bytes for activations beside the weights. Another process may hold a part of the card."""
    return min(int(0.95 * gpu.memory), gpu.free) - weights - RESERVE


def _packing(
    spec: JobSpec, config: Mapping[str, Any], precision: str, weights: int, gpu: Gpu | None
) -> Setting:
    """Packed where it can be; `auto` leaves alone what the user set for unpacked rows."""
    if spec.packing == "false":
        return Setting(False, "as asked")
    capability = gpu.capability if gpu else None
    reason = packing.obstacle(spec, config, storage_format(config), precision, capability)
    limit = 0
    if gpu is not None and reason is None:
        limit = max(_room(weights, gpu), 0) // packing.token_bytes(config)
        if limit < spec.max_seq_length:
            reason = f"a packed row of {limit} tokens is all that memory allows"
    if spec.packing == "true":
        if reason is not None:
            raise SpecError(f"JOB_PACKING=true: {reason}; allowed here: auto, false.")
        return Setting(limit, "as asked; rows as long as memory allows")
    if reason is not None:
        return Setting(False, reason)
    if spec.micro_batch_size != "auto" or spec.gradient_checkpointing != "auto":
        return Setting(False, "micro-batch or checkpointing were set for unpacked rows")
    return Setting(limit, "rows as long as memory allows")


def _token_bytes(config: Mapping[str, Any], checkpointing: Setting) -> int:
    text = config.get("text_config") or config
    kind = "checkpointed" if checkpointing.value else "kept"
    return int(text.get("hidden_size", 4096)) * BYTES_PER_TOKEN_PER_HIDDEN[kind]


def _micro_batch(
    spec: JobSpec,
    config: Mapping[str, Any],
    weights: int,
    checkpointing: Setting,
    gpu: Gpu | None,
) -> Setting:
    if spec.micro_batch_size != "auto":
        return Setting(int(spec.micro_batch_size), "as asked")
    if gpu is None:
        wanted, reason = (
            CPU_MICRO_BATCH,
            "on a CPU more is not faster, and one row needs no padding",
        )
    else:
        per_sequence = spec.max_seq_length * _token_bytes(config, checkpointing)
        room = _room(weights, gpu)
        wanted = room // per_sequence
        reason = f"{max(room, 0) / GIB:.1f} GiB are left beside the weights on the {gpu.name}"
        if wanted < 1:
            raise Unavailable(
                f"The {gpu.name} has {gpu.memory / GIB:.0f} GiB, {gpu.free / GIB:.0f} of them free;"
                f" this job needs about {(weights + RESERVE + per_sequence) / GIB:.0f} GiB. Lower "
                "JOB_MAX_SEQ_LENGTH, set JOB_PRECISION=4bit where the model allows it, or take a "
                "larger card."
            )
    fits = [n for n in range(1, spec.batch_size + 1) if spec.batch_size % n == 0 and n <= wanted]
    return Setting(fits[-1], reason)


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


def _disk(spec: JobSpec, weight_bytes: int, config: Mapping[str, Any]) -> int:
    """Bytes under the work dir: the base, the merged copy in 16 bits, and a GiB for the rest."""
    merged = weight_bytes * (3.04 if storage_format(config) == "mxfp4" else 1)
    if "merged_16bit" not in spec.save:
        merged = 0
    base = 0 if spec.model.scheme == "path" else weight_bytes
    return int(base + merged + GIB)

"""From spec, card and model facts to the settings of the run, each with its reason. Pure.

What the user left at `auto` is decided here and nowhere else; job/memory.py says what it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from job import architectures, memory, packing, space
from job.errors import SpecError, Unavailable
from job.memory import GIB, RESERVE, storage_format
from job.spec import JobSpec

CPU_MICRO_BATCH = 1


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
    checkpointing = _checkpointing(spec, gpu)
    optimizer = _optimizer(spec, gpu)
    on_cpu = gpu is None
    fixed = {
        "weights": memory.loaded_bytes(config, weight_bytes, precision.value, on_cpu=on_cpu),
        **memory.trained_parts(spec, config, optimizer.value),
        "reserve": RESERVE if gpu else 0,
    }
    room = _room(sum(fixed.values()), gpu) if gpu else 0
    packed = _packing(spec, config, precision.value, longest, room, gpu)
    if packed.value:
        checkpointing = Setting(False, "the rows are as long as memory allows without it")
        micro = Setting(spec.batch_size, "a whole step, in packed rows")
        tokens = min(packed.value, spec.batch_size * longest)
        working = {
            "activations": tokens * packing.token_bytes(config),
            "logits": packing.logits_bytes(config, tokens),
        }
    else:
        a_row = longest * memory.token_bytes(config, checkpointed=bool(checkpointing.value))
        micro = _micro_batch(spec, config, a_row, room, gpu)
        # Unsloth computes the loss in chunks; they are in the constants.
        working = {"activations": micro.value * a_row, "logits": 0}
    steps = spec.batch_size // micro.value
    return Plan(
        precision=precision,
        micro_batch_size=micro,
        gradient_accumulation=Setting(steps, f"{spec.batch_size} sequences per optimizer step"),
        gradient_checkpointing=checkpointing,
        optimizer=optimizer,
        packing=packed,
        merge=_merge(config),
        estimates=fixed | working | {"results": space.results(spec, config, weight_bytes)},
    )


def with_smaller_batch(plan: Plan) -> Plan | None:
    """The same plan with rows half as long, or half the micro-batch or less.

    None when the micro-batch is one sequence already.
    """
    if limit := plan.packing.value:
        shorter = Setting(limit // 2, f"rows of {limit} tokens did not fit the GPU's memory")
        return replace(plan, packing=shorter, estimates=_less(plan, (limit // 2) / limit))
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
        estimates=_less(plan, size / micro),
    )


def _less(plan: Plan, share: float) -> dict[str, int]:
    """The plan's estimates when only this share of the tokens is worked on at a time."""
    return plan.estimates | {"activations": int(plan.estimates["activations"] * share)}


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


def _checkpointing(spec: JobSpec, gpu: Gpu | None) -> Setting:
    asked = spec.gradient_checkpointing
    if asked != "auto":
        return Setting({"true": True, "false": False}.get(str(asked).lower(), asked), "as asked")
    if gpu is None:
        return Setting(False, "memory is plentiful and time is not, on a CPU")
    return Setting("unsloth", "activations are kept in host memory, so longer batches fit")


def _room(fixed: int, gpu: Gpu) -> int:
    """Bytes for activations beside the rest. Another process may hold a part of the card."""
    return min(int(0.95 * gpu.memory), gpu.free) - fixed


def _packing(
    spec: JobSpec,
    config: Mapping[str, Any],
    precision: str,
    longest: int,
    room: int,
    gpu: Gpu | None,
) -> Setting:
    """Packed where it can be; `auto` leaves alone what the user set for unpacked rows."""
    if spec.packing == "false":
        return Setting(False, "as asked")
    capability = gpu.capability if gpu else None
    reason = packing.obstacle(spec, config, storage_format(config), precision, capability)
    limit = 0
    if gpu is not None and reason is None:
        limit = max(room, 0) // packing.token_bytes(config)
        if limit < longest:
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


def _micro_batch(
    spec: JobSpec, config: Mapping[str, Any], a_row: int, room: int, gpu: Gpu | None
) -> Setting:
    """As many rows, `a_row` bytes each, as the room holds."""
    if spec.micro_batch_size != "auto":
        asked = int(spec.micro_batch_size)
        lacking = asked * a_row - room if gpu else 0
        reason = "as asked"
        if lacking > 0:
            reason += f"; by the estimate, {lacking / GIB:.1f} GiB more than there is"
        return Setting(asked, reason)
    if gpu is None:
        reason = "on a CPU more is not faster, and one row needs no padding"
        return Setting(CPU_MICRO_BATCH, reason)
    wanted = room // a_row
    if wanted < 1:
        needed = min(int(0.95 * gpu.memory), gpu.free) - room + a_row
        smaller = "set JOB_PRECISION=4bit"
        if storage_format(config) == "mxfp4":
            smaller = "take a 4-bit (bitsandbytes) repository of the model with JOB_SAVE=lora"
        raise Unavailable(
            f"The {gpu.name} has {gpu.memory / GIB:.0f} GiB, {gpu.free / GIB:.0f} of them free;"
            f" this job needs about {needed / GIB:.0f} GiB. Lower JOB_MAX_SEQ_LENGTH, {smaller}, "
            "or take a larger card."
        )
    fits = [n for n in range(1, spec.batch_size + 1) if spec.batch_size % n == 0 and n <= wanted]
    return Setting(fits[-1], f"{room / GIB:.1f} GiB are left for rows on the {gpu.name}")


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

"""Rows through Unsloth's own forward pass: packed or padded, and how many at once. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from job import memory
from job.errors import SpecError
from job.memory import GIB
from job.settings import Gpu, Setting, room_beside, too_small
from job.spec import JobSpec

CPU_MICRO_BATCH = 1

# Tokens of the longest row below which Unsloth 2026.10.7 keeps the layers' inputs on the card after
# all (unsloth/models/_utils.py, smart_gradient_checkpointing).
OFFLOADED_FROM = 512


def rows_by_library(
    spec: JobSpec,
    config: Mapping[str, Any],
    weight_bytes: int,
    longest: int,
    precision: str,
    fixed: Mapping[str, int],
    packed: Setting,
    gpu: Gpu | None,
) -> tuple[dict[str, int], dict[str, Setting]]:
    """Parts of the memory and settings, when Unsloth's forward pass takes the rows.

    Args:
        fixed: parts of the memory that are decided already.
        packed: whether it may pack them.
    """
    checkpointing = _checkpointing(spec, gpu)
    weights = memory.loaded_bytes(config, weight_bytes, precision, on_cpu=gpu is None)
    room = room_beside(weights + sum(fixed.values()), gpu) if gpu else 0
    again = checkpointing.value
    if again == "unsloth" and spec.max_seq_length < OFFLOADED_FROM:
        again = True
    a_token = memory.token_bytes(config, again, packed=bool(packed.value))
    limit = room // a_token if packed.value else 0
    if packed.value and limit < longest:
        packed = Setting(False, f"{room / GIB:.1f} GiB hold no row of {longest} tokens")
        a_token = memory.token_bytes(config, again)
    if spec.packing == "true" and not packed.value:
        raise SpecError(f"JOB_PACKING=true: {packed.reason}; allowed here: auto, false.")
    if packed.value and gpu is not None:
        there = f"{room / GIB:.1f} GiB are left for rows on the {gpu.name}"
        packed = Setting(limit, f"{packed.reason}; {there}")
        micro = Setting(spec.batch_size, "a whole step, in packed rows")
        tokens = min(limit, spec.batch_size * longest)
    else:
        micro = _micro_batch(spec, config, longest * a_token, room, gpu)
        tokens = micro.value * longest
    steps, library = spec.batch_size // micro.value, Setting(None, "Unsloth's own")
    # Unsloth computes the loss in chunks; they are in the constants.
    return {"weights": weights, "activations": tokens * a_token, "logits": 0}, {
        "packing": packed,
        "micro_batch_size": micro,
        "gradient_accumulation": Setting(steps, f"{spec.batch_size} sequences per optimizer step"),
        "gradient_checkpointing": checkpointing,
        "experts": library,
        "expert_products": library,
    }


def _checkpointing(spec: JobSpec, gpu: Gpu | None) -> Setting:
    asked = spec.gradient_checkpointing
    if asked != "auto":
        return Setting({"true": True, "false": False}.get(str(asked).lower(), asked), "as asked")
    if gpu is None:
        return Setting(False, "memory is plentiful and time is not, on a CPU")
    return Setting("unsloth", "activations are kept in host memory, so longer batches fit")


def _micro_batch(
    spec: JobSpec, config: Mapping[str, Any], a_row: int, room: int, gpu: Gpu | None
) -> Setting:
    """As many rows, `a_row` bytes each, as the room holds; as many as asked if it holds one."""
    wanted = room // a_row
    if gpu is not None and wanted < 1:
        raise too_small(config, gpu, min(int(0.95 * gpu.memory), gpu.free) - room + a_row)
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
    fits = [n for n in range(1, spec.batch_size + 1) if spec.batch_size % n == 0 and n <= wanted]
    return Setting(fits[-1], f"{room / GIB:.1f} GiB are left for rows on the {gpu.name}")

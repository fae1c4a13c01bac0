"""A setting with its reason, and the card that it is decided for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from job.errors import Unavailable
from job.memory import GIB, storage_format


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


def room_beside(fixed: int, gpu: Gpu) -> int:
    """Bytes for activations beside the rest. Another process may hold a part of the card."""
    return min(int(0.95 * gpu.memory), gpu.free) - fixed


def too_small(config: Mapping[str, Any], gpu: Gpu, needed: int) -> Unavailable:
    """The error for a card that lacks memory: what there is, what is needed, the ways out."""
    smaller = "set JOB_PRECISION=4bit"
    if storage_format(config) == "mxfp4":
        smaller = "take a 4-bit (bitsandbytes) repository of the model with JOB_SAVE=lora"
    return Unavailable(
        f"The {gpu.name} has {gpu.memory / GIB:.0f} GiB, {gpu.free / GIB:.0f} of them free;"
        f" this job needs about {needed / GIB:.0f} GiB. Lower JOB_MAX_SEQ_LENGTH, {smaller}, "
        "or take a larger card."
    )

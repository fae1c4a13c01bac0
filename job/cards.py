"""The cards that are for hire, and what a job would get on each. Pure.

Memory is what nvidia-smi reports as total, in MiB, on a card of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from job.errors import JobError
from job.memory import GIB, on_card
from job.plan import Plan, make_plan
from job.settings import Gpu
from job.spec import JobSpec

MIB = 2**20
IN_USE = 500 * MIB  # by the driver, on a card where nothing else runs

CARDS = tuple(
    Gpu(name, mib * MIB, mib * MIB - IN_USE, capability, driver="570.133.20")
    for name, mib, capability in (
        ("Tesla T4", 15360, (7, 5)),
        ("NVIDIA L4", 23034, (8, 9)),
        ("NVIDIA GeForce RTX 4090", 24564, (8, 9)),
        ("NVIDIA GeForce RTX 5090", 32607, (12, 0)),
        ("NVIDIA A100-SXM4-40GB", 40960, (8, 0)),
        ("NVIDIA L40S", 46068, (8, 9)),
        ("NVIDIA A100-SXM4-80GB", 81920, (8, 0)),
        ("NVIDIA H100 80GB HBM3", 81559, (9, 0)),
        ("NVIDIA H200", 143771, (9, 0)),
        ("NVIDIA B200", 183359, (10, 0)),
    )
)


class Measured(NamedTuple):
    """A speed, and of what: a shape, as the plan had it trained on a card of this name."""

    model: str  # model_type
    layers: int
    hidden: int
    precision: str
    packed: bool
    experts: str | None
    card: str
    speed: int  # real tokens a second


# docs/performance.md and docs/benchmarks.md. The last one had gpt-oss's vocabulary.
MEASURED = (
    Measured("gpt_oss", 24, 2880, "native", True, "16bit", "H100", 24_921),
    Measured("gpt_oss", 24, 2880, "native", True, "mxfp4", "H100", 14_769),
    Measured("gpt_oss", 24, 2880, "native", False, None, "H100", 1_892),
    Measured("gpt_oss", 36, 2880, "native", True, "mxfp4", "H100", 6_423),
    Measured("llama", 32, 4096, "16bit", True, None, "H100", 7_983),
)


def fits(
    spec: JobSpec, config: Mapping[str, Any], weight_bytes: int, longest: int | None = None
) -> list[tuple[str, str]]:
    """Each card's name, and in a sentence what the job would get there or why it does not fit.

    Args:
        longest: tokens of the longest row; `max_seq_length` while the data are not known.
    """
    on_cpu = spec.model_copy(update={"device": "cpu"})
    on_gpu = spec.model_copy(update={"device": "cuda"})
    return [
        ("CPU", _said(on_cpu, config, weight_bytes, None, longest)),
        *((gpu.name, _said(on_gpu, config, weight_bytes, gpu, longest)) for gpu in CARDS),
    ]


def training_seconds(
    plan: Plan, config: Mapping[str, Any], gpu: Gpu | None, tokens: int
) -> float | None:
    """Seconds to train so many tokens, from a speed measured on such a card; None without one.

    Loading, saving and the first steps' compilation come on top.
    """
    shape = tuple(config.get(name) for name in ("model_type", "num_hidden_layers", "hidden_size"))
    done = plan.precision.value, bool(plan.packing.value), plan.experts.value
    for known in MEASURED:
        if gpu is not None and known.card in gpu.name and known[:6] == (*shape, *done):
            return tokens / known.speed
    return None


def _said(
    spec: JobSpec,
    config: Mapping[str, Any],
    weight_bytes: int,
    gpu: Gpu | None,
    longest: int | None,
) -> str:
    try:
        plan = make_plan(spec, config, weight_bytes, gpu, longest)
    except JobError as error:
        first = error.message.split(". ")[0].removesuffix(".")
        return "no: " + first.split("free; ")[-1]  # the card's size is known here
    rows = f"micro-batch {plan.micro_batch_size.value}"
    if plan.packing.value:
        rows = f"packed rows of {plan.packing.value:,} tokens"
    total = f" of {gpu.memory / GIB:.0f}" if gpu else ""
    return f"{plan.precision.value}, {rows}, {on_card(plan.estimates) / GIB:.1f} GiB{total}"

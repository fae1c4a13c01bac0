"""The cards that are for hire, and what a job would get on each. Pure.

Memory is what nvidia-smi reports as total, in MiB, on a card of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

# Real tokens a second, measured (docs/performance.md, docs/benchmarks.md): model type and layers,
# word of the card's name, packed or not. Llama-3-8B's shape with gpt-oss's vocabulary.
MEASURED = {
    ("gpt_oss", 24, "H100", True): 24_921,
    ("gpt_oss", 24, "H100", False): 1_892,
    ("gpt_oss", 36, "H100", True): 6_423,
    ("llama", 32, "H100", True): 7_983,
}


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
    shape = config.get("model_type"), config.get("num_hidden_layers")
    for (model, layers, card, packed), speed in MEASURED.items():
        same = gpu is not None and card in gpu.name and packed == bool(plan.packing.value)
        if same and shape == (model, layers):
            return tokens / speed
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

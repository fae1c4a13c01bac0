"""Before packed training: whether this GPU computes what the fast paths are trusted with.

A driver, a card or a library that is none of those measured may be wrong without a word: torch
2.8's grouped weight gradient is (pytorch #152668). What fails is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from job.errors import InternalError
from job.spec import JobSpec

TOLERANCE = 0.01  # relative; bfloat16 itself makes less than half of it


def packs(
    plan: dict[str, Any], spec: JobSpec, model: Any, rows: Any, warn: Callable[[str], None]
) -> dict[str, Any]:
    """The plan, with padded rows where the loaded model lets packed documents see each other.

    Args:
        plan: the bare values of `job.plan.Plan`, of training packed by the library.
        rows: as trained; the first is tried.
    """
    from job.train.packed_library import TOLERANCE, PackedLibrary, autocast, packing_error

    packed = PackedLibrary(model, autocast(spec))
    error = packing_error(packed, rows[0]["input_ids"])
    if error < TOLERANCE:
        return plan
    warn(
        f"Packed rows are wrong with this model (a document's loss differs by {error:.1%} beside "
        "another): rows are padded instead, one at a time, which is right and slower."
    )
    padded = {"packing": False, "micro_batch_size": 1, "gradient_accumulation": spec.batch_size}
    return plan | padded


def checked(plan: dict[str, Any], warn: Callable[[str], None]) -> dict[str, Any]:
    """The plan, with one product an expert where the grouped product is wrong here.

    Args:
        plan: the bare values of `job.plan.Plan`, of packed training.
        warn: told, in a sentence, when the plan is changed.

    Raises:
        InternalError: attention or dequantisation is wrong on this GPU.
    """
    from job.train import attention, experts, mxfp4

    otherwise = "nothing was trained. JOB_PACKING=false trains without it."
    if not (error := attention.probe()) < TOLERANCE:
        raise InternalError(
            f"Packed attention is wrong on this GPU (relative error {error:.3g}); {otherwise}"
        )
    if plan["experts"] == "mxfp4" and not mxfp4.probe():
        raise InternalError(f"MXFP4 is dequantised wrongly on this GPU; {otherwise}")
    if plan["expert_products"] == "grouped" and not (error := experts.probe()) < TOLERANCE:
        warn(
            f"The grouped product is wrong on this GPU (relative error {error:.3g}): one product "
            "an expert is used instead, which is right and slower."
        )
        return plan | {"expert_products": "loop"}
    return plan

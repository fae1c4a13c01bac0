"""The same plan with less at a time, for after the card's memory ran out. Pure."""

from __future__ import annotations

from dataclasses import replace

from job.plan import Plan
from job.settings import Setting


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

"""What a person should know of the data before the GPU is paid for, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from job.spec import JobSpec

Figures = dict[str, Any]

ENOUGH_REASONING = 0.75
"""Share of reasoning rows that keeps a model's ability to reason, as Unsloth advises."""

FEW_DUPLICATES = 0.01


def warnings(figures: Figures, spec: JobSpec, *, reasons: bool) -> list[str]:
    """Sentences, the gravest first; none where there is nothing to say.

    Args:
        figures: the audit.
        reasons: whether the base model writes reasoning before it answers.
    """
    return [
        *_reasoning(figures, spec, reasons=reasons),
        *_stops(figures),
        *_mix(figures),
        *_repeats(figures, spec),
        *_sameness(figures),
    ]


def _reasoning(figures: Figures, spec: JobSpec, *, reasons: bool) -> Iterator[str]:
    thought = figures["kinds"]["reasoning"]
    share = thought["rows"] / figures["train"]["rows"]
    asked_enough = (thought["asked"] or 0) >= ENOUGH_REASONING  # and is met within a row or two
    if share < ENOUGH_REASONING and not asked_enough and (thought["rows"] or reasons):
        there = (
            f"JOB_REASONING_SHARE={ENOUGH_REASONING} mixes so"
            if thought["available"]
            else "there are none here to mix in"
        )
        yield (
            f"{_percent(share)} of the rows hold reasoning. Less than {_percent(ENOUGH_REASONING)} "
            f"may cost the model its ability to reason; {there}."
        )
    if spec.train_on == "final" and thought["rows"]:
        yield (
            f"JOB_TRAIN_ON=final does not train the reasoning of {_rows(thought['rows'])}; "
            "JOB_TRAIN_ON=assistant does."
        )
    if (count := figures["dropped_thinking"]) and not spec.expand_turns:
        yield (
            f"The chat template leaves out the reasoning of {count:,} earlier turns, which is not "
            "trained. JOB_EXPAND_TURNS=true makes a training row of each turn, with its reasoning."
        )


def _stops(figures: Figures) -> Iterator[str]:
    if count := figures["unstopped"]:
        yield (
            f"JOB_OVERLENGTH=truncate cut {count:,} answers before their end; they do not teach "
            "the model to stop. A larger JOB_MAX_SEQ_LENGTH or JOB_OVERLENGTH=drop would not."
        )
    if count := figures["without_stop_token"]:
        yield f"{_rows(count)} without a trained stop token: nothing tells the model to stop there."


def _mix(figures: Figures) -> Iterator[str]:
    used, there = figures["train"]["rows"], figures["available"]["rows"]
    if used < there / 2:
        yield (
            f"The mix that was asked for leaves out {there - used:,} of {there:,} rows in an epoch "
            "(a longer run draws on them). More rows of the kind or source that is scarce, or "
            "other shares, would use more."
        )
    for source in figures["sources"]:
        if source["available"] and not source["rows"]:
            yield (
                f"{source['source']}: its share is too small for a single row in an epoch of "
                f"{used:,}, so none of its {_rows(source['available'])} is trained."
            )


def _repeats(figures: Figures, spec: JobSpec) -> Iterator[str]:
    times, run = figures["run"]["times"], figures["run"]["rows"]
    if spec.max_steps is not None and times > 1:
        epochs = run / figures["train"]["rows"]
        yield (
            f"JOB_MAX_STEPS={spec.max_steps} needs {_rows(run)}, which is {epochs:.3g} epochs: "
            f"some rows are trained {times} times."
        )


def _sameness(figures: Figures) -> Iterator[str]:
    exact, near = figures["duplicates"], figures["near_duplicates"]
    rows = figures["available"]["rows"]
    if exact + near > FEW_DUPLICATES * rows:
        alike = f" ({near:,} of them but for case and spaces)" if near else ""
        yield (
            f"{_percent((exact + near) / rows)} of the rows say the same as another one{alike}. "
            "They weigh more in training than those that come once."
        )
    if remaining := sum(figures["leakage"]["remaining"].values()):
        yield f"{_rows(remaining)} are trained and evaluated as well; the held-out loss flatters."


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 10 or percent.is_integer() else f"{percent:.1f} %"

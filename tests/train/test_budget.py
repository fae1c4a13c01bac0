"""A real training that is shortened: its rows, its learning rate, its end."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from job import checkpoints
from job.budget import MEASURED, SKIPPED, Meter, warped
from job.errors import SpecError, Stopped
from tests.train.tiny import Listener, same_weights, training

STEPS = 24
CALIBRATED = SKIPPED + MEASURED
OFTEN = 1e-7  # minutes: a checkpoint after every step


class Ticking:
    """A clock on which every step takes a second."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def __call__(self) -> float:
        return float(sum(event["event"] == "step" for event in self.listener.events))


def meter(listener: Listener, *, limit: float, shorten: bool) -> Meter:
    request: dict[str, Any] = {"limit": limit, "used": 0.0, "closing": 0.0, "shorten": shorten}
    request |= {"usd_per_hour": None, "raise": "JOB_MAX_HOURS"}
    return Meter(request, STEPS, listener, Ticking(listener))


def rates(listener: Listener) -> list[float]:
    return [event["learning_rate"] for event in listener.events if event["event"] == "step"]


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant"])
def test_a_shortened_training_ends_with_its_schedule(tmp_path, scheduler):
    keys = {"max_steps": STEPS, "scheduler": scheduler, "checkpoint_minutes": OFTEN}
    keys["warmup_steps"] = 0
    whole, short = Listener(), Listener()
    training(tmp_path / "whole", whole, **keys)
    kept = meter(short, limit=14.0, shorten=True)
    result = training(tmp_path / "short", short, meter=kept, **keys)
    assert (result["steps"], result["planned_steps"]) == (14, STEPS)
    assert kept.warps == [(CALIBRATED, STEPS, 14)]
    assert short.losses()[:CALIBRATED] == whole.losses()[:CALIBRATED]
    full, found = rates(whole), rates(short)
    assert len(found) == 14
    assert found[: CALIBRATED + 1] == full[: CALIBRATED + 1]
    assert all(after <= before for before, after in itertools.pairwise(found))
    if scheduler != "constant":  # as close to nothing as a schedule of so few steps comes
        assert found[-1] <= full[int(warped(13, kept.warps))] < full[CALIBRATED] / 4


def test_a_resume_of_a_shortened_training_is_exact(tmp_path):
    keys = {"max_steps": STEPS, "scheduler": "cosine", "checkpoint_minutes": OFTEN}
    once = Listener()
    undisturbed = training(
        tmp_path / "once", once, meter=meter(once, limit=14.0, shorten=True), **keys
    )

    def die(kind: str, fields: dict[str, Any]) -> None:
        if kind == "step" and fields["step"] == 11:
            raise InterruptedError

    first = Listener(die)
    with pytest.raises(InterruptedError):
        training(tmp_path / "run", first, meter=meter(first, limit=14.0, shorten=True), **keys)
    newest = checkpoints.names(tmp_path / "run/checkpoints")[-1]
    second = Listener()
    roomy = meter(second, limit=1000.0, shorten=False)
    resumed = training(
        tmp_path / "run", second, resume=tmp_path / "run/checkpoints" / newest, meter=roomy, **keys
    )
    assert resumed["steps"] == 14
    assert second.losses() == once.losses()[10:]
    assert rates(second) == rates(once)[10:]
    assert same_weights(resumed, undisturbed)


def test_a_training_that_will_not_fit_is_kept_and_refused(tmp_path):
    listener = Listener()
    with pytest.raises(SpecError, match="JOB_MAX_HOURS"):
        training(
            tmp_path, listener, meter=meter(listener, limit=14.0, shorten=False), max_steps=STEPS
        )
    assert checkpoints.names(tmp_path / "checkpoints")[-1] == checkpoints.name_of(CALIBRATED)


def test_a_training_whose_time_is_over_stops_with_a_checkpoint(tmp_path):
    def slow(kind: str, fields: dict[str, Any]) -> None:
        if kind == "step" and fields["step"] > CALIBRATED:
            listener.events += [{"event": "step", "loss": 0.0, "learning_rate": 0.0}] * 4

    listener = Listener(slow)
    with pytest.raises(Stopped, match="which is kept"):
        training(
            tmp_path, listener, meter=meter(listener, limit=30.0, shorten=False), max_steps=STEPS
        )
    name = checkpoints.names(tmp_path / "checkpoints")[-1]
    assert CALIBRATED < checkpoints.step_of(name) < STEPS

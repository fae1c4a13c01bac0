"""The arithmetic of time and money, on a clock that the test moves."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job import budget
from job.budget import MEASURED, SKIPPED, Meter, warped
from job.errors import SpecError
from job.spec import JobSpec, read_spec


def spec(**keys: str) -> JobSpec:
    given = {"JOB_MODEL": "org/name", "JOB_DATASET": "/d", "JOB_OUTPUT": "file:///out"}
    return read_spec(given | {f"JOB_{key.upper()}": value for key, value in keys.items()})


class Training:
    """Steps of so many seconds each, told to a meter."""

    def __init__(self, planned: int, **request: Any) -> None:
        self.now, self.step = 1000.0, 0
        self.events: list[dict[str, Any]] = []
        known = {"limit": None, "used": 0.0, "closing": 0.0, "shorten": False}
        known |= {"usd_per_hour": None, "raise": "JOB_MAX_HOURS"}
        self.meter = Meter(known | request, planned, self, lambda: self.now)

    def emit(self, kind: str, **fields: Any) -> None:
        self.events.append({"event": kind, **fields})

    def begin(self, loading: float = 0, evaluating: float = 0) -> None:
        self.now += loading
        self.meter.loaded()
        self.now += evaluating
        self.meter.start()

    def run(self, *seconds: float) -> None:
        for taken in seconds:
            self.now += taken
            self.step += 1
            self.meter.stepped(self.step)

    def to_the_end(self, seconds: float) -> None:
        while self.step < self.meter.steps and not self.meter.ended:
            self.run(seconds)

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]


def test_the_smaller_of_time_and_money_counts():
    assert budget.limit_of(spec()) is None
    assert budget.limit_of(spec(max_hours="2")) == 7200
    priced = {"max_cost_usd": "3", "gpu_usd_per_hour": "2"}
    assert budget.limit_of(spec(**priced)) == 5400
    assert budget.limit_of(spec(**priced, max_hours="1")) == 3600
    assert budget.limit_of(spec(gpu_usd_per_hour="2")) is None


def test_the_forecast_leaves_out_the_first_steps_and_counts_what_went_before():
    run = Training(100, limit=10_000.0, used=50.0, closing=20.0, usd_per_hour=3.6)
    run.begin(loading=10, evaluating=7)
    run.run(*[90.0] * SKIPPED, *[2.0] * MEASURED)
    (told,) = run.said("budget")
    steps = SKIPPED + MEASURED
    reserve = budget.MARGIN * (budget.LOADS * 10 + 20) + 7
    whole = 50 + 17 + 90 * SKIPPED + 2 * MEASURED + 2 * (100 - steps) + reserve
    assert told["seconds_per_step"] == 2
    assert told["reserve_seconds"] == reserve
    assert told["whole_seconds"] == whole
    assert told["cost_usd"] == pytest.approx(whole * 0.001)
    assert told["fits"] is True
    assert (told["step"], told["of"]) == (steps, 100)


def test_a_price_alone_tells_the_cost_and_ends_nothing():
    run = Training(50, usd_per_hour=2.0)
    run.begin()
    run.to_the_end(100)
    assert run.step == 50
    assert run.said("budget")[0]["cost_usd"] > 0


def test_a_job_that_will_not_fit_is_refused_after_the_calibration_with_the_ways_out():
    run = Training(100, limit=60.0)
    run.begin()
    with pytest.raises(SpecError) as caught:
        run.to_the_end(1)
    assert run.step == SKIPPED + MEASURED
    for words in ("100 s", "60 s", "JOB_MAX_HOURS", "JOB_MAX_STEPS=60", "JOB_BUDGET_POLICY"):
        assert words in caught.value.message


def test_a_budget_without_room_for_a_single_step_is_refused_however_asked():
    run = Training(100, limit=30.0, closing=30.0, shorten=True)
    run.begin()
    with pytest.raises(SpecError, match="a faster GPU"):
        run.to_the_end(1)


def test_a_shortened_job_ends_within_its_budget_with_time_for_what_follows():
    run = Training(100, limit=60.0, closing=10.0, shorten=True)
    run.begin()
    run.to_the_end(1)
    assert run.step == run.meter.steps == 45
    assert not run.meter.ended
    assert run.meter.used() + budget.MARGIN * 10 <= 60
    assert "from 100 to 45 steps" in run.said("warning")[0]["message"]


def test_steps_that_become_slower_end_the_training_before_the_reserve_is_touched():
    run = Training(40, limit=60.0, closing=10.0)
    run.begin()
    run.run(*[1.0] * 20)
    run.to_the_end(3)
    assert run.meter.ended
    assert run.step < 40
    assert run.meter.used() + budget.MARGIN * 10 <= 60
    assert "JOB_MAX_HOURS" in run.meter.stop(run.step).message
    assert run.meter.facts()["ended"] == 60


def test_a_job_that_may_be_shortened_is_shortened_again_when_steps_become_slower():
    run = Training(100, limit=60.0, closing=10.0, shorten=True)
    run.begin()
    run.run(*[1.0] * 20)
    run.to_the_end(1.3)
    assert not run.meter.ended
    assert 20 < run.step == run.meter.steps < 45
    assert run.meter.used() + budget.MARGIN * 10 <= 60
    shortened = run.said("warning")
    assert "Steps take longer than before. Shortened from 45 to" in shortened[1]["message"]
    assert len(shortened) < 8


def test_no_step_is_given_up_for_a_budget_that_is_enough():
    run = Training(30, limit=1000.0)
    run.begin()
    run.to_the_end(1)
    assert run.step == 30
    assert run.said("warning") == []


def test_a_spent_budget_is_refused_at_the_start_until_it_is_raised():
    job = spec(max_hours="1")
    budget.require_left(job, 3599)
    with pytest.raises(SpecError, match="Raise JOB_MAX_HOURS"):
        budget.require_left(job, 3600)
    with pytest.raises(SpecError, match="spent"):
        budget.require_left(job, 3000, ended=3600)
    budget.require_left(spec(max_hours="2"), 3600, ended=3600)


def test_a_shortened_plan_survives_a_resume():
    run = Training(100, limit=60.0, shorten=True)
    run.begin()
    run.run(*[1.0] * 10)
    again = Training(100, limit=600.0)
    again.meter.resume(run.meter.facts())
    assert again.meter.steps == run.meter.steps == 60
    assert again.meter.warps == run.meter.warps


def linear(step: float, whole: int) -> float:
    return max(0.0, (whole - step) / whole)


def cosine(step: float, whole: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(step, whole) / whole))


@given(
    whole=st.integers(10, 2000),
    data=st.data(),
    shape=st.sampled_from([linear, cosine]),
)
def test_a_shortened_schedule_never_jumps_up_and_ends_where_it_would_have(whole, data, shape):
    at = data.draw(st.integers(1, whole - 2))
    after = data.draw(st.integers(at + 1, whole - 1))
    warps = [(at, whole, after)]
    rates = [shape(warped(step, warps), whole) for step in range(after + 1)]
    assert rates[: at + 1] == [shape(step, whole) for step in range(at + 1)]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(rates))
    assert rates[-1] == pytest.approx(shape(whole, whole), abs=1e-9)


def test_a_schedule_may_be_shortened_twice():
    warps = [(10, 100, 55), (20, 55, 30)]
    assert warped(10, warps) == 10
    assert warped(20, warps) == 30  # two steps of the first schedule for one
    assert warped(30, warps) == 100


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"max_cost_usd": "1"}, ("JOB_MAX_COST_USD", "JOB_GPU_USD_PER_HOUR")),
        ({"budget_policy": "shorten"}, ("JOB_BUDGET_POLICY", "JOB_MAX_HOURS")),
    ],
)
def test_a_budget_that_says_nothing_is_refused(keys, named):
    with pytest.raises(SpecError) as caught:
        spec(**keys)
    assert all(name in str(caught.value) for name in named)

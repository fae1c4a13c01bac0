"""SIGKILL, at every file boundary and at random moments: nothing is lost, nothing false is left."""

from __future__ import annotations

import random
import signal
import subprocess

import pytest

from job.checkpoints import names, step_of
from tests.drills.conftest import STEPS
from tests.jobs import wait


@pytest.mark.parametrize("step", [1, 5, STEPS])
def test_a_trainer_killed_while_it_trains_goes_on_from_its_checkpoint(drill, step):
    run = drill()
    run.order(dies_at=step)
    assert run.run().code == 71
    run.is_done(run.run())
    resumed = [event["step"] for event in run.said("resumed")]
    assert resumed == ([step - 1] if step > 1 else [])  # it died before this step was kept


def _trainer_killed(drill, boundary: int) -> bool:
    """A fresh run whose trainer is killed before this change; whether it came that far."""
    run = drill()
    run.order(kill_before=boundary)
    ended = run.run()
    if ended.code == 0:
        return False
    assert ended.code == 71, ended.text
    kept = names(run.run_folder / "checkpoints")
    trained = (run.run_folder / "stages.json").exists()
    run.is_done(run.run())
    resumed = [event["step"] for event in run.said("resumed")]
    assert resumed == ([] if trained else [step_of(name) for name in kept[-1:]])
    run.forget()
    return True


def test_a_trainer_killed_in_the_midst_of_a_checkpoint_goes_on_from_the_one_before(drill):
    """A sample; a checkpoint of the toy makes ten changes."""
    for boundary in (3, 9, 16):
        assert _trainer_killed(drill, boundary)


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_a_trainer_killed_at_every_file_boundary_goes_on(drill):
    boundary = 1
    while _trainer_killed(drill, boundary):
        boundary += 1
    assert boundary > 100  # twelve checkpoints, the adapter, the merged weights


def test_a_run_killed_at_any_file_boundary_is_finished_by_its_next_start(drill):
    """A sample of the boundaries; `make drills` takes every one."""
    for boundary in (1, 3, 8, 21, 34, 55):
        _killed_once(drill, boundary)


@pytest.mark.drill
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(1, 9))
def test_a_run_killed_at_every_file_boundary_is_finished_by_its_next_start(drill, first):
    """In eight parts, each of every eighth boundary."""
    boundary = first
    while _killed_once(drill, boundary):
        boundary += 8
    assert boundary > 300


def _killed_once(drill, boundary: int) -> bool:
    """A fresh run, killed before this change, then started again; whether there was one."""
    run = drill(JOB_MAX_STEPS="3")  # with a checkpoint each: mirroring one makes 40 changes
    killed = run.killed_before(boundary)
    if killed:
        run.is_done(run.run())
    run.forget()
    return killed


def test_a_run_killed_at_every_start_still_gets_on(drill):
    """Each start comes a little further than the last one before it is killed."""
    run = drill(JOB_MAX_ATTEMPTS="100")
    boundary = 15
    while run.killed_before(boundary):
        boundary += 15
    assert boundary > 60
    run.is_done(run.run())


def _killed_at_random(drill, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311
    run = drill(JOB_MAX_ATTEMPTS="100")
    run.order(step_seconds=0.05, always=True)
    for starts in range(40):
        process = run.start()
        try:  # the later ones may live longer, so that a busy machine comes to an end, too
            process.wait(dice.uniform(0.3, 2.5 + starts / 2))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        ended = wait(process)
        if ended.code == 0:
            return run.is_done(ended)
        assert ended.code == -signal.SIGKILL, ended.text
    raise AssertionError("never finished")


def test_a_run_killed_at_random_moments_ends_with_the_weights_of_one_that_was_not(drill):
    _killed_at_random(drill, seed=1)


@pytest.mark.drill
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(50))
def test_fifty_runs_killed_at_random_moments_leave_fifty_receipts(drill, seed):
    _killed_at_random(drill, seed)

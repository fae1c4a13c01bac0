"""Budgets of time and money, kept by the real command line around a toy that sleeps its steps."""

from __future__ import annotations

import json

import pytest

from job.checkpoints import names
from job.credentials import read_credentials
from job.receipt import verify_uri
from tests.drills.conftest import sha256, trained_weights
from tests.drills.trainer import WEIGHTS

STEPS = 400
# The toy's load, save and upload take next to nothing, but a start takes seconds on a busy machine.
SLOW = {"step_seconds": 0.1, "always": True}


def budget(seconds: float) -> str:
    return str(seconds / 3600)


def published(run) -> dict:
    receipt, problems = verify_uri(f"file://{run.place}", read_credentials(run.environ))
    assert problems == []
    return receipt


def test_a_job_that_will_not_fit_is_refused_early_and_goes_on_once_the_budget_is_raised(drill):
    run = drill(JOB_MAX_STEPS=str(STEPS), JOB_MAX_HOURS=budget(38), JOB_GPU_USD_PER_HOUR="2")
    run.order(**SLOW)
    ended = run.run()
    assert ended.code == 78, ended.text
    assert ended.line["retryable"] is False
    assert "JOB_MAX_HOURS" in ended.line["message"]
    assert "JOB_BUDGET_POLICY=shorten" in ended.line["message"]
    (told,) = run.said("budget")
    assert told["fits"] is False
    assert told["cost_usd"] == pytest.approx(told["whole_seconds"] / 3600 * 2, abs=1e-4)
    assert run.said("step")[-1]["step"] == told["step"] == 7
    assert not (run.place / "receipt.json").exists()
    assert names(run.place / "checkpoints")[-1] == "step-000007"  # and mirrored
    run.order()
    run.environ["JOB_MAX_HOURS"] = budget(3600)
    run.is_done(run.run())
    assert run.said("resumed")[-1]["step"] == 7


def test_a_shortened_job_ends_in_time_and_publishes_a_model_that_says_so(drill):
    run = drill(
        JOB_MAX_STEPS=str(STEPS),
        JOB_MAX_COST_USD="1",
        JOB_GPU_USD_PER_HOUR=str(3600 / 30),
        JOB_BUDGET_POLICY="shorten",
    )
    run.order(**SLOW)
    ended = run.run()
    assert ended.code == 0, ended.text
    training = published(run)["training"]
    assert training["planned_steps"] == STEPS
    assert 7 < training["steps"] < STEPS
    assert any("Shortened from 400" in event["message"] for event in run.said("warning"))
    hashes = {file["path"]: file["sha256"] for file in published(run)["files"]}
    assert hashes[f"adapter/{WEIGHTS}"] == sha256(trained_weights(training["steps"]))


def test_a_shortened_job_that_is_killed_keeps_its_shortened_plan(drill):
    run = drill(JOB_MAX_STEPS=str(STEPS), JOB_MAX_HOURS=budget(38), JOB_BUDGET_POLICY="shorten")
    run.order(**SLOW, dies_at=9)
    assert run.run().code == 71
    shortened = run.said("step")[-1]["of"]
    assert shortened < STEPS
    run.order()
    run.environ["JOB_MAX_HOURS"] = budget(3600)
    ended = run.run()
    assert ended.code == 0, ended.text
    assert published(run)["training"]["steps"] == shortened


def test_a_budget_that_ends_all_the_same_leaves_a_checkpoint_and_is_not_begun_again(drill):
    run = drill(JOB_MAX_STEPS="40", JOB_MAX_HOURS=budget(30), JOB_CHECKPOINT_MINUTES="10")
    run.order(step_seconds=0.02, slow_from=12, slow_seconds=4, always=True)
    ended = run.run()
    assert ended.code == 75, ended.text
    done = run.said("step")[-1]["step"]
    assert 12 < done < 40
    assert names(run.place / "checkpoints")[-1] == f"step-{done:06d}"
    assert not (run.place / "receipt.json").exists()
    again = run.run()
    assert again.code == 78
    assert "is spent" in again.line["message"]
    run.moved()  # another machine learns it from the checkpoint
    elsewhere = run.run()
    assert elsewhere.code == 78
    assert len(run.said("ready")) == 0
    run.order()
    run.environ["JOB_MAX_HOURS"] = budget(3600)
    run.is_done(run.run())


def test_the_clock_counts_every_start(drill):
    run = drill(JOB_MAX_STEPS="40", JOB_MAX_HOURS=budget(3600))
    run.order(dies_at=5)
    assert run.run().code == 71
    first = json.loads((run.run_folder / "seconds.json").read_text())["seconds"]
    run.order(dies_at=9)
    assert run.run().code == 71
    assert json.loads((run.run_folder / "seconds.json").read_text())["seconds"] > first > 0

"""A training that goes on from a checkpoint is the training that was never interrupted."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from job.checkpoints import names, newest, read
from job.errors import Diverged, Stopped
from tests.train.tiny import RUN, Listener, same_weights, training

pytestmark = pytest.mark.timeout(120)

EVERY_STEP = 1e-9  # minutes


def sigterm_at(step: int) -> Listener:
    """Sends this process a SIGTERM when the step is reported."""

    def act(kind: str, fields: dict[str, Any]) -> None:
        if kind == "step" and fields["step"] == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return Listener(act)


# 30 rows in batches of 4: the 8th step of an epoch has 2 rows.
@pytest.mark.parametrize("step", [1, 5, 7, 8, 9, 13])
def test_losses_and_weights_after_a_stop_are_those_of_the_uninterrupted_run(
    step: int, tmp_path: Path
) -> None:
    whole = Listener()
    uninterrupted = training(tmp_path / "whole", whole, max_steps=14)
    before = sigterm_at(step)
    with pytest.raises(Stopped, match=f"after step {step} of 14"):
        training(tmp_path, before, max_steps=14)
    checkpoint = newest(tmp_path / "checkpoints", RUN["spec_hash"], print)
    assert checkpoint is not None
    assert checkpoint.step == step

    after = Listener()
    resumed = training(tmp_path, after, resume=checkpoint.folder, max_steps=14)

    assert before.losses() == whole.losses()[:step]
    assert after.losses() == whole.losses()[step:]
    assert same_weights(resumed, uninterrupted)
    for figure in ("steps", "epochs", "tokens", "loss_first", "loss_last"):
        assert resumed[figure] == uninterrupted[figure]
    (told,) = [event for event in after.events if event["event"] == "resumed"]
    assert [point["loss"] for point in told["history"]] == before.losses()
    assert told["evals"][0]["loss"] == whole.events[0]["loss"]


def test_a_training_of_many_starts_is_the_same_too(tmp_path: Path) -> None:
    whole = Listener()
    uninterrupted = training(tmp_path / "whole", whole, max_steps=10, scheduler="cosine")
    losses, resume = [], None
    for step in (2, 3, 6):
        part = sigterm_at(step)
        with pytest.raises(Stopped):
            training(tmp_path, part, resume=resume, max_steps=10, scheduler="cosine")
        losses += part.losses()
        resume = read(tmp_path / f"checkpoints/step-{step:06d}").folder
    part = Listener()
    last = training(tmp_path, part, resume=resume, max_steps=10, scheduler="cosine")
    assert losses + part.losses() == whole.losses()
    assert same_weights(last, uninterrupted)


def test_after_the_last_step_there_is_nothing_left_to_train(tmp_path: Path) -> None:
    """It is kept where held-out rows are evaluated next, which may take long."""
    uninterrupted = training(tmp_path, Listener(), max_steps=5)
    (name,) = names(tmp_path / "checkpoints")
    again = Listener()
    resumed = training(tmp_path, again, resume=tmp_path / "checkpoints" / name, max_steps=5)
    assert again.losses() == []
    assert same_weights(resumed, uninterrupted)
    assert resumed["tokens"] == uninterrupted["tokens"]
    assert resumed["steps"] == 5


def test_without_held_out_rows_the_last_step_is_not_kept_by_itself(tmp_path: Path) -> None:
    training(tmp_path, Listener(), max_steps=3, held_out=0)
    assert names(tmp_path / "checkpoints") == []


def test_checkpoints_follow_the_clock_and_not_the_steps(tmp_path: Path) -> None:
    often = Listener()
    training(tmp_path / "often", often, max_steps=4, held_out=0, checkpoint_minutes=EVERY_STEP)
    assert [e["step"] for e in often.events if e["event"] == "checkpoint"] == [1, 2, 3, 4]
    seldom = Listener()
    training(tmp_path / "seldom", seldom, max_steps=4, held_out=0, checkpoint_minutes=10)
    assert [e for e in seldom.events if e["event"] == "checkpoint"] == []
    assert often.losses() == seldom.losses()


def test_a_smaller_micro_batch_goes_on_from_the_same_checkpoint(tmp_path: Path) -> None:
    """As after an out-of-memory error; only the rounding of the sums differs."""
    whole, after = Listener(), Listener()
    training(tmp_path / "whole", whole, max_steps=10, lora_dropout=0)
    with pytest.raises(Stopped):
        training(tmp_path, sigterm_at(9), max_steps=10, lora_dropout=0)
    resume = tmp_path / "checkpoints/step-000009"
    training(tmp_path, after, resume=resume, micro_batch=1, max_steps=10, lora_dropout=0)
    assert after.losses() == pytest.approx(whole.losses()[9:], rel=1e-5)


def test_a_diverged_training_leaves_its_last_finite_checkpoint(tmp_path: Path) -> None:
    listener = Listener()
    with pytest.raises(Diverged):
        training(
            tmp_path,
            listener,
            max_steps=20,
            learning_rate=1e30,
            warmup_steps=0,
            checkpoint_minutes=EVERY_STEP,
        )
    kept = [event["step"] for event in listener.events if event["event"] == "checkpoint"]
    for name in names(tmp_path / "checkpoints"):
        assert read(tmp_path / "checkpoints" / name).step in kept
    assert len(listener.losses()) < 20

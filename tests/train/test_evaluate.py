"""Evaluation on held-out rows: when, and what is told of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from job.errors import Diverged
from job.train.evaluate import evaluate, steps_between, summary
from tests.train.tiny import Listener, training


def test_a_long_training_is_looked_at_in_each_quarter_if_that_costs_little() -> None:
    assert steps_between(60, 960, 48) == {15, 30, 45}
    assert steps_between(60, 960, 500) == set()
    assert steps_between(60, 960, 0) == set()
    assert steps_between(4, 64, 2) == set()


def test_the_best_evaluation_is_named() -> None:
    evals = [{"step": 0, "loss": 3.0}, {"step": 5, "loss": 1.0}, {"step": 10, "loss": 2.0}]
    found = summary(evals)
    assert (found["eval_loss_before"], found["eval_loss_after"], found["best_step"]) == (3, 2, 5)
    assert summary([])["eval_loss_after"] is None


def test_a_loss_that_is_none_ends_the_run() -> None:
    trainer: Any = SimpleNamespace(eval_dataset=[1], evaluate=lambda: {"eval_loss": float("nan")})
    with pytest.raises(Diverged, match="step 3"):
        evaluate(trainer, 3, Listener())  # type: ignore[arg-type]


def test_looking_between_changes_nothing_of_the_training(tmp_path: Path) -> None:
    seen, blind = Listener(), Listener()
    training(tmp_path / "seen", seen, max_steps=16, lora_dropout=0.1, held_out=3)
    training(tmp_path / "blind", blind, max_steps=16, lora_dropout=0.1, held_out=0)
    looks = [event for event in seen.events if event["event"] == "eval"]
    assert [event["step"] for event in looks] == [0, 4, 8, 12]
    assert len({event["loss"] for event in looks}) == 4
    assert seen.losses() == blind.losses()

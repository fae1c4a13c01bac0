"""Evaluation on held-out rows: when, and what is told of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trl

from job.errors import Diverged
from job.train import head
from job.train.evaluate import evaluate, steps_between, summary
from job.train.packed import packed_trainer
from tests.train.tiny import Listener, PlainLoss, make_trainer, spec, training


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


def plainly(model: Any, rows: Any) -> tuple[float, float]:
    """Mean of the rows' losses, and the share of all trained tokens that are right."""
    means, right, trained = [], 0, 0
    for row in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        wanted = torch.tensor(row["labels"][1:])
        logits, wanted = logits[wanted != -100], wanted[wanted != -100]
        means.append(float(torch.nn.functional.cross_entropy(logits, wanted)))
        right += int((logits.argmax(-1) == wanted).sum())
        trained += len(wanted)
    return sum(means) / len(means), right / trained


def packed_by_a_library(trainer: Any) -> Any:
    """A trainer of the same rows whose engine leaves evaluations to it."""
    names = ("model", "args", "train_dataset", "eval_dataset", "processing_class")
    options = {name: getattr(trainer, name) for name in names}
    return packed_trainer(64, lambda model: object(), trainer.data_collator, **options)


@pytest.mark.parametrize(("tokens_at_once", "packs"), [(4096, False), (5, False), (4096, True)])
def test_loss_and_accuracy_are_those_of_a_plain_computation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens_at_once: int, packs: bool
) -> None:
    monkeypatch.setattr(head, "CHUNK", tokens_at_once)
    monkeypatch.setattr(trl, "SFTTrainer", PlainLoss)
    trainer = make_trainer(spec(tmp_path), held_out=9)
    trainer = packed_by_a_library(trainer) if packs else trainer
    torch.nn.init.normal_(trainer.model.get_base_model().lm_head.weight, std=2.0)
    model = trainer.model.eval()
    rows = [dict(row) for row in trainer.eval_dataset]
    for row in rows:  # the start is a prompt, and every other token is the likeliest
        likeliest = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].argmax(-1).tolist()
        pairs = enumerate(zip(row["input_ids"], [0, *likeliest], strict=False))
        labels = [found if n % 2 else own for n, (own, found) in pairs]
        row["labels"] = [labels[0], -100, *labels[2:]]
    trainer.eval_dataset = trainer.eval_dataset.from_list(rows)
    loss, accuracy = plainly(model, rows)
    found = evaluate(trainer, 0, Listener())  # type: ignore[arg-type]
    assert found is not None
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["accuracy"] == accuracy
    assert 0.3 < accuracy < 0.7


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
    assert all(0 <= event["accuracy"] <= 1 for event in looks)
    assert seen.losses() == blind.losses()

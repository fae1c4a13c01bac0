"""The loss plot, looked at through the figure that is drawn."""

from __future__ import annotations

import math
from typing import Any

import pytest

from job.report.plots import eval_points, loss_plot, smoothed
from tests.report import sample


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every figure that is saved during the test."""
    from matplotlib.figure import Figure

    saved: list[Any] = []
    save = Figure.savefig

    def remember(figure: Any, *args: Any, **options: Any) -> None:
        saved.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    return saved


def labels(figure: Any) -> set[str]:
    return {text.get_text() for text in figure.axes[0].get_legend().get_texts()}


def test_every_axis_has_a_name_and_a_unit(figures: list[Any]) -> None:
    loss_plot(sample.done()["training"])
    losses, rates = figures[0].axes
    assert losses.get_ylabel() == "loss (nats per token)"
    assert rates.get_ylabel() == "learning rate\n(no unit)"
    assert rates.get_xlabel() == "optimizer step (count)"


def test_raw_smoothed_and_held_out_losses_are_drawn(figures: list[Any]) -> None:
    loss_plot(sample.done()["training"])
    assert labels(figures[0]) == {"training, a step", "training, smoothed", "held-out rows"}


def test_a_short_run_is_drawn_as_points(figures: list[Any]) -> None:
    training = {"history": sample.history(60)[:3], "steps": 3}
    assert loss_plot(training)
    assert labels(figures[0]) == {"training"}


@pytest.mark.parametrize("history", [[], None, [{"step": 1, "loss": None}]])
def test_without_a_step_there_is_no_plot(history: Any) -> None:
    assert loss_plot({"history": history}) is None


def test_losses_that_are_not_finite_are_left_out() -> None:
    history = [*sample.history(60)[:10], {"step": 11, "loss": math.nan, "learning_rate": 1e-4}]
    assert loss_plot({"history": history}) is not None


def test_held_out_losses_stand_before_the_first_and_at_the_last_step() -> None:
    assert eval_points(sample.done()["training"]) == [(0, 2.953), (60, 2.104)]


def test_the_smooth_curve_follows_a_slope_up_to_both_ends() -> None:
    line = [3.0 - 0.01 * step for step in range(60)]
    assert smoothed(line) == pytest.approx(line)


def test_the_same_run_gives_the_same_bytes() -> None:
    training = sample.done()["training"]
    assert loss_plot(training) == loss_plot(training)

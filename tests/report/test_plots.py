"""The loss plot, looked at through the figure that is drawn."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from job.report.plots import draw_plots, eval_points, smoothed
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
    draw_plots(sample.done()["training"])
    named = [[axes.get_title(loc="left") for axes in figure.axes] for figure in figures[::3]]
    assert named == [
        ["loss (nats per token)", "learning rate (× 10⁻⁴, no unit)"],
        ["throughput (tokens per second)", "memory, peak so far (GB)"],
    ]
    assert {figure.axes[-1].get_xlabel() for figure in figures} == {"optimizer step (count)"}


def test_raw_smoothed_and_held_out_losses_and_the_best_are_drawn(figures: list[Any]) -> None:
    draw_plots(sample.done()["training"])
    drawn = {"training, a step", "training, smoothed", "held-out rows", "best"}
    assert labels(figures[0]) == drawn


def test_a_short_run_is_drawn_as_points(figures: list[Any]) -> None:
    training = {"history": sample.history(60)[:3], "steps": 3}
    assert draw_plots(training)
    assert labels(figures[0]) == {"training"}


def test_a_resumed_run_shows_where(figures: list[Any]) -> None:
    draw_plots(sample.resumed()["training"])
    said = [text.get_text() for text in figures[0].axes[0].texts]
    assert said == ["resumed after step 22"]


@pytest.mark.parametrize("history", [[], None, [{"step": 1, "loss": None}]])
def test_without_a_step_there_is_no_plot(history: Any) -> None:
    assert draw_plots({"history": history}) == []


def test_what_was_not_measured_is_not_drawn() -> None:
    history = [{"step": step, "loss": 2.0, "learning_rate": 1e-4} for step in range(1, 4)]
    assert [plot.name for plot in draw_plots({"history": history})] == ["loss"]


def test_the_drawing_in_the_page_has_no_color_of_its_own() -> None:
    for plot in draw_plots(sample.done()["training"]):
        for svg in (plot.wide, plot.narrow):
            assert not re.search(r"(fill|stroke): #", svg)
            assert "var(--ink)" in svg or "var(--train)" in svg


def test_losses_that_are_not_finite_are_left_out() -> None:
    history = [*sample.history(60)[:10], {"step": 11, "loss": math.nan, "learning_rate": 1e-4}]
    assert draw_plots({"history": history})


def test_held_out_losses_stand_before_the_first_and_at_the_last_step() -> None:
    training = sample.done()["training"]
    del training["evals"]
    assert eval_points(training) == [(0, 2.953), (60, 2.104)]


def test_the_smooth_curve_follows_a_slope_up_to_both_ends() -> None:
    line = [3.0 - 0.01 * step for step in range(60)]
    assert smoothed(line) == pytest.approx(line)


def test_the_same_run_gives_the_same_bytes() -> None:
    training = sample.done()["training"]
    assert draw_plots(training) == draw_plots(training)

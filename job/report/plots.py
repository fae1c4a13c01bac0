"""The loss plot: training loss, held-out loss and learning rate over the steps, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from job.report import words

# Ink, faint ink, grid, paper, training, held-out, learning rate; told apart also by people who do
# not see red and green (Okabe and Ito 2008), and by line style and marker.
LIGHT = ("#1c2127", "#5b6570", "#e3e7eb", "#ffffff", "#0072b2", "#d55e00", "#7d8791")
DARK = ("#e6e9ec", "#9aa5b1", "#2c343d", "#161b21", "#56b4e9", "#f0a05a", "#7d8791")


def plots_for_screens(training: dict[str, Any]) -> dict[str, bytes]:
    """The plot for light and dark pages, wide and narrow; empty when there is nothing to draw."""
    variants = {
        "light": loss_plot(training),
        "dark": loss_plot(training, dark=True),
        "phone": loss_plot(training, narrow=True),
        "dark-phone": loss_plot(training, dark=True, narrow=True),
    }
    return {name: plot for name, plot in variants.items() if plot}


def loss_plot(training: dict[str, Any], dark: bool = False, narrow: bool = False) -> bytes | None:
    """Draw the curves of a run.

    Args:
        training: the result's "training": "history" of {"step", "loss", "learning_rate"};
            optionally "evals" of {"step", "loss"}, else "eval_loss_before" and
            "eval_loss_after" are drawn at the first and last step.
        dark: for a dark page.
        narrow: for a phone, where a wide plot's letters would be too small to read.

    Returns:
        PNG bytes, 1280 x 800 pixels (narrow: 672 x 704), or None when no step has a finite loss.
    """
    history = [point for point in training.get("history") or [] if words.finite(point.get("loss"))]
    if not history:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    ink, faint, grid, paper, *colors = DARK if dark else LIGHT
    shape = (4.2, 4.4) if narrow else (8, 5)
    figure = Figure(figsize=shape, dpi=160, facecolor=paper, layout="constrained")
    FigureCanvasAgg(figure)
    losses, rates = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [4, 1]})
    _draw_losses(losses, history, eval_points(training), colors)
    _draw_rates(rates, history, colors[2])
    for axes in (losses, rates):
        axes.set_facecolor(paper)
        axes.grid(color=grid, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=faint, labelsize=9, length=0)
        axes.spines[:].set_visible(False)
        axes.xaxis.label.set_color(ink)
        axes.yaxis.label.set_color(ink)
    rates.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    losses.legend(frameon=False, labelcolor=ink, fontsize=9)
    buffer = io.BytesIO()
    # No software version and no date: the same run gives the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_losses(axes: Any, history: list[Any], evals: list[Any], colors: Sequence[str]) -> None:
    steps = [point["step"] for point in history]
    losses = [point["loss"] for point in history]
    few = len(steps) < 8
    if few:
        axes.plot(steps, losses, color=colors[0], linewidth=2, marker="o", label="training")
    else:
        axes.plot(steps, losses, color=colors[0], linewidth=1, alpha=0.35, label="training, a step")
        smooth = smoothed(losses)
        axes.plot(steps, smooth, color=colors[0], linewidth=2.2, label="training, smoothed")
    if evals:
        axes.plot(
            [step for step, _ in evals],
            [loss for _, loss in evals],
            color=colors[1],
            linestyle="--",
            marker="D",
            markersize=6,
            label="held-out rows",
        )
    axes.set_ylabel("loss (nats per token)")


def _draw_rates(axes: Any, history: list[Any], color: str) -> None:
    points = [point for point in history if words.finite(point.get("learning_rate"))]
    axes.plot(
        [point["step"] for point in points],
        [point["learning_rate"] for point in points],
        color=color,
        linewidth=1.6,
        marker="" if len(points) > 1 else "o",
    )
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.yaxis.get_offset_text().set_fontsize(8)
    axes.yaxis.get_offset_text().set_color(color)
    axes.set_ylabel("learning rate\n(no unit)")
    axes.set_xlabel("optimizer step (count)")


def eval_points(training: dict[str, Any]) -> list[tuple[int, float]]:
    """The held-out losses as (step, loss): all that were measured, else before and after."""
    points = [(point["step"], point["loss"]) for point in training.get("evals") or []]
    if not points:
        last = training.get("steps") or training["history"][-1]["step"]
        points = [(0, training.get("eval_loss_before")), (last, training.get("eval_loss_after"))]
    return [(step, loss) for step, loss in points if words.finite(loss)]


def smoothed(losses: Sequence[float]) -> list[float]:
    """A straight line fitted around each step over a tenth of the run, taken at that step.

    A running mean lags behind a falling loss, and at both ends it follows the noise.
    """
    reach = max(2, len(losses) // 20)
    result = []
    for i in range(len(losses)):
        near = range(max(0, i - reach), min(len(losses), i + reach + 1))
        middle = sum(near) / len(near)
        mean = sum(losses[k] for k in near) / len(near)
        slope = sum((k - middle) * losses[k] for k in near)
        slope /= sum((k - middle) ** 2 for k in near)
        result.append(mean + slope * (i - middle))
    return result

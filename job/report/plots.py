"""The plots of a run over its optimizer steps: as PNG beside the page, as SVG inside it.

Inside the page the letters are text and the colours are the page's own, so that one drawing does
for light, dark and paper; only a narrow screen has its own, with letters large enough to read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from job.report import view, words

# The colours of page.css in light. Training, held-out and the rest are told apart also by people
# who do not see red and green (Okabe and Ito 2008), and by line style and marker.
INK, FAINT, GRID = "#1c2127", "#5b6570", "#dfe4e9"
TRAIN, HELD, CALM = "#0072b2", "#d55e00", "#7d8791"
VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    GRID: "var(--line)",
    TRAIN: "var(--train)",
    HELD: "var(--held)",
    CALM: "var(--calm)",
}
WIDE, NARROW = 11.5, 4.5  # inches
STEPS = "optimizer step (count)"

Panel = Callable[[Any], str]  # draws on axes, returns the name and unit of its y axis


@dataclass(frozen=True)
class Plot:
    """One figure. `wide` and `narrow` are SVG elements, `png` is for those who take it along."""

    name: str  # also the name of the PNG
    title: str
    wide: str
    narrow: str
    png: bytes


def draw_plots(training: dict[str, Any]) -> list[Plot]:
    """All plots that there is something to draw for, the most important first.

    Args:
        training: the result's "training": "history" of {"step", "loss", "learning_rate",
            "tokens_per_second", "memory_bytes"}; optionally "evals" of {"step", "loss"}, else
            "eval_loss_before" and "eval_loss_after" are drawn at the first and last step;
            the lowest of "evals" and "resumed_from" are marked.
    """
    history = [point for point in training.get("history") or [] if words.finite(point.get("loss"))]
    if not history:
        return []
    resumed = training.get("resumed_from")
    evals, best = eval_points(training), view.best_evaluation(training)
    loss: list[Panel] = [
        lambda axes: _draw_losses(axes, history, evals, best["step"] if best else None),
        lambda axes: _draw_rates(axes, history),
    ]
    plots = [_plot("loss", "Loss and learning rate", loss, [3.4, 1], resumed)]
    speed: list[Panel] = []
    if series(history, "tokens_per_second"):
        speed.append(lambda axes: _draw_speed(axes, history))
    if series(history, "memory_bytes"):
        speed.append(lambda axes: _draw_memory(axes, history))
    if speed:
        title = "Throughput and memory" if len(speed) > 1 else "Throughput"
        plots.append(_plot("speed", title, speed, [1.0] * len(speed), resumed))
    return plots


def series(history: list[Any], key: str) -> list[tuple[int, float]]:
    """The finite values of one field as (step, value)."""
    return [(point["step"], point[key]) for point in history if words.finite(point.get(key))]


def _plot(
    name: str, title: str, panels: list[Panel], heights: list[float], resumed: int | None
) -> Plot:
    wide = _figure(panels, heights, resumed, WIDE)
    png = io.BytesIO()
    # No software version and no date: the same run gives the same bytes.
    wide.savefig(png, format="png", dpi=125, facecolor="white", metadata={"Software": None})
    narrow = _figure(panels, heights, resumed, NARROW)
    return Plot(name, title, _svg(wide, name), _svg(narrow, f"{name}-narrow"), png.getvalue())


def _figure(panels: list[Panel], heights: list[float], resumed: int | None, width: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    height = (1.35 if width == WIDE else 1.15) * sum(heights) * (1.3 if max(heights) == 1 else 0.85)
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.06)
    figure = Figure(figsize=(width, height + 0.6), layout=layout)
    FigureCanvasAgg(figure)
    ratios = {"height_ratios": heights}
    grid: Any = figure.subplots(len(panels), 1, sharex=True, squeeze=False, gridspec_kw=ratios)
    grid = grid[:, 0]
    for axes, panel in zip(grid, panels, strict=True):
        label = panel(axes)
        # Above the panel and level: read without turning the head, and no width is lost.
        axes.set_title(label, loc="left", fontsize=10, color=FAINT, pad=7, gid="axis-y")
        axes.set_facecolor("none")
        axes.grid(axis="y", color=GRID, linewidth=0.9)
        axes.set_axisbelow(True)
        axes.tick_params(colors=FAINT, labelsize=10, length=0)
        axes.spines[:].set_visible(False)
        axes.margins(x=0.015)
        if resumed:
            axes.axvline(resumed + 0.5, color=CALM, linewidth=1, linestyle=(0, (2, 3)))
    if resumed:
        late = resumed > sum(grid[0].get_xlim()) / 2
        grid[0].annotate(
            f"resumed after step {resumed}",
            (resumed + 0.5, 0),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if late else 4, 2),
            textcoords="offset points",
            ha="right" if late else "left",
            fontsize=9,
            color=FAINT,
        )
    grid[-1].spines["bottom"].set(visible=True, color=GRID)
    grid[-1].set_xlabel(STEPS, fontsize=10, color=FAINT, gid="axis-x")
    grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return figure


def _svg(figure: Any, name: str) -> str:
    """The figure as an element of the page: text as text, colours as the page's variables."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( xmlns(:xlink)?="[^"]*"| version="[^"]*")', "", svg, count=3)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'id="(axis-[xy])"', r'class="\1"', svg)
    # Ids are one for a page; only those that are pointed at are kept, under the figure's name.
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, variable)
    return re.sub(r"\n\s*", "\n", svg)


def _draw_losses(axes: Any, history: list[Any], evals: list[Any], best: int | None) -> str:
    steps = [point["step"] for point in history]
    losses = [point["loss"] for point in history]
    if len(steps) < 8:
        axes.plot(steps, losses, color=TRAIN, linewidth=2, marker="o", label="training")
    else:
        axes.plot(steps, losses, color=TRAIN, linewidth=1, alpha=0.35, label="training, a step")
        smooth = smoothed(losses)
        axes.plot(steps, smooth, color=TRAIN, linewidth=2.4, label="training, smoothed")
    if evals:
        at, values = [step for step, _ in evals], [loss for _, loss in evals]
        style = {"linestyle": (0, (5, 3)), "marker": "D", "markersize": 5.5, "linewidth": 1.6}
        axes.plot(at, values, color=HELD, label="held-out rows", **style)
        if best in at:
            lowest = (best, values[at.index(best)])
            axes.plot(*lowest, "o", ms=13, mfc="none", mec=HELD, mew=1.4, label="best")
    axes.legend(frameon=False, labelcolor=INK, fontsize=10, loc="best")
    return "loss (nats per token)"


def _draw_rates(axes: Any, history: list[Any]) -> str:
    points = series(history, "learning_rate")
    exponent = _exponent(max((rate for _, rate in points), default=0.0))
    _line(axes, [(step, rate / 10.0**exponent) for step, rate in points], CALM)
    axes.set_ylim(bottom=0)
    return f"learning rate (× 10{_raised(exponent)}, no unit)"


def _draw_speed(axes: Any, history: list[Any]) -> str:
    points = series(history, "tokens_per_second")
    _line(axes, points, TRAIN)
    axes.set_ylim(bottom=0, top=1.15 * max(value for _, value in points) or 1)
    axes.yaxis.set_major_formatter(lambda value, _: words.count(value))
    return "throughput (tokens per second)"


def _draw_memory(axes: Any, history: list[Any]) -> str:
    points = [(step, value / 1e9) for step, value in series(history, "memory_bytes")]
    _line(axes, points, HELD)
    axes.set_ylim(bottom=0, top=1.15 * max(value for _, value in points) or 1)
    return "memory, peak so far (GB)"


def _line(axes: Any, points: list[tuple[int, float]], color: str) -> None:
    marker = "" if len(points) > 1 else "o"
    steps, values = [step for step, _ in points], [value for _, value in points]
    axes.plot(steps, values, color=color, linewidth=1.8, marker=marker)


def _exponent(value: float) -> int:
    return int(f"{value:e}".split("e")[1]) if value else 0


def _raised(number: int) -> str:
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


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

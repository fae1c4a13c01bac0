"""The panel that a person watches on a terminal: phases, steps, loss curve, transfers, warnings.

One frame is drawn from the state that the events have built up; rich redraws it four times a
second so that clocks and bars move between events. What must stay readable after the end
(warnings, sampled answers) is printed above the panel.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from threading import Lock
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel as Box
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from job.report import words
from job.report.progress import Clock, Event, Transfer, event_lines, follow, is_stop

STYLES = {"warning": "yellow", "failed": "bold red", "done": "bold green"}


@dataclass
class Phase:
    """A phase of the run: when it began and ended, in the clock's seconds."""

    name: str
    message: str
    began: float
    ended: float | None = None


class Panel:
    """Draws the run as it goes.

    Args:
        stream: the terminal.
        clock: seconds that only grow.
        console: where to draw instead of on `stream` (tests, screenshots).
    """

    def __init__(
        self, stream: TextIO, clock: Clock = time.monotonic, console: Console | None = None
    ) -> None:
        self._clock = clock
        self._lock = Lock()
        self._phases: list[Phase] = []
        self._transfers: dict[str, Transfer] = {}
        self._losses: list[float] = []
        self._step: Event = {}
        self._eval: list[Event] = []
        self._outcome: Event = {}
        self._log = ""
        self._cost: float | None = None
        self.console = console or Console(file=stream)
        self._live = Live(
            console=self.console, get_renderable=self.frame, refresh_per_second=4, transient=False
        )
        self._live.start()

    def handle(self, event: Event) -> None:
        """Take an event into the picture; may be called from any thread."""
        with self._lock:
            self._take(event)
        if event["event"] in ("warning", "retry", "sample", "plan", "resumed"):
            style = STYLES.get(event["event"], "dim")
            for line in event_lines(event):
                self.console.print(Text(words.printable(line), style=style))

    def close(self) -> None:
        """Draw the last frame and give the terminal back."""
        with self._lock:
            self._end_phase()
        self._live.stop()

    def _take(self, event: Event) -> None:
        kind = event["event"]
        self._cost = event.get("cost_usd", self._cost)
        if kind == "phase":
            self._enter(event["phase"], str(event.get("message") or ""))
        elif kind == "progress":
            follow(self._transfers, event, self._clock())
        elif kind == "step":
            self._step = event
            self._losses += _losses([event])
        elif kind == "resumed":
            self._losses, self._eval = _losses(event["history"]), list(event["evals"])
        elif kind == "eval":
            self._eval.append(event)
        elif kind == "log":
            self._log = event["message"]
        elif kind in ("done", "failed"):
            self._end_phase()
            self._outcome = event

    def _enter(self, name: str, message: str) -> None:
        """Begin a phase, or its next part: a phase may announce itself more than once."""
        self._log = ""
        if self._phases and self._phases[-1].name == name:
            self._phases[-1].message = message
            return
        self._end_phase()
        self._phases.append(Phase(name, message, began=self._clock()))

    def _end_phase(self) -> None:
        """Close the running phase: its transfers are over, and its time stands."""
        self._transfers.clear()
        if self._phases and self._phases[-1].ended is None:
            self._phases[-1].ended = self._clock()

    def frame(self) -> RenderableType:
        """The panel as it is now."""
        with self._lock:
            parts: list[RenderableType] = [self._phase_table()]
            if self._step:
                parts += [Text(), self._step_bar(), self._loss_line(), self._figures()]
            running = [transfer for transfer in self._transfers.values() if not transfer.complete]
            if running:
                parts += [Text(), self._transfer_table(running)]
            if self._outcome:
                lines = event_lines(self._outcome) or ["done"]
                text = words.printable("\n".join(lines))
                kind = "warning" if is_stop(self._outcome) else self._outcome["event"]
                parts += [Text(), Text(text, style=STYLES[kind])]
            elif self._log:
                parts += [Text(), _line(self._log, "dim")]
            title = "finetune-job"
            if self._cost is not None:
                title += f" · {words.dollars(self._cost)} so far"
            return Box(Group(*parts), title=title, title_align="left", padding=(0, 1))

    def _phase_table(self) -> Table:
        table = _grid()
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(justify="right", no_wrap=True)
        failed = self._outcome.get("event") == "failed"
        for phase in self._phases:
            last = phase is self._phases[-1]
            mark, style = ("✓", "green") if phase.ended is not None else ("▸", "bold cyan")
            if last and failed:
                mark, style = ("■", "yellow") if is_stop(self._outcome) else ("✗", "red")
            seconds = (self._clock() if phase.ended is None else phase.ended) - phase.began
            table.add_row(
                Text(mark, style=style),
                Text(phase.name, style="bold" if last else ""),
                _line(phase.message, "dim"),
                Text(words.duration(seconds), style="dim"),
            )
        if not self._phases:
            table.add_row("", Text("starting", style="dim"), "", "")
        return table

    def _step_bar(self) -> Table:
        step, of = self._step["step"], self._step["of"]
        table = _grid()
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(justify="right", no_wrap=True)
        bar = ProgressBar(total=of, completed=step, complete_style="cyan")
        table.add_row(f"step {step}/{of}", bar, words.share(step, of))
        return table

    def _loss_line(self) -> Text:
        width = max(8, min(60, self.console.width - 40))
        text = Text("loss ", no_wrap=True, overflow="ellipsis")
        text.append(words.loss(self._losses[-1]), style="bold")
        text.append("  " + words.sparkline(self._losses, width), style="cyan")
        if self._eval:
            text.append("  held-out ")
            text.append(words.loss(self._eval[-1]["loss"]), style="bold")
        return text

    def _figures(self) -> Text:
        """Speed, learning rate, memory and the time that is left, as far as events tell them."""
        event = self._step
        parts = []
        if event.get("tokens_per_second"):
            parts.append(f"{words.count(event['tokens_per_second'])} tok/s")
        if event.get("learning_rate") is not None:
            parts.append(f"lr {event['learning_rate']:.1e}")
        if event.get("memory_bytes"):
            parts.append(f"memory {words.size(event['memory_bytes'])}")
        if event.get("eta_seconds") is not None and event["step"] < event["of"]:
            parts.append(f"ETA {words.duration(event['eta_seconds'])}")
        return Text(" · ".join(parts))

    def _transfer_table(self, transfers: list[Transfer]) -> Table:
        table = _grid()
        table.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=1)
        table.add_column(justify="right", no_wrap=True)
        for transfer in transfers[-6:]:
            amount = transfer.amount(transfer.done)
            if transfer.total:
                amount += f"/{transfer.amount(transfer.total)}"
            rate = f" {transfer.amount(transfer.rate)}/s" if transfer.rate >= 1 else ""
            bar = ProgressBar(
                total=transfer.total or None,
                completed=transfer.done,
                pulse=not transfer.total,
                animation_time=self._clock(),
                complete_style="cyan",
            )
            table.add_row(_line(transfer.what, ""), bar, amount + rate)
        return table


def _losses(steps: list[Event]) -> list[float]:
    return [step["loss"] if words.finite(step["loss"]) else math.nan for step in steps]


def _grid() -> Table:
    return Table.grid(padding=(0, 1), expand=True)


def _line(text: Any, style: str) -> Text:
    """Text from outside: one line, nothing that a terminal obeys, never read as markup."""
    return Text(words.shorten(str(text), 500), style=style, no_wrap=True, overflow="ellipsis")

"""The panel on a narrow and a wide terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from job.report import words
from job.report.panel import Panel
from tests.report import sample


class Screen:
    """A Panel on a terminal that is `width` columns wide, with a clock that stands still."""

    def __init__(self, width: int) -> None:
        self.width, self.seconds = width, 0.0
        self.output = io.StringIO()
        self.console = Console(file=self.output, width=width, height=40, force_terminal=True)
        self.panel = Panel(self.output, clock=lambda: self.seconds, console=self.console)

    def send(self, kind: str, **fields: Any) -> None:
        self.panel.handle({"time": "2026-01-02T12:03:41+00:00", "event": kind, **fields})

    def picture(self) -> str:
        plain = Console(file=io.StringIO(), width=self.width)
        with plain.capture() as capture:
            plain.print(self.panel.frame())
        return capture.get()


@pytest.fixture(params=[60, 120])
def screen(request: pytest.FixtureRequest) -> Any:
    screen = Screen(request.param)
    yield screen
    screen.panel.close()


def train(screen: Screen, steps: int = 60) -> None:
    screen.send("phase", phase="fetch", message="a model with a rather long name " * 5)
    screen.seconds = 75.0
    screen.send("phase", phase="train", message="60 steps of 16 rows")
    screen.send("eval", step=0, loss=2.953)
    for point in sample.history(60)[:steps]:
        screen.send("step", **point, of=60, eta_seconds=190)


def test_the_panel_shows_phases_steps_losses_speed_and_eta(screen: Screen) -> None:
    train(screen, 42)
    picture = screen.picture()
    for text in ("✓ fetch", "1m15s", "▸ train", "step 42/60", "70 %", "loss 2.", "held-out 2.953",
                 "tok/s", "memory 38.4 GB", "ETA 3m10s", "█"):  # fmt: skip
        assert text in picture


def test_the_newest_cost_is_in_the_title_in_every_phase(screen: Screen) -> None:
    assert "$" not in screen.picture()
    screen.send("phase", phase="fetch", message="", cost_usd=0.0421)
    assert "finetune-job · $0.0421 so far" in screen.picture()
    screen.send("step", **sample.history(60)[0], of=60, eta_seconds=190, cost_usd=1.5)
    screen.send("log", message="no cost in this one")
    assert "finetune-job · $1.50 so far" in screen.picture()


def test_no_line_is_wider_than_the_terminal(screen: Screen) -> None:
    train(screen)
    screen.send("phase", phase="publish", message="s3://bucket/" + "x" * 200)
    screen.send("progress", what="adapter " + "長" * 90, done=1, total=10**12, unit="bytes")
    screen.send("log", message="長い" * 200)
    widths = {cell_len(line) for line in screen.picture().splitlines()}
    assert widths == {screen.width}


def test_a_phase_that_announces_its_next_part_stays_one_line(screen: Screen) -> None:
    screen.send("phase", phase="verify", message="loading the base")
    screen.send("phase", phase="verify", message="loading the merged weights")
    assert screen.picture().count("verify") == 1
    assert "loading the merged weights" in screen.picture()


def test_running_transfers_are_shown_with_rate_until_they_are_complete(screen: Screen) -> None:
    screen.send("phase", phase="fetch")
    for done in (0, 500_000_000):
        screen.send("progress", what="model", done=done, total=1_000_000_000, unit="bytes")
        screen.seconds += 5.0
    assert "500.0 MB/1.0 GB 100.0 MB/s" in screen.picture()
    screen.send("progress", what="model", done=1_000_000_000, total=1_000_000_000, unit="bytes")
    assert "MB/s" not in screen.picture()


def test_a_failure_marks_its_phase_and_tells_its_reason(screen: Screen) -> None:
    screen.send("phase", phase="publish", message="s3://models")
    screen.send("failed", message="The bucket refused.", problems=["403 on PutObject"])
    picture = screen.picture()
    assert "✗ publish" in picture
    assert "The bucket refused." in picture
    assert "403 on PutObject" in picture


def test_a_stop_is_not_called_a_failure(screen: Screen) -> None:
    screen.send("phase", phase="train", message="60 steps")
    screen.send("failed", message="Stopped by a signal after step 4.", exit_code=75)
    picture = screen.picture()
    assert "■ train" in picture
    assert "STOPPED: Stopped by a signal" in picture
    assert "FAILED" not in picture


def test_a_resumed_run_shows_the_losses_of_its_earlier_starts(screen: Screen) -> None:
    history = sample.history(60)
    screen.send("phase", phase="train", message="60 steps")
    screen.send("resumed", step=40, history=history[:40], evals=[{"step": 0, "loss": 2.953}])
    screen.send("step", **history[40], of=60, eta_seconds=90)
    picture = screen.picture()
    assert "held-out 2.953" in picture
    bars = words.sparkline([point["loss"] for point in history[:41]], screen.width - 40)
    assert bars in picture


def test_text_from_outside_is_neither_markup_nor_control(screen: Screen) -> None:
    screen.send("phase", phase="train", message="[bold]x[/bold] \x1b[31mred")
    assert "[bold]x[/bold] [31mred" in screen.picture()


def test_warnings_stay_above_the_panel_after_the_end(screen: Screen) -> None:
    screen.send("warning", message="2 rows dropped")
    screen.panel.close()
    assert "WARNING: 2 rows dropped" in screen.output.getvalue()

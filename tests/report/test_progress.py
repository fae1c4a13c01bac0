"""Progress for logs: what is printed, how often, and what never is."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import pytest

from job.report import JsonReporter, LineReporter, open_reporter
from tests.report import sample


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Lines:
    """A LineReporter, its clock and what it printed."""

    def __init__(self) -> None:
        self.stream, self.clock = io.StringIO(), Clock()
        self.reporter = LineReporter(self.stream, every=5.0, clock=self.clock)

    def send(self, kind: str, **fields: Any) -> None:
        self.reporter.handle({"time": "2026-01-02T12:03:41+00:00", "event": kind, **fields})

    @property
    def printed(self) -> list[str]:
        return self.stream.getvalue().splitlines()


@pytest.fixture
def lines() -> Lines:
    return Lines()


def step(number: int, **fields: Any) -> dict[str, Any]:
    point = {"step": number, "of": 60, "loss": 2.3104, "learning_rate": 1.9e-4}
    return {**point, "tokens_per_second": 540.2, "eta_seconds": 190, **fields}


def test_a_step_is_one_readable_line(lines: Lines) -> None:
    lines.send("step", **step(12))
    assert lines.printed == [
        "12:03:41  step 12/60  loss 2.310  lr 1.9e-04  540 tok/s  ETA 3m10s",
    ]


def test_a_step_tells_what_the_run_has_cost_where_that_is_known(lines: Lines) -> None:
    lines.send("step", **step(12), cost_usd=1.5)
    assert lines.printed[0].endswith("ETA 3m10s  $1.50")


def test_steps_are_printed_at_most_every_five_seconds_and_the_last_one_always(
    lines: Lines,
) -> None:
    for number in range(1, 61):
        lines.send("step", **step(number))
        lines.clock.seconds += 1.0
    shown = [int(line.split()[2].split("/")[0]) for line in lines.printed]
    assert shown == [1, 6, 11, 16, 21, 26, 31, 36, 41, 46, 51, 56, 60]


def test_a_download_shows_bytes_and_rate_and_its_end_once(lines: Lines) -> None:
    for done in (0, 250_000_000, 500_000_000, 1_000_000_000, 1_000_000_000):
        lines.send("progress", what="model", done=done, total=1_000_000_000, unit="bytes")
        lines.clock.seconds += 4.0
    assert lines.printed == [
        "12:03:41  model  0 B of 1.0 GB (0 %)",
        "12:03:41  model  500.0 MB of 1.0 GB (50 %)  62.5 MB/s",
        "12:03:41  model  1.0 GB  83.3 MB/s",
    ]


def test_a_transfer_that_starts_over_is_measured_anew(lines: Lines) -> None:
    lines.send("progress", what="adapter", done=1000, total=1000, unit="bytes")
    lines.clock.seconds += 100.0
    lines.send("progress", what="adapter", done=0, total=1000, unit="bytes")
    lines.clock.seconds += 10.0
    lines.send("progress", what="adapter", done=1000, total=1000, unit="bytes")
    assert lines.printed[-1] == "12:03:41  adapter  1.0 kB  100 B/s"


def test_phases_plans_warnings_and_failures_are_announced(lines: Lines) -> None:
    lines.send("phase", phase="fetch", message="one model, one dataset")
    lines.send("plan", settings=sample.done()["plan"])
    lines.send("warning", message="2 rows dropped")
    lines.send("eval", step=60, loss=2.104, accuracy=0.5527)
    lines.send("failed", message="The bucket refused.", problems=["403 on PutObject"])
    assert [line[10:] for line in lines.printed] == [
        "== fetch: one model, one dataset",
        "plan  precision = native  (the checkpoint is stored as MXFP4)",
        "plan  micro_batch_size = 4  (16 sequences a step, 4 fit the 79 GB card)",
        "plan  packing = no  (one sequence a row)",
        "WARNING: 2 rows dropped",
        "held-out loss 2.104 at step 60, 55 % of the next tokens right",
        "FAILED: The bucket refused.",
        "  - 403 on PutObject",
    ]


def test_where_a_run_goes_on_and_where_its_checkpoints_are_is_said(lines: Lines) -> None:
    lines.send("resumed", step=40, history=[], evals=[])
    lines.send("mirrored", step=50, uri="s3://bucket/run-a", seconds=1.0)
    assert [line[10:] for line in lines.printed] == [
        "going on after step 40",
        "checkpoint of step 50 is at s3://bucket/run-a",
    ]


def test_events_that_are_only_for_programs_print_nothing(lines: Lines) -> None:
    lines.send("ready", seconds=25.0)
    lines.send("prepared", rows={"a.jsonl": 3}, steps=2, seconds=0.1)
    assert lines.printed == []


def test_the_audit_is_a_screenful_of_lines(lines: Lines) -> None:
    lines.send("audit", audit=sample.audit())
    assert lines.printed[0].endswith("Data")
    assert any("Rows of an epoch" in line for line in lines.printed)


def test_a_sample_shows_the_answer_and_not_the_reasoning(lines: Lines) -> None:
    first = sample.samples()[0]
    lines.send("sample", prompt=first["prompt"], after=first["after"])
    assert "実数解は x ≈ 1.2915 です。" in lines.printed[0]
    assert "中間値の定理" not in lines.printed[0]


def test_model_output_cannot_steer_the_terminal(lines: Lines) -> None:
    prompt = [{"role": "user", "content": "hi"}]
    lines.send("sample", prompt=prompt, after=sample.answer("a\x1b[2J\x1b]0;title\x07b\r\u202ec"))
    lines.send("log", message="x\x9b31my")
    assert not set("\x1b\x07\r\x9b\u202e") & set(lines.stream.getvalue())


def test_a_loss_that_is_not_finite_is_said_so(lines: Lines) -> None:
    lines.send("step", **step(3, loss=float("nan")))
    assert "loss not finite" in lines.printed[0]


def test_json_lines_hold_every_event_as_it_is() -> None:
    stream = io.StringIO()
    events = [{"time": "t", "event": "log", "message": "実\n"}, {"event": "step", **step(1)}]
    reporter = JsonReporter(stream)
    for event in events:
        reporter.handle(event)
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == events


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("log_format", "stream", "name"),
    [
        ("auto", Terminal(), "Panel"),
        ("auto", io.StringIO(), "LineReporter"),
        ("lines", Terminal(), "LineReporter"),
        ("json", Terminal(), "JsonReporter"),
    ],
)
def test_the_reporter_follows_log_format_and_terminal(
    log_format: str, stream: io.StringIO, name: str
) -> None:
    reporter = open_reporter(log_format, stream)
    reporter.close()
    assert type(reporter).__name__ == name


def test_importing_the_report_loads_nothing_heavy() -> None:
    heavy = {"rich", "matplotlib", "jinja2", "yaml", "numpy", "torch", "transformers"}
    code = f"import sys, job.report; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

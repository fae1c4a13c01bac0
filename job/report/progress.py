"""Progress for logs: readable lines for `docker logs`, or one JSON event a line for machines.

Reporters take the event dicts of job.events and print to the stream they are given; the last
JSON line of stdout is the command line's, so they get stderr. The terminal panel is in panel.py.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from job.report import words

Event = dict[str, Any]
Clock = Callable[[], float]


class Reporter(Protocol):
    """Shows events as they come; `close` leaves the terminal as it was."""

    def handle(self, event: Event) -> None: ...

    def close(self) -> None: ...


def open_reporter(log_format: str, stream: TextIO = sys.stderr) -> Reporter:
    """The reporter for a `log_format` of "auto" (panel on a terminal), "lines" or "json"."""
    if log_format == "json":
        return JsonReporter(stream)
    if log_format == "auto" and stream.isatty():
        from job.report.panel import Panel

        return Panel(stream)
    return LineReporter(stream)


class JsonReporter:
    """One event a line, as it is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def handle(self, event: Event) -> None:
        """Print the event at once; ASCII only, so that no log collector can spoil it."""
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing is held back."""


class LineReporter:
    """One readable line an event; steps and transfers at most every few seconds.

    Args:
        stream: where the lines go.
        every: seconds between two lines of the same kind of progress.
        clock: seconds that only grow.
    """

    def __init__(self, stream: TextIO, every: float = 5.0, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._every = every
        self._clock = clock
        self._shown: dict[str, float] = {}
        self._transfers: dict[str, Transfer] = {}

    def handle(self, event: Event) -> None:
        """Print the event, unless it is progress that was shown a moment ago."""
        kind = event["event"]
        if kind == "step":
            last = event["step"] >= event["of"]
            lines = [step_line(event)] if self._due("step", last) else []
        elif kind == "progress":
            transfer = follow(self._transfers, event, self._clock())
            lines = self._transfer_lines(transfer)
        else:
            lines = event_lines(event)
        for line in lines:
            self._stream.write(f"{clock_time(event)}  {words.printable(line)}\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing is held back."""

    def _transfer_lines(self, transfer: Transfer) -> list[str]:
        if transfer.ended or not self._due(f"progress {transfer.what}", transfer.complete):
            return []
        transfer.ended = transfer.complete
        return [transfer.line()]

    def _due(self, key: str, last: bool) -> bool:
        now = self._clock()
        if not last and now - self._shown.get(key, float("-inf")) < self._every:
            return False
        self._shown[key] = now
        return True


class Transfer:
    """A download, upload or another piece of work that is counted: how far, how fast."""

    def __init__(self, what: str, unit: str, now: float) -> None:
        self.what, self.unit = what, unit
        self.done = self.total = 0
        self.ended = False  # its last line was printed
        self.started = self.updated = now

    @property
    def complete(self) -> bool:
        """Whether all of a known total is done."""
        return 0 < self.total <= self.done

    @property
    def rate(self) -> float:
        """Units per second since the first event; 0 before a second one."""
        seconds = self.updated - self.started
        return self.done / seconds if seconds > 0 else 0.0

    def amount(self, number: float) -> str:
        """A number of this transfer's unit: "98.4 MB" or "1,200 rows"."""
        bytes_ = self.unit in ("bytes", "B")
        return words.size(number) if bytes_ else f"{words.count(number)} {self.unit}".rstrip()

    def line(self) -> str:
        """For a log: what, done of total, percent, rate."""
        text = f"{self.what}  {self.amount(self.done)}"
        if self.total and not self.complete:
            text += f" of {self.amount(self.total)} ({words.share(self.done, self.total)})"
        return text + (f"  {self.amount(self.rate)}/s" if self.rate >= 1 else "")


def follow(transfers: dict[str, Transfer], event: Event, now: float) -> Transfer:
    """Bring the transfer that a "progress" event is about up to date, and return it.

    A transfer that starts over (a retry, another destination) is measured anew.
    """
    what = event["what"]
    if what not in transfers or event["done"] < transfers[what].done:
        transfers[what] = Transfer(what, event.get("unit", "bytes"), now)
    transfer = transfers[what]
    transfer.done, transfer.total, transfer.updated = event["done"], event.get("total") or 0, now
    return transfer


def clock_time(event: Event) -> str:
    """The UTC time of day of an event, "12:03:41"."""
    return str(event["time"])[11:19]


def step_line(event: Event) -> str:
    """One optimizer step: "step 12/60  loss 2.31  lr 1.9e-04  540 tok/s  ETA 3m10s  $0.0421"."""
    parts = [f"step {event['step']}/{event['of']}", f"loss {words.loss(event['loss'])}"]
    if event.get("learning_rate") is not None:
        parts.append(f"lr {event['learning_rate']:.1e}")
    if event.get("tokens_per_second"):
        parts.append(f"{words.count(event['tokens_per_second'])} tok/s")
    if event.get("eta_seconds") is not None and event["step"] < event["of"]:
        parts.append(f"ETA {words.duration(event['eta_seconds'])}")
    if event.get("cost_usd") is not None:
        parts.append(words.dollars(event["cost_usd"]))
    return "  ".join(parts)


def sample_line(event: Event) -> str:
    """A prompt that was answered before or after training, with the start of the answer."""
    moment = "after" if event.get("after") else "before"
    asked = event["prompt"]
    asked = asked if isinstance(asked, str) else words.prompt_text(asked)
    answer = words.shorten(words.answer_text(event.get(moment) or {}), 160)
    return f"sample {moment} training  “{words.shorten(asked, 60)}” -> “{answer}”"


def event_lines(event: Event) -> list[str]:
    """The lines of every event that is not throttled; a long message keeps its line ends."""
    kind, message = event["event"], str(event.get("message") or "")
    if kind == "phase":
        text = f"== {event['phase']}" + (f": {message}" if message else "")
    elif kind == "plan":
        return plan_lines(event["settings"])
    elif kind == "audit":
        from job.report.data_text import audit_lines

        return audit_lines(event["audit"])
    elif kind == "eval":
        text = f"held-out loss {words.loss(event['loss'])} at step {event['step']}"
        if words.finite(event.get("accuracy")):
            text += f", {words.share(event['accuracy'], 1)} of the next tokens right"
    elif kind == "resumed":
        text = f"going on after step {event['step']}"
    elif kind == "mirrored":
        text = f"checkpoint of step {event['step']} is at {event['uri']}"
    elif kind == "sample":
        text = sample_line(event)
    elif kind in ("warning", "failed"):
        problems = [f"  - {problem}" for problem in event.get("problems") or []]
        name = "STOPPED" if is_stop(event) else kind.upper()
        text = "\n".join([f"{name}: {message}", *problems])
    else:
        text = message  # events that are only for programs have none
    return text.splitlines()


def is_stop(event: Event) -> bool:
    """Whether a run ended by a signal or its budget, with all of it kept, and not by a failure."""
    return event["event"] == "failed" and event.get("exit_code") == 75


def plan_lines(settings: dict[str, Any]) -> list[str]:
    """Each setting that was chosen for the person, with its reason."""
    return [
        f"plan  {name} = {words.number(setting['value'])}  ({setting['reason']})"
        for name, setting in settings.items()
    ]

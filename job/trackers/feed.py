"""The run's events, from where a tracker has got to, as the figures that trackers show."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from job.disk import replace_text
from job.events import FINAL, Event

MOST = 200  # events at a time
# Event: the name of its group, and the fields that are a curve.
CURVES = {
    "step": ("train", ("loss", "learning_rate", "grad_norm", "tokens_per_second", "cost_usd")),
    "eval": ("eval", ("loss", "accuracy")),
}


@dataclass(frozen=True)
class Point:
    """Figures of one optimizer step; `seconds` since 1970."""

    step: int
    seconds: float
    values: dict[str, float]


@dataclass
class News:
    """What some events tell.

    Attributes:
        settings: that were chosen, by name.
        outcome: how the run ended, if it has: `state` (`done` or `failed`) and what goes with it.
    """

    points: list[Point] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    outcome: dict[str, Any] | None = None


def news(events: Iterable[Event]) -> News:
    """The events in a tracker's terms."""
    told = News()
    for event in events:
        kind = event["event"]
        if kind in CURVES:
            told.points.append(_point(event))
        elif kind == "plan":
            told.settings |= {f"plan.{k}": v.get("value") for k, v in event["settings"].items()}
        elif kind == "trained":
            totals = event["training"].items()
            told.settings |= {f"training.{k}": v for k, v in totals if _is_number(v)}
        elif kind == "phase" and told.outcome is not None:
            told.outcome = None  # of an earlier start
        elif kind in FINAL:
            kept = ("message", "code", "exit_code", "phase", "retryable", "receipts", "cost_usd")
            told.outcome = {"state": kind} | {key: event[key] for key in kept if key in event}
    return told


def _point(event: Event) -> Point:
    group, fields = CURVES[event["event"]]
    values = {f"{group}/{name}": event[name] for name in fields if _is_number(event.get(name))}
    seconds = datetime.fromisoformat(event["time"]).timestamp()
    return Point(int(event["step"]), seconds, values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


class Feed:
    """Reads a growing events.jsonl, and remembers across restarts what was taken.

    Args:
        place: a small file for that.
    """

    def __init__(self, events: Path, place: Path) -> None:
        self._events, self._place = events, place
        self._taken = json.loads(place.read_bytes())["offset"] if place.exists() else 0
        self._next = self._taken
        self.taken()  # so that a later start knows that there may be something left

    def more(self) -> list[Event]:
        """The next events that are whole, the same ones until `taken`; [] when there are none."""
        with self._events.open("rb") as file:
            file.seek(self._taken)
            lines = [line for line, _ in zip(file, range(MOST), strict=False)]
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        self._next = self._taken + sum(map(len, lines))
        return [event for line in lines if (event := _parsed(line))]

    def taken(self, *, ended: bool = False) -> None:
        """What `more` gave is where it belongs.

        Args:
            ended: so is the end of the run.
        """
        self._taken = self._next
        replace_text(self._place, json.dumps({"offset": self._taken, "ended": ended}))


def _parsed(line: bytes) -> Event | None:
    """None for a line that a kill cut off."""
    try:
        event: Event = json.loads(line)
    except ValueError:
        return None
    return event

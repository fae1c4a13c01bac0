"""One stream of what happened: `events.jsonl`, its newest state in `status.json`, and listeners.

An event is a flat JSON object with `time` (ISO 8601, UTC), `event` (its kind) and the fields of
that kind. The kinds are listed in docs/architecture.md; the terminal, the report and the receipt
are all fed from here.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from job.disk import replace_text

EVENTS, STATUS = "events.jsonl", "status.json"
Event = dict[str, Any]
Listener = Callable[[Event], None]
# What is moved ("model", "adapter"), bytes done, bytes in all.
Progress = Callable[[str, int, int], None]

# Many a second, and of no use afterwards: shown, not kept.
TRANSIENT = frozenset({"progress"})
# How a run ends; until then its state is `running`.
FINAL = frozenset({"done", "failed"})
# The newest value of each of these makes up status.json.
STATUS_FIELDS = ("phase", "step", "of", "loss", "tokens_per_second", "eta_seconds", "cost_usd")
# Events that say what the run has cost until then, where its price is known.
WITH_COST = FINAL | {"phase", "step"}
# Their loss is that of other rows, their step that of an older checkpoint.
OF_ANOTHER = frozenset({"eval", "mirrored"})
STATUS_VERSION = 1  # of what status.json holds


def now() -> str:
    """This moment, UTC, as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def clean(value: Any, redact: Callable[[str], str]) -> Any:
    """The value as JSON knows it and without secrets: every text in it is redacted by itself.

    Never done on the JSON text, where a secret may end in the middle of an escape or be a number.
    A float that is not finite becomes None; what JSON does not know becomes text.
    """
    if isinstance(value, dict):
        return {redact(str(key)): clean(item, redact) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item, redact) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return redact(str(value))


class EventLog:
    """Writes events to a folder and hands each to the listeners; safe to call from any thread.

    Args:
        folder: where `events.jsonl` and `status.json` are kept; appended to, never truncated.
        redact: applied to every text of every event before it goes anywhere.
    """

    def __init__(self, folder: Path, redact: Callable[[str], str], *listeners: Listener) -> None:
        self.path = folder / EVENTS
        self.phase = "start"
        self._status_path = folder / STATUS
        self._status: Event = {"version": STATUS_VERSION, "state": "running"}
        self._cost: Callable[[], float | None] = lambda: None
        self.redact = redact
        self._tells_anyway = False
        self._listeners = list(listeners)
        self._lock = threading.Lock()
        torn = _is_torn(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")

    def listen(self, listener: Listener) -> None:
        """Hand every event from now on to `listener` too."""
        self._listeners.append(listener)

    def about(self, run: str, spec_hash: str, cost: Callable[[], float | None]) -> None:
        """Whose events these are, for status.json, and what that run has cost so far, in USD."""
        self._status |= {"run": run, "spec_hash": spec_hash}
        self._cost = cost

    def emit(self, kind: str, **fields: Any) -> None:
        """Record one event, its fields made JSON and freed of secrets (see `clean`)."""
        event: Event = {"time": now(), "event": kind, **clean(fields, self.redact)}
        if kind in WITH_COST and (cost := self._cost()) is not None:
            event["cost_usd"] = cost
        with self._lock:
            if self._file.closed:
                return
            if kind == "phase":
                self.phase = str(event["phase"])
            if kind not in TRANSIENT:
                self._keep(event)
            for listener in self._listeners:
                listener(event)

    def tell_anyway(self) -> None:
        """The run has failed: what a full disk does not keep from here on is still told."""
        self._tells_anyway = True

    def enter(self, phase: str, message: str = "") -> None:
        """Say that a new phase begins; a failure from here on is reported with its name."""
        self.emit("phase", phase=phase, message=message)

    def progress(self, what: str, done: int, total: int) -> None:
        """A `Progress` callback: bytes of a download or an upload."""
        self.emit("progress", what=what, done=done, total=total, unit="bytes")

    def close(self) -> None:
        """Close the file; what threads that were given up say later is dropped."""
        # A full disk was met, and told, when it was written to.
        with self._lock, contextlib.suppress(OSError):
            self._file.close()

    def _keep(self, event: Event) -> None:
        try:
            self._file.write(json.dumps(event, ensure_ascii=False) + "\n")
            self._file.flush()
            self._write_status(event)
        except OSError:
            if not self._tells_anyway:
                raise

    def _write_status(self, event: Event) -> None:
        self._status["time"] = event["time"]
        if event["event"] in FINAL:
            self._status["state"] = event["event"]
        if event["event"] not in OF_ANOTHER:
            self._status.update({key: event[key] for key in STATUS_FIELDS if key in event})
        if event["event"] == "step" and {"step", "of"} <= event.keys():
            self._status["percent"] = round(100 * event["step"] / event["of"], 1)
        elif event["event"] == "checkpoint":
            self._status["checkpoint"] = event["step"]
        replace_text(self._status_path, json.dumps(self._status))


def _is_torn(path: Path) -> bool:
    """Whether the process that wrote last was killed in the midst of a line."""
    with path.open("a+b") as file:
        if file.tell() == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"

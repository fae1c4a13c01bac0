"""One stream of what happened: `events.jsonl`, its newest state in `status.json`, and listeners.

An event is a flat JSON object with `time` (ISO 8601, UTC), `event` (its kind) and the fields of
that kind. The kinds are listed in docs/architecture.md; the terminal, the report and the receipt
are all fed from here.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Event = dict[str, Any]
Listener = Callable[[Event], None]
# What is moved ("model", "adapter"), bytes done, bytes in all.
Progress = Callable[[str, int, int], None]

# Many a second, and of no use afterwards: shown, not kept.
TRANSIENT = frozenset({"progress"})
# The newest value of each of these makes up status.json.
STATUS_FIELDS = ("phase", "step", "of", "loss", "tokens_per_second", "eta_seconds")


def now() -> str:
    """This moment, UTC, as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class EventLog:
    """Writes events to a folder and hands each to the listeners; safe to call from any thread.

    Args:
        folder: where `events.jsonl` and `status.json` are kept; appended to, never truncated.
        redact: applied to the JSON text of every event before it goes anywhere.
    """

    def __init__(self, folder: Path, redact: Callable[[str], str], *listeners: Listener) -> None:
        self.path = folder / "events.jsonl"
        self.phase = "start"
        self._status_path = folder / "status.json"
        self._status: Event = {}
        self._redact = redact
        self._listeners = list(listeners)
        self._lock = threading.Lock()
        self._file = self.path.open("a", encoding="utf-8")

    def listen(self, listener: Listener) -> None:
        """Hand every event from now on to `listener` too."""
        self._listeners.append(listener)

    def emit(self, kind: str, **fields: Any) -> None:
        """Record one event. Values must be JSON; a float that is not finite becomes null."""
        event = {"time": now(), "event": kind, **fields}
        text = self._redact(json.dumps(event, ensure_ascii=False, default=str))
        event = json.loads(text, parse_constant=lambda _: None)
        with self._lock:
            if kind == "phase":
                self.phase = str(event["phase"])
            if kind not in TRANSIENT:
                self._file.write(json.dumps(event, ensure_ascii=False) + "\n")
                self._file.flush()
                self._write_status(event)
            for listener in self._listeners:
                listener(event)

    def enter(self, phase: str, message: str = "") -> None:
        """Say that a new phase begins; a failure from here on is reported with its name."""
        self.emit("phase", phase=phase, message=message)

    def progress(self, what: str, done: int, total: int) -> None:
        """A `Progress` callback: bytes of a download or an upload."""
        self.emit("progress", what=what, done=done, total=total, unit="bytes")

    def close(self) -> None:
        """Close the file; later events are a bug."""
        self._file.close()

    def _write_status(self, event: Event) -> None:
        self._status["time"] = event["time"]
        self._status["state"] = event["event"]
        self._status.update({key: event[key] for key in STATUS_FIELDS if key in event})
        aside = self._status_path.with_suffix(".tmp")
        aside.write_text(json.dumps(self._status), encoding="utf-8")
        os.replace(aside, self._status_path)

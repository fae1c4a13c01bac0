"""`events.jsonl` and `status.json` at the destinations: copied there as they grow."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from job.errors import JobError
from job.events import EVENTS, STATUS, EventLog

if TYPE_CHECKING:
    from job.store import Destination

EVERY = 30.0  # seconds between two copies, at least
SHARE = 0.05  # of the time that copying takes at most, where the files are large or the store slow
LAST_WORDS = 10.0  # seconds that the end of a run gives to the last copy


class LogMirror:
    """Copies both files to every destination whose claim this run holds, from a thread of its own.

    What a destination does not take costs one warning, and is there with the next copy. The events
    of earlier starts on another machine, which only a destination has, are kept before ours.

    Args:
        folder: the run's, which holds the files; their content was redacted when it was written.
    """

    def __init__(
        self, folder: Path, spec_hash: str, destinations: list[Destination], log: EventLog
    ) -> None:
        self._folder, self._spec_hash = folder, spec_hash
        self._destinations, self._log = destinations, log
        self._earlier: dict[str, bytes] = {}  # by destination: events that are only there
        self._copied: dict[str, tuple[bytes, bytes]] = {}
        self._refused: set[str] = set()
        self._ends, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="log mirror", daemon=True)

    def start(self) -> None:
        """The claims are held: begin."""
        self._thread.start()

    def finish(self, seconds: float = LAST_WORDS) -> None:
        """Copy what is there now and end; waited for so long at most."""
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def abandon(self) -> None:
        """End without waiting: nothing more is begun."""
        self._closed = True
        self._ends.set()

    def _run(self) -> None:
        last = False
        while not last and not self._closed:
            last, began = self._ends.is_set(), time.monotonic()
            for destination in self._destinations:
                self._copy(destination)
            self._ends.wait(max(EVERY, (time.monotonic() - began) / SHARE))

    def _copy(self, destination: Destination) -> None:
        events = (self._folder / EVENTS).read_bytes()
        events = events[: events.rfind(b"\n") + 1]  # a line may be half written
        now = (events, (self._folder / STATUS).read_bytes())
        uri = destination.uri
        if self._closed or self._copied.get(uri) == now:
            return
        try:
            if uri not in self._earlier:
                self._earlier[uri] = self._found(destination, events)
            destination.put_log({EVENTS: self._earlier[uri] + events, STATUS: now[1]})
        except JobError as error:
            if uri not in self._refused and not self._closed:
                message = f"{uri}: {EVENTS} and {STATUS} are not up to date there: {error.message}"
                self._log.emit("warning", message=message)
            self._refused.add(uri)
        else:
            self._copied[uri] = now
            self._refused.discard(uri)

    def _found(self, destination: Destination, events: bytes) -> bytes:
        """The lines of this spec's run that are at a destination, and not here."""
        status = destination.read_log(STATUS)
        there = destination.read_log(EVENTS)
        if status is None or there is None or self._spec_hash.encode() not in status:
            return b""
        first_of_ours = events[: events.index(b"\n") + 1]
        return there.partition(first_of_ours)[0]

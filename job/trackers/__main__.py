"""A tracker's process: `python -m job.trackers` follows a run's events and feeds one tracker.

SIGTERM says that the run has ended: what is left is sent, and then the process ends. It tries for
as long as it is let; the supervisor gives it a time.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from job.channel import EVENTS_FD_VARIABLE, Channel, end_with_supervisor
from job.trackers import place_of
from job.trackers.clients import CLIENTS, Client
from job.trackers.feed import Feed, news

POLL, LONGEST = 1.0, 30.0  # seconds between two looks; at most, while the tracker does not answer


class Follower:
    """Sends news as they come, and again until they are taken.

    Args:
        ends: is set when the run has ended.
    """

    def __init__(self, request: dict[str, Any], channel: Channel, ends: threading.Event) -> None:
        self._request, self._channel, self._ends = request, channel, ends
        place = place_of(Path(request["folder"]), request["tracker"])
        self._feed = Feed(Path(request["events"]), place)
        self._client: Client | None = None
        self._has_outcome = False
        self._failures = 0  # in a row

    def follow(self) -> None:
        """Until the run has ended and everything is taken."""
        while True:
            ending = self._ends.is_set()  # looked at first, so that what was written by then counts
            try:
                client = self._send()
                if ending:
                    client.close()
                    self._feed.taken(ended=self._has_outcome)
                    return
            except Exception as error:  # whatever a library may raise
                self._failed(error)
            if ending:
                time.sleep(POLL)
            else:
                self._ends.wait(min(POLL * 2 ** min(self._failures, 10), LONGEST))

    def _send(self) -> Client:
        """Send all that is new."""
        if self._client is None:
            self._client = CLIENTS[self._request["tracker"]](self._request)
        while events := self._feed.more():
            told = news(events)
            self._client.send(told)
            if told.outcome or told.points:  # what is said after the end changes nothing of it
                self._has_outcome = told.outcome is not None
            self._feed.taken()
        if self._failures:
            self._channel.emit("log", message="answers again; what was missing is sent")
        self._failures = 0
        return self._client

    def _failed(self, error: Exception) -> None:
        if not self._failures:
            first = str(error).strip().partition("\n")[0][:300]
            message = f"{type(error).__name__}: {first}; the run goes on, it is tried again"
            self._channel.emit("warning", message=message)
        self._failures += 1


def main() -> None:
    """The process's story."""
    ends = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ends.set())
    end_with_supervisor()
    channel = Channel(int(os.environ[EVENTS_FD_VARIABLE]))
    channel.emit("ready")
    Follower(channel.receive(), channel, ends).follow()


if __name__ == "__main__":
    main()

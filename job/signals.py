"""What SIGTERM and SIGINT do to a run, by where it is."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from job.child import Child

_LAST_WORDS = 5  # seconds of the grace that are left to say how it ended


class StopNow(KeyboardInterrupt):
    """Raised by a signal in whatever the main thread does; holds the signal's name.

    Not an Exception, which libraries catch: botocore wraps one and sends its request again.
    """


class Signals:
    """The first signal stops a run in good order, the second one at once.

    Args:
        grace: seconds between the first signal and the end of the container.

    Attributes:
        child: the child that has its request, while it works: it gets the signal, and is killed
            when the grace is nearly over. At any other time the first signal raises StopNow.
        ending: it is decided how the run ends. A signal changes nothing of that; a second one only
            cuts short what is done under `interruptible`.
    """

    def __init__(self, grace: float) -> None:
        self.child: Child | None = None
        self.ending = False
        self._grace = grace
        self._count = 0
        self._first_at = 0.0
        self._interruptible = False
        self._held: int | None = None  # the number of a signal that waits; 0 for none

    @property
    def came(self) -> bool:
        """Whether there was a signal."""
        return self._count > 0

    @property
    def hurry(self) -> bool:
        """Whether there was a second one."""
        return self._count > 1

    def seconds_left(self) -> float:
        """Of the grace, less what the last words take; may be negative."""
        return self._first_at + self._grace - _LAST_WORDS - time.monotonic()

    def within_grace(self, seconds: float) -> float:
        """So many seconds, or what is left of the grace once a signal came; at least one."""
        return min(seconds, max(self.seconds_left(), 1.0)) if self.came else seconds

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle both signals while the block runs."""
        both = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._handle) for number in both}
        try:
            yield
        finally:
            for number, previous in before.items():
                signal.signal(number, previous)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """What a second signal may cut short though the run is ending."""
        with contextlib.suppress(StopNow):
            try:
                self._interruptible = True
                yield
            finally:
                self._interruptible = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """A signal counts after the block, e.g. so that no child is started and forgotten."""
        self._held = 0
        try:
            yield
        finally:
            number, self._held = self._held, None
        if number:
            self._handle(number, None)

    def _handle(self, number: int, _: Any) -> None:
        if self._held is not None:
            self._held = number
            return
        self._count += 1
        if self._count == 1:
            self._first_at = time.monotonic()
        if self.ending:
            if self.hurry and self._interruptible:
                raise StopNow(signal.Signals(number).name)
        elif self.child is None:
            raise StopNow(signal.Signals(number).name)
        elif self.hurry:
            self.child.end()
        else:
            self.child.stop()
            timer = threading.Timer(max(self.seconds_left(), 1), self.child.kill)
            timer.daemon = True
            timer.start()

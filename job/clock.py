"""How long a run has taken in all its starts, and how fast this machine reads and writes.

`seconds.json` in the run's folder is written every few seconds while the run works, so that a kill
loses no more than that; a checkpoint carries the count to another machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from job import budget
from job.disk import replace_text
from job.spec import JobSpec

SECONDS = "seconds.json"
_EVERY = 5.0  # seconds between two writings
_PROBE = 32 * 2**20  # bytes


class Clock:
    """The clock of one run.

    Args:
        folder: the run's.

    Attributes:
        ended: the budget, in seconds, that ended the training before; None if none did.
    """

    def __init__(self, spec: JobSpec, folder: Path) -> None:
        self._spec, self._path = spec, folder / SECONDS
        self._started = self._written = time.monotonic()
        self._before = 0.0
        self.ended: float | None = None
        if self._path.exists():
            self._before = json.loads(self._path.read_bytes())["seconds"]
        self._fetched, self._fetching = 0, 0.0
        self._moving: tuple[str, int, float] = ("", 0, 0.0)

    def used(self) -> float:
        """Seconds of all starts."""
        return float(self._before + time.monotonic() - self._started)

    def cost(self) -> float | None:
        """US dollars of all starts until now; None where the machine's price is not known."""
        price = self._spec.gpu_usd_per_hour
        return None if price is None else round(self.used() / 3600 * price, 4)

    def take_over(self, checkpoint: Path) -> None:
        """Count what a run that began elsewhere took until this checkpoint."""
        progress = json.loads((checkpoint / "progress.json").read_bytes())
        facts = progress.get("budget") or {"used": 0.0, "ended": None}
        self._before = max(self._before, facts["used"])
        self.ended = facts["ended"]

    def tick(self) -> None:
        """Remember it, if it is due."""
        if time.monotonic() - self._written >= _EVERY:
            self.write()

    def write(self) -> None:
        """Remember it now; a full disk is told by whoever needs to write."""
        self._written = time.monotonic()
        with contextlib.suppress(OSError):
            replace_text(self._path, json.dumps({"seconds": round(self.used(), 3)}))

    def fetched(self, what: str, done: int, total: int) -> None:
        """A `Progress` of a download, for its rate."""
        name, before, at = self._moving
        now = time.monotonic()
        if what == name and done > before:
            self._fetched += done - before
            self._fetching += now - at
        self._moving = (what, done, now)

    def request(self, written: int) -> dict[str, object] | None:
        """What `job.budget.Meter` needs to know; None when the spec names no time and no money.

        Args:
            written: bytes of the results.
        """
        spec = self._spec
        if not budget.is_set(spec):
            return None
        rate = disk_rate(self._path.parent)
        # Nothing was sent yet: a network is taken to send as fast as it fetched.
        over_network = self._fetched / self._fetching if self._fetching > 0.1 else rate
        sent = [written / (rate if ref.scheme == "file" else over_network) for ref in spec.output]
        return {
            "limit": budget.limit_of(spec),
            "used": self.used(),
            "closing": written / rate + sum(sent),
            "shorten": spec.budget_policy == "shorten",
            "usd_per_hour": spec.gpu_usd_per_hour,
            "raise": budget.way_out(spec),
        }


def disk_rate(folder: Path) -> float:
    """Bytes a second that a file in `folder` is written with, measured on a small one."""
    path = folder / ".rate"
    started = time.monotonic()
    try:
        with path.open("wb") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)
    return _PROBE / max(time.monotonic() - started, 1e-6)

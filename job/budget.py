"""Time and money: what the rest of a run will take, and how long its training may go on. Pure.

All times are in seconds, all prices in US dollars. The clock of a run is the sum of what its
starts took, on whatever machine: that is what is paid for. The time between two starts is not.

What comes after the training is kept in reserve, estimated from what this start measured: the
base is loaded three more times (by the merge, and twice by the verifier), the weights are written
and sent, the held-out rows are evaluated once more; half as much again for what is not known.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from job.errors import SpecError, Stopped

if TYPE_CHECKING:
    from job.spec import JobSpec

SKIPPED = 2  # first steps of a process: kernels are compiled and tuned in them
MEASURED = 5  # steps after them, whose mean counts
MARGIN = 1.5
SLACK = 0.95  # of the steps that time is left for are kept, when some took longer than expected
LOADS = 3


class Emitter(Protocol):
    """What a `job.channel.Channel` is here."""

    def emit(self, kind: str, **fields: Any) -> None: ...


Warp = tuple[int, int, int]  # at this step, from so many steps in all, to so many


def limit_of(spec: JobSpec) -> float | None:
    """Seconds that the run may take; None without a budget."""
    limits = [spec.max_hours] if spec.max_hours else []
    if spec.max_cost_usd and spec.gpu_usd_per_hour:
        limits.append(spec.max_cost_usd / spec.gpu_usd_per_hour)
    return min(limits) * 3600 if limits else None


def is_set(spec: JobSpec) -> bool:
    """Whether the spec asks about time or money at all."""
    return limit_of(spec) is not None or spec.gpu_usd_per_hour is not None


def way_out(spec: JobSpec) -> str:
    """The keys that give a run more, in a sentence's words."""
    keys = ["JOB_MAX_HOURS"] if spec.max_hours else []
    return " and ".join(keys + (["JOB_MAX_COST_USD"] if spec.max_cost_usd else []))


def require_left(spec: JobSpec, used: float, ended: float | None = None) -> None:
    """Refuse to begin a training whose time is over.

    Args:
        ended: the budget that ended it before.

    Raises:
        SpecError: with the keys to raise. A checkpoint that is there stays.
    """
    limit = limit_of(spec)
    if limit is not None and (used >= limit or (ended is not None and limit <= ended)):
        raise SpecError(
            f"The budget of {span(limit)} is spent: earlier starts of this run took {span(used)}. "
            f"Raise {way_out(spec)} to go on from the newest checkpoint."
        )


def warped(step: float, warps: list[Warp]) -> float:
    """Where on its first schedule a shortened training is.

    From the step at which it was shortened, what was left is gone through faster: the learning
    rate goes on from where it is, and ends where it would have ended.
    """
    for at, before, after in reversed(warps):
        if step > at:
            step = at + (step - at) * (before - at) / (after - at)
    return step


class Meter:
    """Watches the training's clock, step by step.

    Args:
        request: `limit` (None: no budget), `used` by earlier phases and starts when it was sent,
            `closing` (to write and send the results), `shorten`, `usd_per_hour` (or None), and
            `raise` (the keys to raise); None when the spec names neither time nor money.
        planned: optimizer steps of the spec.
        channel: takes the event `budget`.
        clock: seconds that only grow.

    Attributes:
        steps: optimizer steps to do.
        ended: the time is over; what is done is to be kept, and training to stop.
    """

    def __init__(
        self,
        request: dict[str, Any] | None,
        planned: int,
        channel: Emitter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.steps = self.planned = planned
        self.ended = False
        self.warps: list[Warp] = []
        self._request, self._channel, self._clock = request, channel, clock
        self._received = self._loaded = self._last = clock()
        self._reserve = 0.0
        self._taken: list[float] = []

    def resume(self, facts: dict[str, Any]) -> None:
        """Keep the plan of an earlier process, which its checkpoint holds."""
        self.warps = [(at, before, after) for at, before, after in facts["warps"]]
        if self.warps:
            self.steps = self.warps[-1][2]

    def facts(self) -> dict[str, Any]:
        """What goes into a checkpoint: seconds so far, how the schedule was shortened, and the
        limit that ended it, or null."""
        ended = self._request["limit"] if self._request and self.ended else None
        warps = [list(warp) for warp in self.warps]
        return {"used": self.used(), "warps": warps, "ended": ended}

    def used(self) -> float:
        """Seconds of the whole run."""
        before = self._request["used"] if self._request else 0.0
        return float(before) + self._clock() - self._received

    def loaded(self) -> None:
        """The model is loaded, which is all that was done since the request."""
        self._loaded = self._clock()

    def start(self) -> None:
        """The held-out rows are evaluated, which is all that was done since; training begins."""
        self._last = self._clock()
        if self._request:
            closing = LOADS * (self._loaded - self._received) + float(self._request["closing"])
            self._reserve = MARGIN * closing + self._last - self._loaded

    def evaluated(self) -> None:
        """Held-out rows were evaluated between two steps, which belongs to neither."""
        self._last = self._clock()

    def stepped(self, step: int) -> bool:
        """A step is done. True when the training has just been shortened.

        Raises:
            SpecError: it will not fit, and is not to be shortened.
        """
        now = self._clock()
        self._taken.append(now - self._last)
        self._last = now
        if self._request is None or step >= self.steps:
            return False
        request, limit = self._request, self._request["limit"]
        hopeless = limit is not None and self.used() + self._reserve > limit
        measured = len(self._taken) - SKIPPED
        if measured == MEASURED or (measured < MEASURED and hopeless):
            return self._calibrated(step)
        if measured < MEASURED:
            return False
        if limit is not None and request["shorten"] and self._falls_behind(step, limit):
            return True
        # One step more, or what follows would not be done in time.
        self.ended = limit is not None and self.used() + self._pace() + self._reserve > limit
        return False

    def stop(self, step: int) -> Stopped:
        """The error for a training whose time is over."""
        assert self._request is not None  # noqa: S101 - else it has no end
        return Stopped(
            f"The budget of {span(self._request['limit'])} ends after step {step} of {self.steps}, "
            f"which is kept. Raise {self._request['raise']} to go on from there."
        )

    def _pace(self) -> float:
        """Seconds of a step: of the newest that count."""
        counted = self._taken[SKIPPED:][-MEASURED:] or self._taken[-1:]
        return sum(counted) / len(counted)

    def _calibrated(self, step: int) -> bool:
        """Compare what is left to do with what is left to spend."""
        request, pace, used = self._request or {}, self._pace(), self.used()
        limit, to_do = request["limit"], self.steps - step
        whole = used + to_do * pace + self._reserve
        fits = limit is None or whole <= limit
        self._tell(step, pace, whole, fits=fits)
        if limit is None or fits:
            return False
        affordable = int((limit - used - self._reserve) / pace)
        needed = f"This job needs {span(whole)} ({span(pace)} a step, {span(self._reserve)} to "
        needed += f"save, merge, verify and publish), and its budget is {span(limit)}."
        if not request["shorten"] or affordable < 1:
            enough = f"JOB_MAX_STEPS={step + affordable}" if affordable > 0 else "a faster GPU"
            shorten = ", or JOB_BUDGET_POLICY=shorten" if affordable > 0 else ""
            raise SpecError(f"{needed} Raise {request['raise']}, or use {enough}{shorten}.")
        self._shorten(step, affordable, needed)
        return True

    def _falls_behind(self, step: int, limit: float) -> bool:
        """Shorten, or shorten again, when steps became slower than they were when calibrated."""
        counted = self._taken[SKIPPED:]
        pace, left = sum(counted) / len(counted), limit - self.used() - self._reserve
        if (self.steps - step) * pace <= left:
            return False
        affordable = int(SLACK * left / pace)
        if affordable < 1:
            return False
        self._shorten(step, affordable, "Steps take longer than before.")
        return True

    def _shorten(self, step: int, affordable: int, why: str) -> None:
        self.warps.append((step, self.steps, step + affordable))
        message = f"{why} Shortened from {self.steps} to {step + affordable} steps."
        self.steps = step + affordable
        self._channel.emit("warning", message=message)

    def _tell(self, step: int, pace: float, whole: float, *, fits: bool) -> None:
        request = self._request or {}
        price, limit = request["usd_per_hour"], request["limit"]
        cost = round(whole / 3600 * price, 4) if price else None
        money = f", ${cost:,.2f}" if cost is not None else ""
        of = f" of {span(limit)}" if limit is not None else ""
        self._channel.emit(
            "budget",
            message=f"whole run {span(whole)}{of}{money}; {span(pace)} a step, "
            f"{span(self._reserve)} in reserve for what follows",
            step=step,
            of=self.steps,
            seconds_per_step=round(pace, 4),
            reserve_seconds=round(self._reserve, 1),
            whole_seconds=round(whole, 1),
            limit_seconds=limit,
            cost_usd=cost,
            fits=fits,
        )


def span(seconds: float) -> str:
    """A time as a person reads it: "0.42 s", "12 min", "3.5 h"."""
    if seconds < 600:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

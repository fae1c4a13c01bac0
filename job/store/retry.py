"""Bounded retries of what may pass: the one policy of all network destinations."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import tenacity

BUDGET_SECONDS = 300.0
QUICK_SECONDS = 30.0  # for what somebody waits for: checks, and beats of a claim
UPLOAD_SECONDS = 1800.0  # for results, once there are any
_SHORTEST, _LONGEST = 0.5, 30.0  # seconds between two attempts
_DAMAGED_ATTEMPTS = 5  # a network that goes on damaging what it carries does not heal by waiting


class Emit(Protocol):
    """Hears of each retry and each file that is sent; `EventLog.emit` is one."""

    def __call__(self, kind: str, **fields: Any) -> None: ...


def to_logging(kind: str, **fields: Any) -> None:
    """Where no event log was given."""
    if "message" in fields:
        logging.getLogger(__name__).warning("%s", fields["message"])


@dataclass(frozen=True)
class Policy:
    """How long a destination is asked again, and who hears of it.

    Attributes:
        seconds: without any success, after which something is given up.
    """

    seconds: float = BUDGET_SECONDS
    emit: Emit = to_logging

    def within(self, seconds: float) -> Self:
        return replace(self, seconds=seconds)

    def budget(self) -> Budget:
        return Budget(self.seconds)


class Budget:
    """What one request or one object, sent by several threads, may spend on trouble.

    It is full again with every success: an object that gets on, however slowly, is not given up.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._since = seconds, time.monotonic()
        self.stopped = threading.Event()  # ends every pause, and lets no other attempt begin

    def refill(self) -> None:
        self._since = time.monotonic()

    @property
    def left(self) -> float:
        return self._since + self._seconds - time.monotonic()


class Damaged(Exception):
    """What the destination got or holds is not what was sent; sending it again may help."""


def retrying(
    what: str,
    budget: Budget,
    policy: Policy,
    transient: Callable[[BaseException], bool],
    why: Callable[[BaseException], str],
) -> tenacity.Retrying:
    """Attempts with decorrelated jitter between them, until one succeeds or the budget is spent.

    The pause is drawn between half a second and three times the one before, at most 30 s (M.
    Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015; tenacity 9 has no such
    wait). The last error is raised as it is. Each retry is told by what `why` makes of the error,
    since texts of foreign errors may hold signed URLs.
    """
    pause, damaged = _SHORTEST, 0

    def wait(state: tenacity.RetryCallState) -> float:
        nonlocal pause
        pause = min(_LONGEST, random.uniform(_SHORTEST, 3 * pause))  # noqa: S311
        return min(pause, max(budget.left, 0))

    def stop(state: tenacity.RetryCallState) -> bool:
        nonlocal damaged
        damaged += isinstance(_error(state), Damaged)
        return budget.stopped.is_set() or budget.left <= 0 or damaged >= _DAMAGED_ATTEMPTS

    def note(state: tenacity.RetryCallState) -> None:
        reason, left = why(_error(state)), round(max(budget.left, 0))
        policy.emit(
            "retry",
            message=f"{what}: {reason}; attempt {state.attempt_number + 1} follows in "
            f"{state.upcoming_sleep:.1f} s, {left} s are left for it",
            what=what,
            why=reason,
            attempt=state.attempt_number + 1,
            wait_seconds=round(state.upcoming_sleep, 2),
            budget_left_seconds=left,
        )

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(transient),
        stop=stop,
        wait=wait,
        sleep=tenacity.sleep_using_event(budget.stopped),
        before_sleep=note,
        reraise=True,
    )


def _error(state: tenacity.RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    if error is None:
        raise TypeError("asked about an attempt that did not fail")
    return error

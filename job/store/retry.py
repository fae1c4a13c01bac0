"""Bounded retries of what may pass: the one policy of all network destinations."""

from __future__ import annotations

import logging
from collections.abc import Callable

import tenacity

log = logging.getLogger(__name__)

BUDGET_SECONDS = 300.0
QUICK_SECONDS = 30.0  # for what somebody waits for: checks, and beats of a claim


def retrying(
    what: str, budget: float, transient: Callable[[BaseException], bool]
) -> tenacity.Retrying:
    """Attempts with exponential jittered pauses (at most 30 s) for `budget` seconds.

    The last error is raised as it is. Each retry is logged by the error's type only, since texts
    of foreign errors may hold signed URLs.
    """

    def note(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("%s: attempt %d: %s", what, state.attempt_number, type(error).__name__)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(transient),
        stop=tenacity.stop_after_delay(budget),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=30),
        before_sleep=note,
        reraise=True,
    )


class Damaged(Exception):
    """What the destination holds is not what was sent; sending it again may help."""

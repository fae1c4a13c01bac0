"""Progress of a serverless job: the newest state, sent in order, and never after the result.

The SDK's own `progress_update` (runpod 1.12.0, rp_progress.py) starts a thread for each update:
they overtake each other, and some arrive after the result. One task sends instead, through the
same function of the SDK; tests/runpod/test_worker.py would tell if that function went away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from job.events import Event

EVERY = 2.0  # seconds between two updates
_SHOWN = ("phase", "step", "of", "loss", "eta_seconds", "tokens_per_second", "cost_usd")
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Progress:
    """Sends what `handle` was told; as an async context manager, it is silent afterwards."""

    def __init__(self, send: Send, every: float) -> None:
        self._send, self._every = send, every
        self._state: dict[str, Any] = {}
        self._news = asyncio.Event()
        self._closing = asyncio.Event()

    def handle(self, event: Event) -> None:
        """Take over what one event of the run tells."""
        told = {key: event[key] for key in _SHOWN if key in event}
        if event["event"] in ("phase", "step", "resumed") and told:
            self._state |= told
            self._news.set()

    async def __aenter__(self) -> Progress:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Waits for an update that is on its way: at most the SDK's own patience, about 5 s."""
        self._closing.set()
        self._news.set()
        await self._task

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._closing.is_set():
                return
            await self._send(dict(self._state))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._every)

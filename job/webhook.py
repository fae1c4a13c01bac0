"""Each change of a run's state, posted to an address: signed, retried, never waited for.

A thread of its own sends, so a receiver that is down or slow costs the run nothing. What waits is
at most the newest `MOST_WAITING` states. A receiver is looked up once and must be on the public
internet (see job.sources.address); nothing is followed to another address.

Signed as Stripe and GitHub do it: `X-Signature: t=<unix seconds>,v1=<hex>`, the HMAC-SHA256 of
"<unix seconds>.<body>" with JOB_WEBHOOK_SECRET. A receiver computes the same over the raw body,
compares in constant time, and refuses a timestamp that is minutes old.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from job.errors import JobError
from job.events import Event, EventLog
from job.sources.address import Address, is_global, resolve

# What is a change of state; steps and transfers are not.
STATES = ("phase", "resumed", "trained", "done", "failed")
FIELDS = ("phase", "message", "step", "receipts", "code", "exit_code", "retryable")
TRIES, FIRST_WAIT, TIMEOUT = 4, 1.0, 5.0  # seconds; waits double: 1, 2, 4
MOST_WAITING = 50
LAST_WORDS = 4.0  # seconds that the end of a run gives to what still waits


def signature(secret: str, body: bytes, timestamp: int) -> str:
    """The header's value for a body sent at `timestamp`, seconds since 1970."""
    signed = f"{timestamp}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


@contextlib.contextmanager
def told(url: str | None, run: str, secret: str | None, log: EventLog) -> Iterator[None]:
    """While it is entered, each change of state in `log` is posted to `url`, if there is one."""
    if url is None:
        yield
        return
    hook = Webhook(url, run, secret, lambda message: log.emit("warning", message=message))
    log.listen(hook.handle)
    try:
        yield
    finally:
        hook.close()


class Webhook:
    """An event listener that posts state changes.

    Args:
        run: the run's name, which goes with each state.
        secret: signs; None leaves the signature out.
        warn: hears once of a receiver that does not take what it is sent.
        is_allowed: which addresses may be reached; a test that serves on this machine says so.
        first_wait: seconds before the second try.
        timeout: seconds that one try may take to connect, and to be answered.
    """

    def __init__(
        self,
        url: str,
        run: str,
        secret: str | None,
        warn: Callable[[str], None],
        *,
        is_allowed: Callable[[Address], bool] = is_global,
        first_wait: float = FIRST_WAIT,
        timeout: float = TIMEOUT,
    ) -> None:
        self._url, self._run, self._secret, self._warn = url, run, secret, warn
        self._is_allowed, self._first_wait, self._timeout = is_allowed, first_wait, timeout
        self._waiting: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._warned = False
        self._ends = threading.Event()
        self._number = 0
        self._thread = threading.Thread(target=self._send_all, name="webhook", daemon=True)
        self._thread.start()

    def handle(self, event: Event) -> None:
        """Take over one event; returns at once."""
        if event["event"] not in STATES:
            return
        self._number += 1
        state: dict[str, Any] = {"version": 1, "run": self._run, "number": self._number}
        state |= {"time": event["time"], "state": event["event"]}
        state |= {key: event[key] for key in FIELDS if key in event}
        self._put(json.dumps(state, ensure_ascii=False).encode())

    def close(self) -> None:
        """Send what still waits, for `LAST_WORDS` seconds at most."""
        self._put(None)
        self._thread.join(LAST_WORDS)
        self._ends.set()

    def _put(self, item: bytes | None) -> None:
        """Queue it; where there is no room, the oldest makes some."""
        while True:
            try:
                self._waiting.put_nowait(item)
                return
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._waiting.get_nowait()

    def _send_all(self) -> None:
        while (body := self._waiting.get()) is not None and not self._ends.is_set():
            problem = self._send(body)
            if problem and not self._warned and not self._ends.is_set():
                self._warned = True
                self._warn(f"webhook: {problem}; the run goes on, later states are tried too")

    def _send(self, body: bytes) -> str:
        """Try until it is taken; "" or what went wrong at last."""
        wait, problem = self._first_wait, ""
        for number in range(TRIES):
            if number and self._ends.wait(wait):
                return problem
            wait *= 2 if number else 1
            problem, again = self._try(body)
            if not problem or not again:
                return problem
        return f"{problem}, {TRIES} times"

    def _try(self, body: bytes) -> tuple[str, bool]:
        """One attempt: what went wrong, and whether another may help."""
        import httpx

        parts = urlsplit(self._url)
        host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
        try:
            address = resolve(host, port, self._is_allowed, "JOB_WEBHOOK_URL")[0]
        except JobError as error:
            return error.message, error.retryable
        headers = {"Content-Type": "application/json", "User-Agent": "finetune-job"}
        headers["Host"] = parts.netloc
        if self._secret:
            headers["X-Signature"] = signature(self._secret, body, int(time.time()))
        # To the address that was checked, by the name that its certificate must have.
        url = httpx.URL(self._url).copy_with(host=str(address))
        try:
            with httpx.Client(
                timeout=self._timeout, trust_env=False, follow_redirects=False
            ) as client:
                answer = client.post(
                    url, content=body, headers=headers, extensions={"sni_hostname": host}
                )
        except httpx.HTTPError as error:
            return f"{host} did not answer ({type(error).__name__})", True
        if answer.is_success:
            return "", False
        again = answer.status_code >= 500 or answer.status_code in (408, 429)
        return f"{host} answered {answer.status_code}", again

"""Webhooks against a real server on loopback: healthy, down, slow, and answering errors."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from job import webhook
from job.webhook import Webhook, signature

SECRET = "canary-webhook-5f3a9c"
PHASE = {"event": "phase", "time": "2026-01-31T12:00:00+00:00", "phase": "train", "message": "go"}


class Receiver:
    """A server that keeps what it is posted and answers what it is told to."""

    def __init__(self) -> None:
        self.status: list[int] = []  # to answer with, the last one for ever; none is 204
        self.seconds = 0.0
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.taken: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers), body))
                time.sleep(receiver.seconds)
                status = receiver.status.pop(0) if len(receiver.status) > 1 else None
                status = status or (receiver.status[0] if receiver.status else 204)
                if status < 300:
                    receiver.taken.append(json.loads(body))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", receiver.url + "elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?team=a"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


class Sender:
    """A webhook that may reach this machine and does not wait long, and what it warned of."""

    def __init__(self, url: str, is_allowed: Callable[[Any], bool] | None = lambda _: True) -> None:
        self.warnings: list[str] = []
        allowed = {"is_allowed": is_allowed} if is_allowed else {}
        self.hook = Webhook(
            url, "run-a", SECRET, self.warnings.append, first_wait=0.01, timeout=0.5, **allowed
        )

    def send(self, *events: dict[str, Any]) -> float:
        """Seconds that the run was kept from its work."""
        began = time.monotonic()
        for event in events:
            self.hook.handle(event)
        return time.monotonic() - began


def test_each_state_change_arrives_once_in_order_and_signed(receiver: Receiver) -> None:
    sender = Sender(receiver.url)
    step = {"event": "step", "time": PHASE["time"], "step": 1, "of": 2, "loss": 1.0}
    end = {"event": "failed", "time": PHASE["time"], "phase": "train", "code": "data",
           "exit_code": 65, "retryable": False, "message": "m", "problems": ["row 3"]}  # fmt: skip
    sender.send(PHASE, step, end)
    sender.hook.close()
    assert [state["number"] for state in receiver.taken] == [1, 2]
    assert receiver.taken[0] == {
        "version": 1, "run": "run-a", "number": 1, "time": PHASE["time"], "state": "phase",
        "phase": "train", "message": "go",
    }  # fmt: skip
    assert receiver.taken[1]["state"] == "failed"
    assert receiver.taken[1]["exit_code"] == 65
    assert "problems" not in receiver.taken[1]
    for headers, body in receiver.got:
        stamp, mac = (part.split("=")[1] for part in headers["X-Signature"].split(","))
        expected = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256)
        assert mac == expected.hexdigest()
        assert abs(int(stamp) - time.time()) < 60
        assert SECRET not in f"{headers}{body!r}"
    assert sender.warnings == []


def test_the_signature_is_bound_to_body_time_and_secret() -> None:
    one = signature(SECRET, b"{}", 1)
    assert one == signature(SECRET, b"{}", 1)
    assert len({one, signature(SECRET, b"{ }", 1), signature(SECRET, b"{}", 2),
                signature("other", b"{}", 1)}) == 4  # fmt: skip


def test_an_error_of_the_server_is_tried_again_until_it_is_taken(receiver: Receiver) -> None:
    receiver.status = [500, 503, 204]
    sender = Sender(receiver.url)
    sender.send(PHASE)
    sender.hook.close()
    assert len(receiver.got) == 3
    assert len(receiver.taken) == 1
    assert len({body for _, body in receiver.got}) == 1
    assert sender.warnings == []


def test_a_server_that_always_fails_costs_a_bounded_number_of_tries_and_one_warning(
    receiver: Receiver,
) -> None:
    receiver.status = [500]
    sender = Sender(receiver.url)
    sender.send(PHASE, PHASE)
    sender.hook.close()
    assert len(receiver.got) == 2 * webhook.TRIES
    (warning,) = sender.warnings
    assert "127.0.0.1 answered 500, 4 times" in warning
    assert "the run goes on" in warning


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_a_refusal_is_not_repeated_and_no_other_address_is_followed(
    receiver: Receiver, status: int
) -> None:
    receiver.status = [status]
    sender = Sender(receiver.url)
    sender.send(PHASE)
    sender.hook.close()
    assert len(receiver.got) == 1
    assert f"answered {status}" in sender.warnings[0]


def test_a_server_that_is_down_costs_a_warning(receiver: Receiver) -> None:
    receiver.stop()
    sender = Sender(receiver.url)
    sender.send(PHASE)
    sender.hook.close()
    assert "did not answer (ConnectError)" in sender.warnings[0]


def test_a_slow_server_keeps_the_run_from_nothing(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.seconds = 30.0
    monkeypatch.setattr(webhook, "LAST_WORDS", 0.2)
    sender = Sender(receiver.url)
    taken = sender.send(*[PHASE] * 500)  # ten times what may wait
    began = time.monotonic()
    sender.hook.close()
    assert taken + time.monotonic() - began < 10  # far from one answer, or 500 timeouts
    assert receiver.taken == []


def test_an_address_that_is_not_public_is_refused_before_a_connection(receiver: Receiver) -> None:
    sender = Sender(receiver.url, is_allowed=None)
    sender.send(PHASE)
    sender.hook.close()
    assert receiver.got == []
    assert "127.0.0.1 is 127.0.0.1, which is no public address" in sender.warnings[0]

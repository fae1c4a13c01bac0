"""The stream of events: what is kept, what is shown, and what never gets into it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.events import EventLog, clean
from job.redact import MARK, Redactor

SECRET = "canary-secret-9f8e7d6c"


class Stream:
    """An EventLog, and readers of what it wrote."""

    def __init__(self, folder: Path, *secrets: str) -> None:
        self.folder = folder
        self.heard: list[dict[str, Any]] = []
        self.log = EventLog(folder, Redactor(secrets), self.heard.append)

    def kept(self) -> list[dict[str, Any]]:
        text = (self.folder / "events.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def status(self) -> dict[str, Any]:
        return json.loads((self.folder / "status.json").read_text(encoding="utf-8"))


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    stream = Stream(tmp_path, SECRET)
    yield stream
    stream.log.close()


def test_an_event_is_kept_and_shown_at_once(stream):
    stream.log.emit("step", step=1, of=60, loss=2.5)
    (event,) = stream.kept()
    assert event["event"] == "step"
    assert (event["step"], event["of"], event["loss"]) == (1, 60, 2.5)
    assert datetime.fromisoformat(event["time"]).utcoffset() == timedelta(0)
    assert stream.heard == [event]


def test_progress_is_shown_and_not_kept(stream):
    stream.log.progress("model", 5, 10)
    (event,) = stream.heard
    assert (event["what"], event["done"], event["total"]) == ("model", 5, 10)
    assert event["unit"] == "bytes"
    assert stream.kept() == []


def test_a_second_start_appends(tmp_path):
    for message in ("first", "second"):
        log = EventLog(tmp_path, Redactor([]))
        log.emit("log", message=message)
        log.close()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["first", "second"]


def test_the_phase_is_known_and_a_listener_may_come_later(stream):
    late: list[dict[str, Any]] = []
    assert stream.log.phase == "start"
    stream.log.enter("fetch", "downloading")
    stream.log.listen(late.append)
    stream.log.enter("train")
    assert stream.log.phase == "train"
    assert [event["phase"] for event in stream.heard] == ["fetch", "train"]
    assert [event["phase"] for event in late] == ["train"]


def test_the_status_is_the_newest_value_of_each_thing(stream):
    stream.log.enter("train")
    stream.log.emit("step", step=1, of=60, loss=2.5, tokens_per_second=90, eta_seconds=30)
    stream.log.emit("step", step=2, of=60, loss=2.25, eta_seconds=29)
    stream.log.emit("eval", step=2, loss=9.75)
    status = stream.status()
    assert status.pop("time") == stream.kept()[-1]["time"]
    assert status == {
        "version": 1,
        "state": "running",
        "percent": 3.3,
        "phase": "train",
        "step": 2,
        "of": 60,
        "loss": 2.25,
        "tokens_per_second": 90,
        "eta_seconds": 29,
    }


def test_the_end_stays_the_state_whatever_is_said_afterwards(stream, tmp_path):
    stream.log.emit("failed", message="no")
    stream.log.emit("warning", message="and the failure could not be published")
    assert stream.status()["state"] == "failed"
    again = Stream(tmp_path)
    again.log.enter("preflight")
    assert again.status()["state"] == "running"
    again.log.emit("done", message="yes")
    again.log.close()
    assert again.status()["state"] == "done"


def test_the_status_is_whole_whenever_it_is_read(stream):
    stream.log.enter("train")
    ended = threading.Event()

    def emit() -> None:
        for step in range(300):
            stream.log.emit("step", step=step, of=300, loss=1.0)
        ended.set()

    thread = threading.Thread(target=emit)
    thread.start()
    while not ended.is_set():
        assert stream.status()["phase"] == "train"
    thread.join()


def test_a_secret_is_nowhere(stream, tmp_path):
    stream.log.emit(
        "warning",
        message=f"https://me:{SECRET}@host/x and {SECRET}",
        nested=[{"deep": (f"Bearer {SECRET}",)}],
        **{SECRET: 1},
    )
    stream.log.enter(SECRET, SECRET)
    text = "".join(path.read_text() for path in tmp_path.iterdir()) + str(stream.heard)
    assert SECRET not in text
    assert MARK in text


def test_what_is_redacted_stays_json(tmp_path):
    # A pattern that ends at an escaped quote; secrets that are also a number and a word of JSON.
    stream = Stream(tmp_path, "1234", "true", "null")
    stream.log.emit("log", message='GET "https://h/x?token=abc" failed', step=12345, ok=True)
    stream.log.close()
    (event,) = stream.kept()
    assert event["message"] == f'GET "https://h/x?token={MARK}" failed'
    assert (event["step"], event["ok"]) == (12345, True)


def test_what_json_cannot_hold_becomes_null_or_text(stream):
    numbers = {"nan": float("nan"), "inf": float("inf"), "minus": -float("inf"), "fine": 0.5}
    stream.log.emit("step", loss=float("nan"), deep=[numbers], where=Path("/x"))
    (event,) = stream.kept()
    assert event["loss"] is None
    assert event["deep"] == [{"nan": None, "inf": None, "minus": None, "fine": 0.5}]
    assert event["where"] == "/x"
    assert stream.heard == [event]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@given(JSON)
def test_json_without_secrets_is_left_as_it_is(value):
    assert clean(value, lambda text: text) == value
    json.dumps(clean(value, Redactor(["a"])))


def test_threads_do_not_mix_their_lines(stream):
    def emit(number: int) -> None:
        for count in range(100):
            stream.log.emit("log", message="x" * 2000, thread=number, count=count)

    threads = [threading.Thread(target=emit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = stream.kept()
    assert kept == stream.heard
    for number in range(8):
        own = [event["count"] for event in kept if event["thread"] == number]
        assert own == list(range(100))


def test_a_line_that_a_kill_cut_off_does_not_spoil_the_next_one(tmp_path):
    (tmp_path / "events.jsonl").write_text('{"event": "step", "st')
    log = EventLog(tmp_path, Redactor([]))
    log.emit("log", message="started again")
    log.close()
    torn, whole = (tmp_path / "events.jsonl").read_text().splitlines()
    assert torn.endswith('"st')
    assert json.loads(whole)["message"] == "started again"


def test_a_checkpoint_that_arrives_late_does_not_turn_the_status_back(stream):
    stream.log.emit("step", step=9, of=12, loss=1.5)
    stream.log.emit("mirrored", step=8, uri="s3://bucket/run", seconds=2.0)
    assert stream.status()["step"] == 9


def test_the_status_tells_how_far_the_run_is_and_what_is_kept(stream):
    stream.log.emit("step", step=15, of=60, loss=2.5, tokens_per_second=540.0, eta_seconds=81)
    stream.log.emit("checkpoint", step=15, seconds=0.4)
    status = stream.status()
    assert (status["version"], status["state"], status["percent"]) == (1, "running", 25.0)
    assert (status["step"], status["of"], status["checkpoint"]) == (15, 60, 15)
    assert (status["loss"], status["tokens_per_second"], status["eta_seconds"]) == (2.5, 540.0, 81)

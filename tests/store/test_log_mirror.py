"""events.jsonl and status.json at a destination: a folder and a real S3 server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from job import log_mirror
from job.errors import UploadFailed
from job.events import EventLog
from job.log_mirror import LogMirror
from job.redact import Redactor
from job.store import Destination
from tests.jobs import until
from tests.store.conftest import OTHERS, OURS, Place, claim

SECRET = "canary-secret-9f8e7d6c"


class Machine:
    """A run's folder, its log, and the mirror of it."""

    def __init__(self, folder: Path, destination: Destination, spec_hash: str = OURS) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.log = EventLog(folder, Redactor([SECRET]))
        self.log.about("run-a", spec_hash, lambda: 1.25)
        self.mirror = LogMirror(folder, spec_hash, [destination], self.log)

    def warnings(self) -> list[str]:
        lines = (self.folder / "events.jsonl").read_text().splitlines()
        return [e["message"] for e in map(json.loads, lines) if e["event"] == "warning"]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_mirror, "EVERY", 0.05)
    monkeypatch.setattr(log_mirror, "SHARE", 1.0)


@pytest.fixture
def held(place: Place) -> Iterator[Destination]:
    destination = place.open()
    destination.acquire(claim("me"))
    yield destination
    destination.release()


def there(place: Place) -> tuple[list[dict], dict]:
    events = place.read("run-a/events.jsonl").decode().splitlines()
    return [json.loads(line) for line in events], json.loads(place.read("run-a/status.json"))


def has(place: Place, state: str, events: int) -> bool:
    if "run-a/status.json" not in place.files():
        return False
    lines, status = there(place)
    return status["state"] == state and len(lines) == events


def test_both_files_follow_the_run_to_its_end(place, held, tmp_path):
    machine = Machine(tmp_path / "work", held)
    machine.log.enter("data")
    machine.mirror.start()
    until(lambda: has(place, "running", 1), "the first copy")
    machine.log.emit("step", step=3, of=4, loss=1.5, eta_seconds=9)
    until(lambda: has(place, "running", 2), "the second copy")
    machine.log.emit("failed", message=f"no, {SECRET}")
    machine.mirror.finish()
    events, status = there(place)
    assert [event["event"] for event in events] == ["phase", "step", "failed"]
    assert (status["state"], status["percent"], status["cost_usd"]) == ("failed", 75.0, 1.25)
    assert (status["run"], status["spec_hash"]) == ("run-a", OURS)
    assert SECRET not in json.dumps([events, status])
    assert [key for key in place.files() if "claim" not in key] == [
        "run-a/events.jsonl",
        "run-a/status.json",
    ]


def test_what_an_earlier_start_on_another_machine_told_is_kept(place, held, tmp_path):
    for number in (1, 2, 3):
        folder = tmp_path / ("gone" if number == 1 else "new")  # the third start is on the second's
        machine = Machine(folder, held)
        machine.log.emit("log", message=f"start {number}")
        machine.mirror.start()
        machine.mirror.finish()
        machine.log.close()
    events, _ = there(place)
    assert [event["message"] for event in events] == ["start 1", "start 2", "start 3"]


def test_the_events_of_another_specs_run_are_not(place, held, tmp_path):
    for spec_hash in (OTHERS, OURS):
        machine = Machine(tmp_path / spec_hash, held, spec_hash)
        machine.log.emit("log", message=spec_hash)
        machine.mirror.start()
        machine.mirror.finish()
    events, status = there(place)
    assert [event["message"] for event in events] == [OURS]
    assert status["spec_hash"] == OURS


def test_nothing_is_written_without_the_claim(place, tmp_path):
    machine = Machine(tmp_path / "work", place.open())
    machine.log.enter("data")
    machine.mirror.start()
    machine.mirror.finish()
    assert place.files() == []
    assert machine.warnings() == []


def test_a_claim_that_was_lost_ends_the_writing_and_costs_one_warning(place, held, tmp_path):
    thief = {"owner": "another", "spec_hash": OURS, "beat": "1"}
    place.write("run-a/claim.json", json.dumps(thief).encode())
    machine = Machine(tmp_path / "work", held)
    machine.log.enter("data")
    machine.mirror.start()
    until(machine.warnings, "the warning")
    machine.log.emit("log", message="more")
    machine.mirror.finish()
    assert place.files() == ["run-a/claim.json"]
    (warning,) = machine.warnings()
    assert "events.jsonl and status.json are not up to date there" in warning
    assert "does not hold the run's claim" in warning


def test_a_destination_that_fails_for_a_while_has_everything_in_the_end(
    place, held, tmp_path, monkeypatch
):
    put, down = held.put_log, threading.Event()
    down.set()

    def breaks(files):
        if down.is_set():
            raise UploadFailed("the store is away")
        put(files)

    monkeypatch.setattr(held, "put_log", breaks)
    machine = Machine(tmp_path / "work", held)
    machine.log.enter("data")
    machine.mirror.start()
    until(machine.warnings, "the warning")
    for step in range(20):
        machine.log.emit("step", step=step, of=20)
    down.clear()
    until(lambda: has(place, "running", 22), "what was missed")
    machine.mirror.finish()
    assert len(machine.warnings()) == 1


def test_a_destination_that_hangs_keeps_the_run_from_nothing(held, tmp_path, monkeypatch):
    hanging = threading.Event()
    monkeypatch.setattr(held, "put_log", lambda files: hanging.wait(60))
    machine = Machine(tmp_path / "work", held)
    machine.log.enter("data")
    machine.mirror.start()
    machine.mirror.finish(0.1)  # returns, though the copy does not
    machine.mirror.abandon()
    assert machine.mirror._thread.is_alive()
    hanging.set()


def test_a_run_that_was_killed_after_its_receipt_does_not_run_for_ever(place, tmp_path):
    killed = place.open()
    killed.acquire(replace(claim("me"), beat_seconds=600))  # it beats no more
    machine = Machine(tmp_path / "work", killed)
    machine.log.enter("publish")
    machine.mirror.start()
    machine.mirror.finish()
    later = place.open()  # the next start, which finds the receipt and claims nothing
    later.tidy()
    assert there(place)[1]["state"] == "done"
    assert "run-a/claim.json" not in place.files()

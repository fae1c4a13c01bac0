"""A run that a drill breaks and starts again, until it is done."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from job.credentials import read_credentials
from job.receipt import verify_uri
from job.spec import read_spec
from tests.drills.trainer import WEIGHTS, Toy
from tests.jobs import ROOT, Ended, events, job, until, wait

STEPS = 12
LOG = ("events.jsonl", "status.json")
OFTEN = "1e-7"  # minutes: a checkpoint after every step


@dataclass
class Drill:
    """One job, its work dir and its destination.

    Attributes:
        folder: holds model, rows, `work/` and, unless told otherwise, `out/`.
        environ: of every start.
    """

    folder: Path
    environ: dict[str, str]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def run_folder(self) -> Path:
        return self.folder / "work/run-a"

    @property
    def place(self) -> Path:
        return self.folder / "out/run-a"

    def order(self, **what: Any) -> None:
        """What the next trainer does; see `tests.drills.trainer`."""
        self.run_folder.mkdir(parents=True, exist_ok=True)
        (self.run_folder / "drill.json").write_text(json.dumps(what))

    def start(self, command: str = "run", **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.drills.stand_in", command],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, command: str = "run", **environ: str) -> Ended:
        return wait(self.start(command, **environ))

    def killed_before(self, number: int) -> bool:
        """Start it to be killed before its n-th change of a file; whether it came that far."""
        folders = f"{self.folder}/work/run-a:{self.folder}/out"
        process = self.start(DRILL_KILL_BEFORE=str(number), DRILL_FOLDERS=folders)
        ended = wait(process)
        assert ended.code in (0, -signal.SIGKILL), ended.text
        return ended.code != 0

    def until_said(self, kind: str, **fields: Any) -> None:
        """Wait for an event."""

        def found() -> bool:
            return any(
                event["event"] == kind and fields.items() <= event.items() for event in self.said()
            )

        until(found, f"{kind} {fields}")

    def said(self, kind: str = "") -> list[dict[str, Any]]:
        return [event for event in events(self.folder) if kind in ("", event["event"])]

    def spec_hash(self) -> str:
        return read_spec(self.environ).spec_hash

    def moved(self) -> None:
        """The machine is gone with its work dir; the destination stays."""
        shutil.rmtree(self.folder / "work")

    def forget(self) -> None:
        """As if it had never been started."""
        for name in ("work", "out"):
            shutil.rmtree(self.folder / name)

    def is_done(self, ended: Ended) -> None:
        """The end: exit 0, all that was trained, a receipt that verifies, nothing else left."""
        assert ended.code == 0, ended.text
        uris = ended.line["receipt"]
        for uri in [uris] if isinstance(uris, str) else uris:
            receipt, problems = verify_uri(uri, read_credentials(self.environ))
            assert problems == []
            hashes = {file["path"]: file["sha256"] for file in receipt["files"]}
            assert hashes[f"adapter/{WEIGHTS}"] == sha256(
                trained_weights(int(self.environ["JOB_MAX_STEPS"]))
            )
        if self.environ["JOB_OUTPUT"] == f"file://{self.folder}/out":
            there = {str(p.relative_to(self.place)) for p in self.place.rglob("*") if p.is_file()}
            assert there == {*hashes, "receipt.json", *LOG}
            for name in LOG:  # the destination's own
                assert json.loads((self.place / name).read_text().splitlines()[-1])
            assert json.loads((self.place / "status.json").read_text())["state"] == "done"


def cpu_seconds() -> float:
    """Of all processes started here that have ended: what a busy machine does not change."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def trained_weights(steps: int, seed: int = 3407) -> bytes:
    """What an uninterrupted training ends with."""
    toy = Toy(seed)
    for _ in range(steps):
        toy.step()
    return b"".join(struct.pack("d", weight) for weight in toy.weights)


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Any]:
    """Makes drills, and leaves no process of theirs behind."""
    made: list[Drill] = []

    def make(more: Mapping[str, str] | None = None, **changes: str) -> Drill:
        settings = {"JOB_MAX_STEPS": str(STEPS), "JOB_CHECKPOINT_MINUTES": OFTEN, **changes}
        made.append(Drill(tmp_path, job(tmp_path, **settings) | dict(more or {})))
        return made[-1]

    yield make
    for process in [process for one in made for process in one.processes]:
        if process.poll() is None:
            process.kill()
            process.communicate()

"""A run that only speaks, and the trackers that hear it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from job.credentials import read_credentials
from job.events import EventLog
from job.redact import Redactor
from job.spec import read_spec
from job.trackers import Trackers
from tests.trackers.mlflow_server import Proxy, mlflow_server

SECRET = "canary-tracker-4d1c7b"
PATIENCE = 90.0  # seconds for a library's import, on a machine that does other things too


class Speaker:
    """A start of a run with trackers; its work dir may have seen another one before."""

    def __init__(self, folder: Path, report_to: str, **environ: str) -> None:
        self.folder = folder / "run-a"
        self.folder.mkdir(exist_ok=True)
        keys = {"model": "org/base", "dataset": "org/rows", "output": "file:///out"}
        keys |= {"report_to": report_to, "name": "run-a", "work_dir": str(folder)}
        self.spec = read_spec({"JOB_SPEC": json.dumps(keys)})
        credentials = read_credentials(environ)
        self.log = EventLog(self.folder, Redactor(credentials.values()))
        self.trackers = Trackers(self.spec, environ, credentials, self.log)

    def steps(self, first: int, last: int) -> float:
        """Tell of these steps; the seconds that this kept the run from its work."""
        began = time.monotonic()
        for step in range(first, last + 1):
            loss = None if step == 3 else 4.0 / step  # as a loss that is not finite is told
            point = {"learning_rate": 1e-4, "grad_norm": 1.5, "tokens_per_second": 90.0}
            self.log.emit("step", step=step, of=8, loss=loss, **point, eta_seconds=1)
        return time.monotonic() - began

    def whole(self) -> None:
        """All that a short run tells."""
        self.log.enter("train")
        plan = {"micro_batch_size": {"value": 4, "reason": "fits"}}
        self.log.emit("plan", settings=plan, estimates={})
        self.log.emit("eval", step=0, loss=2.5, accuracy=0.25)
        self.steps(1, 8)
        self.log.emit("eval", step=8, loss=1.5, accuracy=0.5)
        self.log.emit("trained", training={"steps": 8, "tokens": 800, "best_step": 8, "evals": []})
        self.log.emit("done", message="done", receipts=["file:///out/run-a/receipt.json"])

    def end(self, seconds: float = PATIENCE) -> float:
        """End this start; the seconds that it took."""
        began = time.monotonic()
        self.trackers.close(seconds)
        self.trackers.kill()
        self.log.close()
        return time.monotonic() - began

    def said(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.folder / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def warnings(self) -> list[str]:
        return [event["message"] for event in self.said("warning")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    proxy = Proxy(server)
    yield proxy
    proxy.stop()

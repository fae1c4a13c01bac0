"""Trackers (wandb, mlflow, trackio, tensorboard), each fed by a process of its own.

The trainer has neither network nor credentials, so it feeds none. `python -m job.trackers` follows
the run's events.jsonl instead, keeps its own place in it, and is the only process that gets that
tracker's credentials. One that is down, slow, hangs or refuses costs a warning; what it has not
taken is sent when it answers again, or by the next start of the same job.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.child import ALLOWED, Child
from job.errors import JobError, SpecError
from job.events import Event, EventLog, clean

if TYPE_CHECKING:
    from job.credentials import Credentials
    from job.spec import JobSpec

# Tracker, which is also the name of its extra in pyproject.toml: the module it needs.
MODULES = {
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
    "tensorboard": "tensorboardX",
}
PROJECT = "finetune-job"  # or what WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME say
LAST_WORDS = 15.0  # seconds that the end of a run gives to what is not taken yet
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")
_PASSED = (*ALLOWED, *_PROXIES, "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PYTHONPATH")


def require(spec: JobSpec, environ: Mapping[str, str], credentials: Credentials) -> None:
    """Refuse trackers that could not work here.

    Raises:
        SpecError: one is not installed, or does not know where to report to, or as whom.
    """
    problems = [problem for name in asked(spec) for problem in _lacks(name, environ, credentials)]
    if problems:
        raise SpecError("the trackers of JOB_REPORT_TO cannot be used", problems=problems)


def asked(spec: JobSpec) -> list[str]:
    """The trackers that the spec names."""
    return [name for name in spec.report_to if name != "none"]


def _lacks(name: str, environ: Mapping[str, str], credentials: Credentials) -> Iterator[str]:
    if importlib.util.find_spec(MODULES[name]) is None:
        yield (
            f"JOB_REPORT_TO: {name} is not installed here; install the extra `{name}` "
            f"(`uv sync --extra {name}`; `make image EXTRAS={name}`), or leave it away"
        )
    if name == "wandb" and not credentials.wandb_api_key and _mode(environ) != "offline":
        yield "JOB_REPORT_TO: wandb needs WANDB_API_KEY, or WANDB_MODE=offline"
    if name == "mlflow" and not environ.get("MLFLOW_TRACKING_URI", "").strip():
        yield "JOB_REPORT_TO: mlflow needs MLFLOW_TRACKING_URI, the address of its server"


def _mode(environ: Mapping[str, str]) -> str:
    return environ.get("WANDB_MODE", "").strip()


def environment(
    name: str, environ: Mapping[str, str], credentials: Credentials, folder: Path
) -> dict[str, str]:
    """What a tracker's process sees: its own settings and credentials, and no one else's.

    Args:
        folder: where its library may write.
    """
    prefix = f"{name.upper()}_"
    env = {key: value for key, value in environ.items() if key in _PASSED}
    env |= {
        key: value
        for key, value in environ.items()
        if key.startswith(prefix) and not key.endswith("_FILE")
    }
    env |= {key: value for key, value in credentials.tracking.items() if key.startswith(prefix)}
    if name == "wandb" and credentials.wandb_api_key:
        env["WANDB_API_KEY"] = credentials.wandb_api_key
    on_the_hub = {"TRACKIO_SPACE_ID", "TRACKIO_BUCKET_ID"} & env.keys()
    if name == "trackio" and on_the_hub and credentials.hf_token:
        env["HF_TOKEN"] = credentials.hf_token
    quiet = {"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    # Our own loop tries again, and sends what came meanwhile along with it.
    once = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
    places = {"TRACKIO_DIR": str(folder / "trackio"), "WANDB_DIR": str(folder)}
    named = {"WANDB_PROJECT": PROJECT}
    return {**quiet, **once, **places, **named, **env, "HOME": str(folder), "TMPDIR": str(folder)}


class Trackers:
    """The trackers of one run.

    Args:
        environ: of the program; each process sees a part of it.
        log: whose file they follow, and which hears their warnings.
    """

    def __init__(
        self,
        spec: JobSpec,
        environ: Mapping[str, str],
        credentials: Credentials,
        log: EventLog,
    ) -> None:
        self._spec, self._environ, self._credentials = spec, environ, credentials
        self._log, self._folder = log, log.path.parent / "trackers"
        self._running: list[_Process] = []

    def start(self) -> None:
        """Begin to feed all of them.

        Raises:
            SpecError: as `require`.
        """
        require(self._spec, self._environ, self._credentials)
        for name in asked(self._spec):
            self._start(name)

    def catch_up(self) -> None:
        """The run is finished: feed those that an earlier start could not tell everything."""
        for name in asked(self._spec):
            place = place_of(self._folder, name)
            if place.exists() and not json.loads(place.read_bytes())["ended"]:
                self._start(name)

    def close(self, seconds: float) -> None:
        """The run has ended: wait until they have taken everything, so long at most."""
        deadline = time.monotonic() + seconds
        for process in self._running:
            process.stop(deadline)
        for process in self._running:
            process.wait(deadline)

    def kill(self) -> None:
        """Leave none of them running."""
        for process in self._running:
            process.kill()

    def _start(self, name: str) -> None:
        self._folder.mkdir(exist_ok=True)
        request = {
            "tracker": name,
            "events": str(self._log.path),
            "folder": str(self._folder),
            "run": self._spec.run_name,
            "spec_hash": self._spec.spec_hash,
            "project": self._environ.get("MLFLOW_EXPERIMENT_NAME", "").strip() or PROJECT,
            "settings": clean(self._spec.public(), self._log.redact),
        }
        env = environment(name, self._environ, self._credentials, self._folder)
        self._running.append(_Process(name, env, request, self._log))


class _Process:
    """One tracker's process. What its library prints is nobody's: it may hold a secret."""

    def __init__(
        self, name: str, env: dict[str, str], request: dict[str, Any], log: EventLog
    ) -> None:
        self._name, self._request, self._log = name, request, log
        self._ready, self._closing = threading.Event(), False
        self._child = Child("job.trackers", env, Path(os.devnull), self._hear)
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """Ask it to end once everything is taken."""
        # It would die of a signal that comes before it is ready.
        self._ready.wait(max(deadline - time.monotonic(), 0))
        self._closing = True
        self._child.stop()

    def wait(self, deadline: float) -> None:
        """Until it has ended, or a moment of `time.monotonic` has come."""
        self._thread.join(max(deadline - time.monotonic(), 0))
        if self._thread.is_alive():
            self._warn(
                "not everything was taken in time; the rest is sent when the same job is started "
                "again in this work dir"
            )

    def kill(self) -> None:
        """End it if it has not ended."""
        self._closing = True
        self._child.kill()

    def _run(self) -> None:
        try:
            self._child.run(self._request)
        except JobError:
            if not self._closing:
                self._warn("its process died; what is left is sent by a later start of this job")
        self._ready.set()

    def _hear(self, event: Event) -> None:
        self._ready.set()
        if event["event"] in ("warning", "log"):
            self._log.emit(event["event"], message=f"{self._name}: {event['message']}")

    def _warn(self, message: str) -> None:
        with contextlib.suppress(OSError):  # the disk may be what the run fails for
            self._log.emit("warning", message=f"{self._name}: {message}")


def place_of(folder: Path, name: str) -> Path:
    """Where a tracker remembers how far it has come."""
    return folder / f"{name}.json"

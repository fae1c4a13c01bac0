"""The container engine, by its command line, and containers run as a careful person would."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

# Docker's /tmp is `noexec` unless one asks for `exec`; nobody should have to.
HARDENED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--network", "none", "--tmpfs", "/tmp:mode=1777,size=2g"),
)

# Seconds after which a container hangs. Results are asserted and not times, so it is far off.
HANGS = 3600


@dataclass(frozen=True)
class Ended:
    """How a container ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def last_line(self) -> dict[str, Any]:
        """The JSON object that closes stdout."""
        line: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return line

    @property
    def events(self) -> list[dict[str, Any]]:
        """What `JOB_LOG_FORMAT=json` wrote to stderr."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("{")]
        return [json.loads(line) for line in lines]


class Engine:
    """Runs one image. `mounts` are `-v` values that every container gets."""

    def __init__(self, docker: str, image: str, mounts: tuple[str, ...] = ()) -> None:
        self.docker, self.image, self.mounts = docker, image, mounts

    def call(self, *arguments: str, timeout: float = 60) -> str:
        """One command of the engine; its stdout."""
        done = subprocess.run(
            [self.docker, *arguments], capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == 0, f"{self.docker} {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def run(self, *command: str, env: Mapping[str, str] | None = None, options: str = "") -> Ended:
        """Run a container to its end, as the image's own user, hardened and offline."""
        started = time.monotonic()
        arguments = [self.docker, "run", "--rm", *self._options(env or {}), *options.split()]
        done = subprocess.run(
            [*arguments, self.image, *command], capture_output=True, text=True, timeout=HANGS
        )
        return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    def start(
        self, env: Mapping[str, str], *command: str, hardening: tuple[str, ...] = HARDENED
    ) -> Container:
        """Start a container in the background."""
        name = f"finetune-job-test-{uuid.uuid4().hex[:12]}"
        options = self._options(env, hardening)
        self.call("run", "--detach", "--name", name, *options, self.image, *command)
        return Container(self, name)

    def _options(self, env: Mapping[str, str], hardening: tuple[str, ...] = HARDENED) -> list[str]:
        variables = [f"--env={name}={value}" for name, value in env.items()]
        return [*hardening, *(f"--volume={mount}" for mount in self.mounts), *variables]


class Container:
    """One container in the background."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name = engine, name

    def wait_for(self, event: str) -> None:
        """Wait until the job tells of an event of that kind."""
        deadline = time.monotonic() + HANGS
        while f'"event": "{event}"' not in self._logs()[1]:
            state = self.engine.call("inspect", "--format", "{{.State.Status}}", self.name)
            assert state.strip() == "running", "".join(self._logs())
            assert time.monotonic() < deadline, f"no {event} in {HANGS} s: {self._logs()[1]}"
            time.sleep(0.5)

    def stop(self, grace: int) -> Ended:
        """`docker stop`: SIGTERM, and SIGKILL after `grace` seconds."""
        self.engine.call("stop", "--time", str(grace), self.name, timeout=grace + 60)
        return self._ended()

    def wait(self) -> Ended:
        """Wait for its end; `seconds` of the result are the container's own, by the engine."""
        self.engine.call("wait", self.name, timeout=HANGS)
        return self._ended()

    def changed(self) -> list[str]:
        """The paths of its root file system that it made or changed (`docker diff`)."""
        return [line.split(" ", 1)[1] for line in self.engine.call("diff", self.name).splitlines()]

    def _ended(self) -> Ended:
        form = "{{.State.ExitCode}} {{.State.StartedAt}} {{.State.FinishedAt}}"
        code, *times = self.engine.call("inspect", "--format", form, self.name).split()
        began, ended = (datetime.fromisoformat(time[:26]) for time in times)
        return Ended(int(code), *self._logs(), (ended - began).total_seconds())

    def remove(self) -> None:
        """Remove it, running or not."""
        self.engine.call("rm", "--force", self.name)

    def _logs(self) -> tuple[str, str]:
        done = subprocess.run(
            [self.engine.docker, "logs", self.name], capture_output=True, text=True, timeout=60
        )
        return done.stdout, done.stderr

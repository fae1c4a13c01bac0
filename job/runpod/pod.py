"""The life of a pod around one job: a wall-clock limit, a guard against crash loops, the end.

RunPod starts a container again when its command ends, whatever the exit code, and bills on. So the
command does not end before the pod does.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from job.credentials import Credentials
from job.runpod.ending import Action, Pod
from job.runpod.starts import Starts
from job.spec import JobSpec

LIMIT_HOURS = 24.0  # of a pod whose job has no JOB_MAX_HOURS
SPARE_HOURS = 1.0  # beyond JOB_MAX_HOURS, for what comes before and after training
REPEAT_SECONDS = 60.0
POLICIES = ("auto", "terminate", "stop", "exit", "hold")
Say = Callable[[str], None]


def limit_hours(spec: JobSpec) -> float:
    """How long a pod with this job may live."""
    return LIMIT_HOURS if spec.max_hours is None else float(spec.max_hours) + SPARE_HOURS


class PodLife:
    """Made before anything else is done: the limit runs from here on.

    Args:
        say: takes lines for the log.
        repeat: seconds between two rounds of asking for the end.
    """

    def __init__(
        self, environ: Mapping[str, str], say: Say, repeat: float = REPEAT_SECONDS
    ) -> None:
        self._pod, self._say, self._repeat = Pod.of(environ), say, repeat
        said = environ.get("JOB_ON_FINISH", "").strip()
        self._policy = said if said in POLICIES else "auto"  # until the spec is read
        self._grace = 25.0
        self._starts: Starts | None = None
        self._told = threading.Event()  # by SIGTERM: the platform ends the container
        self._over = threading.Event()  # the limit has passed
        self._working = True
        self._limit = time.monotonic() + LIMIT_HOURS * 3600
        threading.Thread(target=self._watch, name="pod limit", daemon=True).start()

    def begin(self, spec: JobSpec, credentials: Credentials) -> None:
        """The spec is read: its policy and limit hold, and this start is counted.

        Raises:
            InternalError: too many starts died without a word.
            JobError: the destination could not be asked.
        """
        self._policy, self._grace = spec.on_finish, float(spec.stop_grace)
        self.limit(limit_hours(spec))
        starts = Starts(spec, credentials)
        starts.begin()
        self._starts = starts  # one that was refused leaves the count as it is

    def limit(self, hours: float) -> None:
        """Let the pod end this long from now on."""
        self._limit = time.monotonic() + hours * 3600

    def finish(self, code: int) -> int:
        """End the pod as the policy says. Returns when the platform ends the container, or at once
        where the policy is `exit`."""
        before = signal.signal(signal.SIGTERM, self._on_signal)
        self._working = False
        action = self._action(code)
        if self._starts and action != "exit":
            self._starts.end()
        if action == "hold":
            self._say(f"the pod is held, and billed, until its limit or until you end it ({code})")
            while not (self._told.is_set() or self._over.is_set()):
                self._told.wait(1)
            action = "stop"
        if action != "exit":
            self._end("terminate" if action == "terminate" else "stop")
        signal.signal(signal.SIGTERM, before)
        return code

    def _action(self, code: int) -> str:
        if self._policy != "auto":
            return self._policy
        return "terminate" if code == 0 else "stop"

    def _end(self, action: Action) -> None:
        """Ask until this process is told to end: what was accepted may not have happened."""
        while not self._told.is_set():
            self._pod.end(action, self._say)
            self._told.wait(self._repeat)

    def _on_signal(self, *_: Any) -> None:
        self._told.set()

    def _watch(self) -> None:
        """When the limit has passed, stop the run in good order, and then the pod in any case."""
        while (left := self._limit - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
        self._over.set()
        if not self._working:
            return
        self._say("the pod has reached its time limit (JOB_MAX_HOURS sets it): the run is stopped")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self._grace + self._repeat)
        while self._working:  # it hangs, or the signal came where nothing heard it
            self._pod.end("terminate" if self._policy == "terminate" else "stop", self._say)
            time.sleep(self._repeat)

"""Follows a pod to its job's end. RunPod's API does not tell a container's exit code, so it is read
from what the run leaves at its destinations, or else from the last line that it prints."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from job.errors import JobError
from job.runpod.api import PodApi
from job.spec import JobSpec
from job.store import Destination, is_finished

Line = dict[str, Any]
ENDED = ("EXITED", "TERMINATED", "GONE")
POLL_SECONDS = 15.0
END_SECONDS = 180.0  # in which a pod whose job has ended should have ended itself


class Follower:
    """One pod.

    Args:
        destinations: of the run.
        poll: seconds between two looks.
    """

    def __init__(
        self,
        api: PodApi,
        pod: str,
        spec: JobSpec,
        destinations: list[Destination],
        say: Callable[[str], None],
        poll: float = POLL_SECONDS,
    ) -> None:
        self._api, self._pod, self._spec, self._say = api, pod, spec, say
        self._destinations, self._poll = destinations, poll
        self._known = [self._failure(destination) for destination in destinations]
        self._last: Line = {}  # what the job printed last
        self._over = threading.Event()

    def follow(self, until: float) -> Line | None:
        """The last line that the job printed, or would have; None when the time was over.

        Args:
            until: of the monotonic clock.
        """
        threading.Thread(target=self._read_logs, name="logs", daemon=True).start()
        status = ""
        try:
            while time.monotonic() < until:
                now = self._status(status)
                if now != status:
                    self._say(f"pod {self._pod}: {now}")
                    status = now
                if line := self._outcome(ended=status in ENDED):
                    return line
                time.sleep(self._poll)
        finally:
            self._over.set()
        return None

    def see_it_end(self, done: bool, patience: float = END_SECONDS) -> None:
        """The job has ended; the pod should end itself, and is ended where it does not."""
        deadline = time.monotonic() + patience
        while (status := self._status("")) not in ENDED and time.monotonic() < deadline:
            time.sleep(self._poll)
        if status not in ENDED:
            self._say(f"pod {self._pod} has not ended itself: it is ended from here")
            (self._api.remove if done else self._api.stop)(self._pod)
        elif status != "GONE" and not done:
            self._say(f"pod {self._pod} is stopped; its disk is billed until you remove it")

    def _status(self, before: str) -> str:
        """The pod's status; the one before while RunPod does not answer."""
        with contextlib.suppress(JobError):
            return self._api.status(self._pod)
        return before

    def _outcome(self, *, ended: bool) -> Line | None:
        """What is known of the job's end; when the pod has ended, something is.

        A failure that was there before is not this run's, unless the pod has ended.
        """
        with contextlib.suppress(JobError):
            finished = [is_finished(d, self._spec.spec_hash) for d in self._destinations]
            if finished and all(finished):
                uris = [f"{d.uri}/receipt.json" for d in self._destinations]
                receipt = uris[0] if len(uris) == 1 else uris
                return line_of("done", 0, "publish", False, "done", receipt)
        if self._last:
            return self._last
        for destination, known in zip(self._destinations, self._known, strict=True):
            found = self._failure(destination)
            if found and (found != known or ended):
                status = "stopped" if found["exit_code"] == 75 else "failed"
                code, phase, retryable = found["exit_code"], found["phase"], found["retryable"]
                return line_of(status, code, phase, retryable, found["message"], None)
        message = f"pod {self._pod} ended and left neither a receipt nor a failure.json"
        return line_of("failed", 69, "launch", True, message, None) if ended else None

    def _failure(self, destination: Destination) -> Mapping[str, Any] | None:
        with contextlib.suppress(JobError, KeyError):
            found = destination.read_failure()
            return found if found and found["spec_hash"] == self._spec.spec_hash else None
        return None

    def _read_logs(self) -> None:
        """Print what the container says; a stream that ends is asked for again."""
        after = ""
        while not self._over.is_set():
            with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
                for event_id, line in self._api.log_lines(self._pod, after):
                    after = event_id or after
                    self._say(line)
                    self._last = _last_line(line) or self._last
            self._over.wait(self._poll)


def line_of(
    status: str, code: int, phase: str, retryable: bool, message: str, receipt: Any
) -> Line:
    """The last line of stdout, as the command line prints it."""
    return {
        **{"status": status, "exit_code": code, "phase": phase, "retryable": retryable},
        **{"message": message, "receipt": receipt},
    }


def _last_line(text: str) -> Line:
    """The job's own last line, if this is it."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    keys = ["status", "exit_code", "phase", "retryable", "message", "receipt"]
    return found if isinstance(found, dict) and list(found) == keys else {}

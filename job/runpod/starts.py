"""Counts a pod's starts that ended without a word, where a wiped container disk cannot lose it.

The count in the run's folder (`job.attempts`) is gone when the container's disk is. This one lies
at the first destination: beside the run's results, on the Hub on the branch of its checkpoints.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from job.credentials import Credentials
from job.errors import InternalError, JobError
from job.spec import JobSpec
from job.store import open_destination


class Starts:
    """The count of one run."""

    def __init__(self, spec: JobSpec, credentials: Credentials) -> None:
        self._most = spec.max_attempts
        self._destination = open_destination(
            spec.output[0], spec.run_name, spec.save, credentials, spec.hub_private
        )

    def begin(self) -> None:
        """Count this start in.

        Raises:
            InternalError: as many starts as JOB_MAX_ATTEMPTS ended without a word or a checkpoint.
            JobError: the destination could not be asked.
        """
        if self._destination.read_receipt() is not None:
            return
        progress = (self._destination.checkpoints() or [""])[-1]
        known: dict[str, Any] = {"count": 0, "progress": progress}
        if content := self._destination.read_starts():
            known = json.loads(content)
        count = known["count"] if known["progress"] == progress else 0
        if count >= self._most:
            raise InternalError(
                f"This pod has started the run {count} times, and each time the container died "
                "without a word and without a new checkpoint, so it is not started again. Once "
                "the cause is gone, raise JOB_MAX_ATTEMPTS, or remove .starts.json at "
                f"{self._destination.uri} (on the Hub: on the branch `checkpoints`)."
            )
        content = json.dumps({"count": count + 1, "progress": progress}).encode()
        self._destination.write_starts(content)

    def end(self) -> None:
        """This start has told how it ended."""
        with contextlib.suppress(JobError):
            self._destination.write_starts(None)

"""Counts a pod's starts that ended without a word, where a wiped container disk cannot lose it.

The count in the run's folder (`job.attempts`) is gone when the container's disk is. This one lies
beside the run's results, in S3 or a folder; on the Hub alone there is none.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from job.credentials import Credentials
from job.errors import InternalError, JobError
from job.spec import JobSpec
from job.store import open_destination, open_store

KEY = ".starts.json"  # a run that is done removes what begins with a dot


class Starts:
    """The count of one run."""

    def __init__(self, spec: JobSpec, credentials: Credentials) -> None:
        self._most = spec.max_attempts
        refs = [ref for ref in spec.output if ref.scheme != "hf"][:1]
        self._store = None
        for ref in refs:
            place = f"{ref.location.rstrip('/')}/{spec.run_name}"
            scheme = "s3" if ref.scheme == "s3" else "file"
            self._store = open_store(scheme, place, credentials)  # type: ignore[arg-type]
            self._destination = open_destination(
                ref, spec.run_name, spec.save, credentials, spec.hub_private
            )

    def begin(self) -> None:
        """Count this start in.

        Raises:
            InternalError: as many starts as JOB_MAX_ATTEMPTS ended without a word or a checkpoint.
            JobError: the destination could not be asked.
        """
        if self._store is None or self._destination.read_receipt() is not None:
            return
        progress = (self._destination.checkpoints() or [""])[-1]
        found = self._store.get(KEY)
        known: dict[str, Any] = {"count": 0, "progress": progress}
        if found:
            known = json.loads(found.content)
        count = known["count"] if known["progress"] == progress else 0
        if count >= self._most:
            raise InternalError(
                f"This pod has started the run {count} times, and each time the container died "
                "without a word and without a new checkpoint, so it is not started again. Once "
                f"the cause is gone, raise JOB_MAX_ATTEMPTS or remove {self._store.uri}/{KEY}."
            )
        content = {"count": count + 1, "progress": progress}
        self._store.put(KEY, json.dumps(content).encode())

    def end(self) -> None:
        """This start has told how it ended."""
        if self._store is not None:
            with contextlib.suppress(JobError):
                self._store.delete(KEY)

"""Ends a crash loop: starts of one run that fail the same way again and again, without progress.

Counted are failures that cost time on the card: bugs, kills, lack of memory, divergence. What is
found before training, and what another start may well get over (a destination that is away, a
signal), is not. The count lies in the run's folder.
"""

from __future__ import annotations

import json
from pathlib import Path

from job.disk import replace_text
from job.errors import CudaOutOfMemory, Diverged, InternalError, JobError, OutOfResources

ATTEMPTS = "attempts.json"
_COUNTED = (InternalError, OutOfResources, CudaOutOfMemory, Diverged)
_KILLED = "the whole program was killed"


class Attempts:
    """The count of one run.

    Args:
        folder: the run's.
        most: starts that may fail the same way.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._path, self._most = folder / ATTEMPTS, most
        self._kind, self._count, self._progress = "", 0, ""
        self._open = False  # a start is under way, or was killed without a word

    def begin(self, progress: str) -> None:
        """Count this start in.

        Args:
            progress: how far the run has come; a start that got further begins a new count.

        Raises:
            InternalError: it has failed often enough.
        """
        if self._path.exists():
            known = json.loads(self._path.read_bytes())
            self._kind, self._count = known["kind"], known["count"]
            self._progress, self._open = known["progress"], known["open"]
        if self._open:
            self._add(_KILLED)
        if progress != self._progress:
            self._kind, self._count, self._progress = "", 0, progress
        self._open = False
        if self._count >= self._most:
            self._write()
            raise InternalError(
                f"This run has failed {self._count} times in the same way ({self._kind}), so it "
                "is not started again. Once the cause is gone, raise JOB_MAX_ATTEMPTS or remove "
                f"{self._path}."
            )
        self._open = True
        self._write()

    def end(self, error: JobError | None, phase: str) -> None:
        """Say how this start ended; None when all is done."""
        if not self._open:
            return
        self._open = False
        if error is None:
            self._kind, self._count = "", 0
        elif isinstance(error, _COUNTED):
            self._add(f"{error.name} in {phase}")
        self._write()

    def _add(self, kind: str) -> None:
        self._count = self._count + 1 if kind == self._kind else 1
        self._kind = kind

    def _write(self) -> None:
        content = {
            "kind": self._kind,
            "count": self._count,
            "progress": self._progress,
            "open": self._open,
        }
        replace_text(self._path, json.dumps(content))

"""Checkpoints at the destinations: copied there while training goes on, and found there again."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from job import checkpoints
from job.checkpoints import Checkpoint, Damaged
from job.errors import JobError
from job.events import EventLog
from job.spec import JobSpec
from job.store import Destination


class Mirror:
    """Copies the newest checkpoint to every destination, from a thread of its own.

    A copy that fails costs a warning: the next checkpoint is tried again. Older checkpoints in the
    run's folder are removed here too, since one may be on its way.

    Args:
        parent: the folder of the checkpoints here.
    """

    def __init__(self, parent: Path, destinations: list[Destination], log: EventLog) -> None:
        self._parent, self._destinations, self._log = parent, destinations, log
        self._changed = threading.Condition()
        self._wanted: str | None = None
        self._copying: str | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def offer(self, step: int) -> None:
        """There is a new checkpoint; one that still waits to be copied is left out."""
        newest = checkpoints.name_of(step)
        with self._changed:
            for name in checkpoints.superfluous(checkpoints.names(self._parent), newest):
                if name != self._copying:
                    shutil.rmtree(self._parent / name)
            self._wanted = newest
            self._changed.notify()
        if not self._thread.is_alive() and not self._closed:
            self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is not yet where it shall be."""
        return bool(self._wanted or self._copying)

    def close(self) -> None:
        """Begin no more copies, and wait for the one under way."""
        self.abandon()
        if self._thread.is_alive():
            self._thread.join()

    def abandon(self) -> None:
        """The run ends: a copy under way is not waited for, and says nothing any more."""
        with self._changed:
            self._wanted, self._closed = None, True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._copying = None
                self._changed.wait_for(lambda: self._wanted or self._closed)
                if self._closed:
                    return
                self._copying, self._wanted = self._wanted, None
            self._copy(checkpoints.listed(self._parent / str(self._copying)))

    def _copy(self, checkpoint: Checkpoint) -> None:
        for destination in self._destinations:
            started = time.monotonic()
            problem = None
            try:
                destination.put_checkpoint(checkpoint)
            except JobError as error:
                problem = f"{destination.uri}: checkpoint {checkpoint.step} is only here: {error}"
            seconds = round(time.monotonic() - started, 2)
            with self._changed:
                if self._closed:  # the log may be closed as well
                    return
                if problem:
                    self._log.emit("warning", message=problem)
                else:
                    uri, step = destination.uri, checkpoint.step
                    self._log.emit("mirrored", step=step, uri=uri, seconds=seconds)


def find_checkpoint(
    spec: JobSpec, parent: Path, destinations: list[Destination], say: Callable[[str], None]
) -> Checkpoint | None:
    """The newest whole checkpoint of this spec, here or at a destination; then it lies here.

    `resume=never` removes all of them instead.

    Raises:
        JobError: a destination does not answer; what it may hold is not given up for that.
    """
    if spec.resume == "never":
        remove_checkpoints(parent, destinations)
        return None
    best = checkpoints.newest(parent, spec.spec_hash, say)
    for destination in destinations:
        for name in reversed(destination.checkpoints()):
            if best is not None and checkpoints.step_of(name) <= best.step:
                break
            found = _fetch(destination, name, parent, spec.spec_hash, say)
            if found is not None:
                best = found
                break
    return best


def remove_checkpoints(parent: Path, destinations: list[Destination]) -> None:
    """Remove all of them, here and everywhere."""
    shutil.rmtree(parent, ignore_errors=True)
    for destination in destinations:
        destination.drop_checkpoints()


def _fetch(
    destination: Destination,
    name: str,
    parent: Path,
    spec_hash: str,
    say: Callable[[str], None],
) -> Checkpoint | None:
    """Download one checkpoint; None, and a word, when it is not whole or another spec's."""
    aside = parent / f".{name}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    destination.get_checkpoint(name, aside)
    where = f"checkpoint {name} at {destination.uri}"
    try:
        found = checkpoints.read(aside)
    except Damaged as damage:
        say(f"{where} is passed over: {damage}")
        return None
    if found.run["spec_hash"] != spec_hash:
        say(f"{where} is passed over: it is of another spec's run")
        return None
    shutil.rmtree(parent / name, ignore_errors=True)  # a damaged one
    checkpoints.flush(aside)
    aside.rename(parent / name)
    say(f"{where} was fetched")
    return checkpoints.read(parent / name)

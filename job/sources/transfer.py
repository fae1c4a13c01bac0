"""Bytes from elsewhere into files: several at once, with progress, retries and a clean end.

The callback for progress runs in the calling thread, so it needs no lock and may raise (a signal
handler may too): the workers then stop at their next chunk.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from job.errors import OutOfResources

if TYPE_CHECKING:
    from job.events import Progress

log = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes
TICK = 1.0  # seconds between two calls of the progress callback
LOOK_PATIENCE = 15.0  # seconds: a light look is retried this long
PATIENCE = 180.0  # seconds: a download may go without a new byte this long
WORKERS = 8  # files at once


class Aborted(Exception):
    """A worker was told to stop; the reason is raised in the calling thread."""


class Incomplete(Exception):
    """A stream ended before its last byte."""


class Tally:
    """The bytes done by all workers, and the flag that ends them."""

    def __init__(self) -> None:
        self.done = 0
        self.stopped = threading.Event()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count bytes (negative: they are fetched anew). Raises Aborted after a stop."""
        if self.stopped.is_set():
            raise Aborted
        with self._lock:
            self.done += count


class Patience:
    """When to give up: so many seconds after the last sign of life."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """A byte came."""
        self._last = time.monotonic()

    def __call__(self, state: RetryCallState) -> bool:
        """The stop condition of tenacity."""
        return time.monotonic() - self._last >= self._seconds


def retrying(
    transient: Callable[[BaseException], bool],
    patience: Patience,
    stopped: threading.Event | None = None,
) -> Retrying:
    """Call again while the error is transient and patience lasts; then the error is raised."""

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("%s: trying again (attempt %d)", type(error).__name__, state.attempt_number + 1)

    pause = stopped or threading.Event()

    def sleep(seconds: float) -> None:
        pause.wait(seconds)

    return Retrying(
        retry=retry_if_exception(transient),
        stop=patience,
        wait=wait_exponential_jitter(multiplier=0.25, max=15, jitter=0.25),
        sleep=sleep,
        before_sleep=tell,
        reraise=True,
    )


@contextmanager
def in_words_of(tell: Callable[[BaseException], BaseException]) -> Iterator[None]:
    """Raise what `tell` makes of an exception; itself when `tell` has no better word for it."""
    try:
        yield
    except Exception as error:
        better = tell(error)
        if better is error:
            raise
        raise better from error


def run_all(
    tasks: Sequence[Callable[[Tally], None]], total: int, what: str, progress: Progress
) -> None:
    """Run the downloads, a few at a time, and tell how far they are.

    Args:
        total: bytes of all tasks together, for the callback; 0 when unknown.

    Raises:
        OutOfResources: the disk is full. Otherwise what the first failed task or `progress` raised.
    """
    tally = Tally()
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="fetch")
    try:
        pending = {pool.submit(task, tally) for task in tasks}
        progress(what, 0, total)
        while pending:
            finished, pending = wait(pending, timeout=TICK, return_when=FIRST_EXCEPTION)
            for task in finished:
                task.result()
            progress(what, tally.done, total)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OutOfResources(
            f"The disk is full while fetching {what} ({tally.done:,} of {total:,} bytes came): "
            "give JOB_WORK_DIR a larger volume."
        ) from error
    finally:
        tally.stopped.set()
        pool.shutdown(cancel_futures=True)


# Opens a stream at an offset; yields where it really starts (0: from the beginning) and its chunks.
OpenAt = Callable[[int], AbstractContextManager[tuple[int, Iterator[bytes]]]]


def stream(
    open_at: OpenAt,
    target: Path,
    version: str | None,
    size: int,
    tally: Tally,
    transient: Callable[[BaseException], bool],
) -> None:
    """Download one file, going on where an earlier attempt (or process) was cut off.

    Args:
        version: names the content. The part of another version is not continued; with None,
            nothing that an earlier process left is.
        size: bytes that must come; 0 when unknown.

    Raises:
        Incomplete: the stream ended early again and again; otherwise what `open_at` raised.
    """
    part = _part_of(target, version)
    patience, counted = Patience(PATIENCE), 0

    def attempt() -> None:
        nonlocal counted
        offset = part.stat().st_size
        if size and offset == size:
            tally.add(size - counted)
            return
        offset = 0 if size and offset > size else offset
        with open_at(offset) as (start, chunks), part.open("r+b") as file:
            file.truncate(start)
            file.seek(start)
            tally.add(start - counted)
            counted = start
            for chunk in chunks:
                file.write(chunk)
                tally.add(len(chunk))
                counted += len(chunk)
                patience.renew()
        if size and counted != size:
            raise Incomplete(f"{target.name}: {counted} of {size} bytes came")

    retrying(lambda e: isinstance(e, Incomplete) or transient(e), patience, tally.stopped)(attempt)
    part.replace(target)


def _part_of(target: Path, version: str | None) -> Path:
    """The file that this version of `target` grows in, there now, with what came before."""
    mark = hashlib.sha256((version or "").encode()).hexdigest()[:12]
    part = target.with_name(f".{target.name}.{mark}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    if version is None:
        part.unlink(missing_ok=True)
    part.touch()
    return part

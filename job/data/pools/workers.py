"""Work on batches of rows in several processes, in order and with little of it in memory.

Each process has a pipe of its own, so that its death, whenever it comes, is the end of that pipe:
an error here and never a wait. (concurrent.futures shares one pipe for all results, and hangs when
a process dies in the middle of one.) It is also how a worker learns that its parent is gone.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import queue
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

from job.data.mask.tokenizer import without_torch
from job.errors import InternalError, JobError, OutOfResources

In = TypeVar("In")
Out = TypeVar("Out")
Tag = TypeVar("Tag")

_MOST = 16
_SPAWN = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold


def usable_cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: its affinity and its container's quota; 16 at most.

    Args:
        root: where cgroups are mounted, version 2 (cpu.max) or 1 (cpu/cpu.cfs_quota_us).
    """
    cores = len(os.sched_getaffinity(0))
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
    except OSError:
        quota, period = "max", "1"
    if quota not in ("max", "-1"):
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, min(cores, _MOST))


def in_order(
    setup: Callable[[], Callable[[In], Out]], batches: Iterable[tuple[Tag, In]], workers: int
) -> Iterator[tuple[Tag, Out]]:
    """Does the work on every batch; results come in the order of the batches.

    At most two batches a worker are under way at once; `batches` is not read further than that.

    Args:
        setup: makes the function that does the work, once in each process; can be pickled.
        batches: (what stays here and comes back with the result, what is worked on).
        workers: processes; below 2 the work is done in this one.

    Raises:
        JobError: what the work or `setup` raised; InternalError for any other exception there.
        OutOfResources: a worker was killed.
    """
    if workers < 2:
        work = setup()
        for tag, batch in batches:
            yield tag, work(batch)
        return
    processes = [_Worker(setup) for _ in range(workers)]
    idle: queue.SimpleQueue[_Worker[In, Out]] = queue.SimpleQueue()
    for process in processes:
        idle.put(process)

    def ask(batch: In) -> Out:
        process = idle.get()
        try:
            return process.ask(batch)
        finally:
            idle.put(process)

    threads = ThreadPoolExecutor(workers)
    under_way: deque[tuple[Tag, Future[Out]]] = deque()
    try:
        for tag, batch in batches:
            under_way.append((tag, threads.submit(ask, batch)))
            if len(under_way) == 2 * workers:
                tag, future = under_way.popleft()
                yield tag, future.result()
        while under_way:
            tag, future = under_way.popleft()
            yield tag, future.result()
    finally:
        for process in processes:
            process.kill()  # which ends the wait of the threads
        threads.shutdown(cancel_futures=True)
        for process in processes:
            process.close()


class _Worker(Generic[In, Out]):
    """One process that answers one batch at a time."""

    def __init__(self, setup: Callable[[], Callable[[In], Out]]) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, setup), daemon=True)
        self._process.start()
        theirs.close()  # else its death would not end the pipe

    def ask(self, batch: In) -> Out:
        """The result for a batch; raises as `in_order` says."""
        try:
            self._pipe.send(batch)
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if isinstance(answer, JobError):
            raise answer
        result: Out = answer
        return result

    def _death(self) -> JobError:
        self._process.join()
        code = self._process.exitcode or 0
        if code == -signal.SIGKILL:
            return OutOfResources(
                "A process that prepares the data was killed by SIGKILL, as the kernel does when "
                "memory runs out. Give the container more memory, or fewer cores."
            )
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return InternalError(f"A process that prepares the data ended by {name}.")

    def kill(self) -> None:
        """Stop it, whatever it does."""
        self._process.kill()

    def close(self) -> None:
        """Leave nothing of it behind."""
        self._process.join()
        self._process.close()
        self._pipe.close()


def _serve(pipe: Connection[Any, Any], setup: Callable[[], Callable[[In], Out]]) -> None:
    """The body of a worker: answers batches until the parent ends the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the parent to act on
    without_torch()
    work = None
    try:
        while True:
            batch = pipe.recv()
            try:
                work = work or setup()
                answer: Out | JobError = work(batch)
            except JobError as error:
                answer = error
            except Exception as error:
                traceback.print_exc()
                answer = InternalError(f"{type(error).__name__}: {error}")
            pipe.send(answer)
    except (EOFError, OSError):
        sys.exit()

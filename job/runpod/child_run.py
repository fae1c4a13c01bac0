"""One `entrypoint.py run` as a child of the worker: its lines, its end, and how it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from job.errors import InternalError, JobError, OutOfResources
from job.events import Event

Lines = asyncio.StreamReader
ROOT = Path(__file__).parent.parent.parent
LONGEST_LINE = 2**24  # bytes
LAST_WORDS = 10.0  # seconds beyond the grace, after which the run is killed


@dataclass
class Ended:
    """How a run ended.

    Attributes:
        line: the last line of its stdout; empty when it was killed before it could speak.
    """

    code: int
    line: dict[str, Any] = field(default_factory=dict)

    def error(self) -> JobError:
        """What a run without a last line came to."""
        if self.code == -signal.SIGKILL:
            return OutOfResources("The run was killed from outside, as the kernel does for memory.")
        return InternalError(f"The run ended with {self.code} and said nothing of it.")


async def run(
    command: Sequence[str],
    env: Mapping[str, str],
    on_event: Callable[[Event], None],
    stop: Stop,
    *,
    seconds: float,
    grace: float,
) -> Ended:
    """Run the command to its end.

    Args:
        on_event: gets each event that it tells on stderr.
        stop: passes SIGTERM on.
        seconds: after which it is told to stop.
        grace: seconds that it then has.

    Raises:
        CancelledError: the job was cancelled; by then the run has ended.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=dict(env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
        start_new_session=True,
    )
    ended = Ended(0)
    reading = asyncio.ensure_future(_read(process, ended, on_event))
    stop.process = process
    if stop.came:  # while the process was being made
        _signal(process, signal.SIGTERM)
    try:
        done, _ = await asyncio.wait({reading}, timeout=seconds)
        if not done:
            await _stop(process, reading, grace)
    except asyncio.CancelledError:
        await _stop(process, reading, grace)
        raise
    finally:
        stop.process = None
    return ended


async def _read(
    process: asyncio.subprocess.Process, ended: Ended, on_event: Callable[[Event], None]
) -> None:
    out, err = cast("Lines", process.stdout), cast("Lines", process.stderr)

    async def events() -> None:
        async for line in err:
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
            if event := _mapping(line):
                on_event(event)

    async def last_line() -> None:
        async for line in out:
            ended.line = _mapping(line)

    await asyncio.gather(events(), last_line())
    ended.code = await process.wait()


async def _stop(
    process: asyncio.subprocess.Process, reading: asyncio.Future[None], grace: float
) -> None:
    """SIGTERM, which lets a trainer keep a checkpoint; SIGKILL when the grace is over."""
    _signal(process, signal.SIGTERM)
    done, _ = await asyncio.wait({reading}, timeout=grace + LAST_WORDS)
    if not done:
        _signal(process, signal.SIGKILL)  # its own children die with it
        await reading


class Stop:
    """SIGTERM of the worker reaches the run too; the SDK's own handling stays as it is.

    Attributes:
        came: whether there was one.
        process: the run that is told, while there is one.
    """

    def __init__(self) -> None:
        self.came = False
        self.process: asyncio.subprocess.Process | None = None

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle it while the block runs."""
        before: Any = signal.getsignal(signal.SIGTERM)

        def handle(number: int, frame: Any) -> None:
            self.came = True
            if self.process:
                _signal(self.process, signal.SIGTERM)
            if callable(before):
                before(number, frame)

        signal.signal(signal.SIGTERM, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _mapping(line: bytes) -> dict[str, Any]:
    """A line that is one JSON object; anything else is empty."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

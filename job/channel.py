"""How a child process talks with the supervisor: one request on stdin, events on a pipe.

stdout and stderr belong to the libraries; the supervisor keeps them in `trainer.log`. A child that
fails for a foreseen reason says so in a last `failed` event and exits with the error's code; any
other exception is a bug: its traceback is in the log, its exit code is 70.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from job.errors import CudaOutOfMemory, InternalError, JobError, OutOfResources

EVENTS_FD_VARIABLE = "JOB_EVENTS_FD"


class Channel:
    """The child's end."""

    def __init__(self, fd: int) -> None:
        self._pipe = os.fdopen(fd, "w", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()

    def emit(self, kind: str, **fields: Any) -> None:
        """Send one event to the supervisor."""
        with self._lock:
            self._pipe.write(json.dumps({"event": kind, **fields}, default=str) + "\n")

    def receive(self) -> dict[str, Any]:
        """Wait for the request: one line of JSON.

        Raises:
            SystemExit: the supervisor closed stdin, so there is nothing to do.
        """
        line = sys.stdin.readline()
        if not line:
            raise SystemExit(0)
        request: dict[str, Any] = json.loads(line)
        return request


def refuse_network() -> None:
    """Let no Python code of this process connect to another machine.

    The libraries are told to be offline; this holds for what forgets it. An audit hook cannot be
    taken away again.
    """

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect" and args[0].family in (socket.AF_INET, socket.AF_INET6):
            host = str(args[1][0])
            if not (host.startswith("127.") or host in ("::1", "localhost")):
                raise PermissionError(f"the trainer process has no network, and asked for {host}")

    sys.addaudithook(hook)


def as_job_error(error: Exception) -> JobError:
    """The error of ours that tells the outside what `error` means."""
    if isinstance(error, JobError):
        return error
    text = f"{type(error).__name__}: {error}".strip()
    if type(error).__name__ == "OutOfMemoryError":  # torch's, told by name: torch may not be loaded
        return CudaOutOfMemory(
            "The GPU's memory does not hold this configuration. Lower JOB_MICRO_BATCH_SIZE or "
            f"JOB_MAX_SEQ_LENGTH, or take a larger card. ({text.splitlines()[0]})"
        )
    # safetensors' own error is no OSError and has the number only in its text.
    if getattr(error, "errno", None) == errno.ENOSPC or "(os error 28)" in text:
        return OutOfResources(f"The disk is full: {text}")
    return InternalError(f"{text[:2000]} (the traceback is in trainer.log)")


def end_with_supervisor() -> None:
    """Have the kernel kill this process when the supervisor dies, so that no trainer works on in
    the folder of a run that is started again (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run_child(work: Callable[[Channel], None]) -> None:
    """Run `work` as the body of a child process and exit with the code that tells the truth."""
    channel = Channel(int(os.environ[EVENTS_FD_VARIABLE]))
    end_with_supervisor()
    refuse_network()
    try:
        work(channel)
    except Exception as error:
        with contextlib.suppress(OSError):  # the log may be on the full disk that is to be told
            traceback.print_exc()
        failure = as_job_error(error)
        channel.emit(
            "failed",
            exit_code=failure.exit_code,
            message=failure.message,
            problems=failure.problems,
        )
        sys.exit(failure.exit_code)

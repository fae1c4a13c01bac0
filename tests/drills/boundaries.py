"""SIGKILL at every file boundary: before the n-th change of a file or folder of a run."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Written with every event; nothing is read from them again.
_NOT_COUNTED = ("status.", "events.jsonl", "/cache", "/home", "/tmp", "trainer.log")


def kill_before(number: int, *folders: str) -> None:
    """Kill this process before its `number`-th change below one of the folders, counted from 1."""
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event in _CHANGES or (event == "open" and bool(args[2] & _WRITING))
        if not writes or not isinstance(args[0], str | os.PathLike):
            return
        path = os.fspath(args[0])
        below = [path.removeprefix(folder) for folder in folders if path.startswith(folder)]
        if below and not any(part in below[0] for part in _NOT_COUNTED):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)

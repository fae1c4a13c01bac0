"""SIGKILL at every boundary: of files, before the n-th change; of a store, around each request.

And a disk that is full from one file on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from botocore.httpsession import URLLib3Session

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Written with every event; nothing is read from them again.
BY_THE_CLOCK = ("/claim.json", "/events.jsonl", "/status.json")
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


def fill(folder: Path) -> None:
    """Leave no byte free on the disk of this folder."""
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


def fill_at_receipt(folder: Path) -> None:
    """Fill the disk of this folder the moment that this process begins to write a receipt."""
    filled = False

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal filled
        opens = event == "open" and not filled and isinstance(args[0], str | os.PathLike)
        if opens and Path(args[0]).name.startswith(".receipt.json."):
            filled = True
            fill(folder)

    sys.addaudithook(hook)


def kill_at(number: int) -> None:
    """Kill this process at its `number`-th store boundary, counted from 1.

    There is one before each request that changes an S3 store (an object, a part, the completion of
    an upload, the receipt, a deletion), and one after its answer. What is written by the clock is
    left out: the claim, and the copy of the events.
    """
    send, lock, count = URLLib3Session.send, threading.Lock(), 0

    def boundary() -> None:
        nonlocal count
        with lock:
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    def counted(session: URLLib3Session, request: Any) -> Any:
        changes = request.method in ("PUT", "POST", "DELETE")
        changes = changes and not request.url.endswith(BY_THE_CLOCK)
        if changes:
            boundary()
        answer = send(session, request)
        if changes:
            boundary()
        return answer

    URLLib3Session.send = counted

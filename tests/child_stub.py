"""A child process for tests/test_child.py: does what its request says, as the trainer would."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import time
from typing import Any

from job.channel import EVENTS_FD_VARIABLE, Channel, run_child
from job.errors import DataError, Stopped


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


def main(channel: Channel) -> None:
    channel.emit("ready")
    request = channel.receive()
    globals()[f"do_{request['do']}"](channel, **request.get("with", {}))


def do_events(channel: Channel, count: int) -> None:
    for number in range(count):
        channel.emit("step", number=number)


def do_environment(channel: Channel) -> None:
    channel.emit("environment", variables=dict(os.environ))


def do_nothing(channel: Channel) -> None:
    pass


def do_fail_as_foreseen(channel: Channel) -> None:
    raise DataError("two rows are bad", problems=["row 3: empty", "row 17: empty"])


def do_fail_unforeseen(channel: Channel) -> None:
    raise KeyError("layers.7")


def do_fail_out_of_gpu_memory(channel: Channel) -> None:
    raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")


def do_fail_on_a_full_disk(channel: Channel) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "adapter_model.safetensors")


def do_print(channel: Channel) -> None:
    sys.stdout.write("to stdout\n")
    sys.stdout.flush()
    sys.stderr.write("to stderr\n")


def do_exit(channel: Channel, code: int) -> None:
    os._exit(code)


def do_die(channel: Channel, number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def do_die_in_the_middle_of_an_event(channel: Channel) -> None:
    os.write(int(os.environ[EVENTS_FD_VARIABLE]), b'{"event": "st')
    os.kill(os.getpid(), signal.SIGKILL)


def do_die_and_leave_a_worker(channel: Channel) -> None:
    """The worker is forked, so it holds the pipe of the events open."""
    if worker := os.fork():
        channel.emit("worker", pid=worker)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def do_wait(channel: Channel) -> None:
    """Without a handler SIGTERM ends the process, as it does while the trainer imports."""
    channel.emit("waiting")
    time.sleep(60)


def do_stop_at_the_next_step(channel: Channel) -> None:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    channel.emit("waiting")
    while not asked:
        time.sleep(0.01)
    channel.emit("step", number=1)
    raise Stopped("Stopped by a signal after step 1 of 9.")


def do_ignore_sigterm(channel: Channel) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel.emit("waiting")
    time.sleep(60)


def do_connect(channel: Channel, addresses: list[list[Any]]) -> None:
    """Tell of each address whether it was `connected`, or the error's name and text."""
    for host, port in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            try:
                connection.connect((host, port))
            except OSError as error:
                outcome = f"{type(error).__name__}: {error}"
            else:
                outcome = "connected"
        channel.emit("outcome", host=host, outcome=outcome)


if __name__ == "__main__":
    run_child(main)

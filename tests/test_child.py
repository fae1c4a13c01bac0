"""The supervisor's end of a child process, with real processes that do as tests/child_stub.py."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from job.child import Child, child_environment
from job.credentials import SECRETS
from job.errors import (
    CudaOutOfMemory,
    DataError,
    InternalError,
    JobError,
    OutOfResources,
    Stopped,
)
from tests.jobs import is_alive, until

CANARY = "canary-secret-9f8e7d6c"


class Run:
    """A stub that was started, and what it has said so far."""

    def __init__(self, folder: Path, environ: dict[str, str] | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self.log = folder / "trainer.log"
        environ = {"PATH": os.environ["PATH"], **(environ or {})}
        env = child_environment(environ, folder, on_cpu=True)
        self.child = Child("tests.child_stub", env, self.log, self.events.append)

    def does(self, what: str, **arguments: Any) -> None:
        self.child.run({"do": what, "with": arguments})

    def fails(self, kind: type[JobError], what: str, **arguments: Any) -> JobError:
        with pytest.raises(JobError) as caught:
            self.does(what, **arguments)
        assert type(caught.value) is kind
        return caught.value

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    run.child.kill()


@contextmanager
def once_it_waits(run: Run, action: Any) -> Iterator[None]:
    """Do something beside the main thread, as a signal handler would, once the child is ready."""

    def act() -> None:
        until(lambda: "waiting" in run.kinds(), "the child")
        action()

    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()


def test_events_come_in_order_and_all_of_them(run):
    run.does("events", count=2000)
    assert run.kinds()[0] == "ready"
    assert [event["number"] for event in run.events[1:]] == list(range(2000))


def test_what_a_child_prints_goes_to_the_log_only(run, capfd):
    run.does("print")
    assert run.log.read_text().split("\n")[:2] == ["to stdout", "to stderr"]
    assert capfd.readouterr() == ("", "")


def test_a_foreseen_error_keeps_its_class_and_its_problems(run):
    error = run.fails(DataError, "fail_as_foreseen")
    assert error.message == "two rows are bad"
    assert error.problems == ["row 3: empty", "row 17: empty"]
    assert "failed" not in run.kinds()  # the supervisor says so itself, once


def test_an_unforeseen_error_is_a_bug_with_its_traceback_in_the_log(run):
    error = run.fails(InternalError, "fail_unforeseen")
    assert error.message.startswith("KeyError: 'layers.7'")
    assert "trainer.log" in error.message
    assert "Traceback" in run.log.read_text()
    assert "do_fail_unforeseen" in run.log.read_text()


def test_memory_of_the_gpu_and_space_on_the_disk_have_their_own_errors(tmp_path):
    error = Run(tmp_path).fails(CudaOutOfMemory, "fail_out_of_gpu_memory")
    assert "JOB_MICRO_BATCH_SIZE" in error.message
    assert "Tried to allocate 2.00 GiB" in error.message
    error = Run(tmp_path).fails(OutOfResources, "fail_on_a_full_disk")
    assert "adapter_model.safetensors" in error.message


def test_a_kill_from_outside_counts_as_lack_of_memory(run):
    error = run.fails(OutOfResources, "die", number=signal.SIGKILL)
    assert "SIGKILL" in error.message
    assert "memory" in error.message


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_crash_is_a_bug_that_is_named(run, number):
    assert number.name in run.fails(InternalError, "die", number=number).message


def test_an_exit_without_a_word_is_a_bug(run):
    assert "exit code 3" in run.fails(InternalError, "exit", code=3).message


def test_a_death_in_the_middle_of_an_event_is_a_death_like_any_other(run):
    run.fails(OutOfResources, "die_in_the_middle_of_an_event")
    assert run.kinds() == ["ready"]


def test_a_dead_child_leaves_no_worker_and_is_not_waited_for_in_vain(run):
    started = time.monotonic()
    run.fails(OutOfResources, "die_and_leave_a_worker")
    assert time.monotonic() - started < 30
    worker = run.events[-1]["pid"]
    until(lambda: not is_alive(worker), "the worker's end")


def test_a_child_that_died_before_its_request_is_judged_all_the_same(run):
    until(lambda: run.kinds() == ["ready"], "the child")
    os.kill(run.child.pid, signal.SIGSEGV)
    until(lambda: not is_alive(run.child.pid), "its end")
    assert "SIGSEGV" in run.fails(InternalError, "nothing", filler="x" * 200_000).message


def test_a_stop_before_the_first_step_is_a_stop(run):
    with once_it_waits(run, run.child.stop):
        assert "SIGTERM" in run.fails(Stopped, "wait").message


def test_a_stop_lets_the_child_finish_its_step(run):
    with once_it_waits(run, run.child.stop):
        error = run.fails(Stopped, "stop_at_the_next_step")
    assert error.message == "Stopped by a signal after step 1 of 9."
    assert run.kinds() == ["ready", "waiting", "step"]


def test_a_child_that_does_not_stop_is_killed_and_counts_as_stopped(run):
    def insist() -> None:
        run.child.stop()
        time.sleep(0.1)
        assert is_alive(run.child.pid)
        run.child.kill()

    with once_it_waits(run, insist):
        run.fails(Stopped, "ignore_sigterm")


def test_a_child_without_a_request_ends_when_it_is_killed(run):
    until(lambda: run.kinds() == ["ready"], "the child")
    run.child.kill()
    assert not is_alive(run.child.pid)
    run.child.kill()  # may be said again


def test_a_listener_that_fails_ends_the_run_with_its_error(tmp_path):
    def refuse(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            raise OSError(28, "No space left on device")

    env = child_environment({"PATH": os.environ["PATH"]}, tmp_path, on_cpu=True)
    child = Child("tests.child_stub", env, tmp_path / "trainer.log", refuse)
    with pytest.raises(OSError, match="No space left"):
        child.run({"do": "events", "with": {"count": 50_000}})


def test_a_child_sees_no_credential_and_is_offline(tmp_path):
    secret = dict.fromkeys((*SECRETS, "NVIDIA_API_KEY", "AWS_PROFILE", "HF_ENDPOINT"), CANARY)
    secret |= {f"{name}_FILE": f"/{CANARY}" for name in SECRETS}
    run = Run(
        tmp_path,
        {
            **secret,
            "JOB_SPEC": f"name: {CANARY}",
            "HTTPS_PROXY": f"http://me:{CANARY}@proxy",
            "HOME": f"/{CANARY}",
            "CUDA_HOME": "/cuda",
            "OMP_NUM_THREADS": "2",
        },
    )
    run.does("environment")
    seen = run.events[-1]["variables"]
    assert CANARY not in str(seen)
    assert seen["CUDA_HOME"] == "/cuda"
    assert seen["OMP_NUM_THREADS"] == "2"
    assert seen["HF_HUB_OFFLINE"] == seen["HF_DATASETS_OFFLINE"] == "1"
    for name in ("HOME", "HF_HOME", "TRITON_CACHE_DIR", "UNSLOTH_COMPILE_LOCATION"):
        assert Path(seen[name]).is_relative_to(tmp_path)


def test_a_child_reaches_this_machine_and_no_other(run):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        here = [["127.0.0.1", port], ["localhost", port]]
        away = [["192.0.2.1", 443], ["2001:db8::1", 443]]  # reserved for documentation
        run.does("connect", addresses=here + away)
    outcomes = {e["host"]: e["outcome"] for e in run.events if e["event"] == "outcome"}
    for host, _ in here:
        assert outcomes[host] == "connected"
    for host, _ in away:
        assert outcomes[host].startswith("PermissionError: the trainer process has no network")
        assert host in outcomes[host]


def test_compiled_kernels_are_kept_for_every_run_and_the_rest_is_the_runs_own(tmp_path):
    run, shared = tmp_path / "run", tmp_path / "cache"
    env = child_environment({"PATH": os.environ["PATH"]}, run, on_cpu=True, kernels=shared)
    for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        assert Path(env[name]).is_relative_to(shared)
    for name in ("HF_HOME", "TMPDIR", "UNSLOTH_COMPILE_LOCATION"):
        assert Path(env[name]).is_relative_to(run)
    asked = {"TRITON_CACHE_DIR": "/elsewhere"}
    env = child_environment(asked, run, on_cpu=True, kernels=shared)
    assert env["TRITON_CACHE_DIR"] == "/elsewhere"

"""The real SDK's loop with our handler against a loopback control plane; each posted body is held
against what was promised."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from job.credentials import read_credentials
from job.errors import JobError
from job.receipt import verify_uri
from job.runpod.child_run import Stop, run
from job.runpod.progress import Progress
from job.runpod.worker import LEAST_DISK, Worker, fitness_checks
from job.spec.rules import NOT_BUILT
from tests.drills.conftest import OFTEN, STEPS
from tests.jobs import ROOT, job, until
from tests.runpod.control_plane import KEY, ControlPlane, control_plane

CANARY = "hf_" + "CANARYOFTHEENDPOINT0123456789"
ERROR_KEYS = ["code", "exit_code", "phase", "retryable", "message"]


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with control_plane() as running:
        yield running


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def worker(plane: ControlPlane, tmp_path: Path) -> Iterator[Start]:
    """Starts workers whose network volume is the test's folder, and leaves none behind."""
    started: list[subprocess.Popen[str]] = []
    log = tmp_path / "worker.log"

    def start(module: str = "tests.runpod.stand_in_worker", **environ: str) -> Any:
        own = {
            "JOB_DEVICE": "cpu",
            "JOB_WORK_DIR": f"{tmp_path}/work",
            "RUNPOD_VOLUME_PATH": str(tmp_path),
            "HF_TOKEN": CANARY,
        }
        name = f"worker-{len(started) + 1}"
        with log.open("a") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], **own, **plane.environ(name), **environ},
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    text = log.read_text() if log.exists() else ""
    assert CANARY not in text
    assert KEY not in text
    bodies = json.dumps(plane.posted)
    assert CANARY not in bodies
    assert KEY not in bodies
    assert "Traceback" not in bodies


def spec(folder: Path, **changes: Any) -> dict[str, Any]:
    """The flat input of a small job."""
    own = ("work_dir", "device")
    flat = {k.removeprefix("JOB_").lower(): v for k, v in job(folder).items()}
    flat |= {"max_steps": STEPS, "checkpoint_minutes": float(OFTEN)}
    return {k: v for k, v in flat.items() if k not in own} | changes


def order(folder: Path, run_name: str = "run-a", **what: Any) -> None:
    run_folder = folder / "work" / run_name
    run_folder.mkdir(parents=True, exist_ok=True)
    (run_folder / "drill.json").write_text(json.dumps(what))


def error_of(body: Any) -> dict[str, Any]:
    """The failure that a body tells; nothing else is in it."""
    assert list(body) == ["error"]
    error: dict[str, Any] = json.loads(body["error"])
    assert list(error) == ERROR_KEYS
    return error


def test_two_jobs_one_after_the_other_are_done_and_told(plane, worker, tmp_path):
    worker()
    order(tmp_path, step_seconds=0.05)
    plane.give("job-1", **spec(tmp_path))
    output = plane.result("job-1")["output"]
    receipt, problems = verify_uri(output["receipt"], read_credentials({}))
    assert problems == []
    assert output["receipt"] == f"file://{tmp_path}/out/run-a/receipt.json"
    assert (output["status"], output["run"], output["spec_hash"]) == (
        "done",
        "run-a",
        receipt["spec_hash"],
    )
    assert output["training"]["steps"] == STEPS
    steps = [state.get("step", 0) for state in plane.progress("job-1")]
    assert steps == sorted(steps)
    assert 0 < steps[-1] <= STEPS
    plane.give("job-2", **spec(tmp_path, name="run-b", seed=7))
    assert plane.result("job-2")["output"]["run"] == "run-b"
    last = [plane.posted.index((job_id, plane.result(job_id))) for job_id in ("job-1", "job-2")]
    assert not [j for j, _ in plane.posted[last[0] + 1 :] if j == "job-1"], "news after the result"
    assert last[1] == len(plane.posted) - 1
    assert all(head["Authorization"] == KEY for head in plane.headers)
    assert any("job-1" in ping for ping in plane.pings)


def test_the_same_job_twice_trains_once_and_has_one_receipt(plane, worker, tmp_path):
    worker()
    plane.give("job-1", **spec(tmp_path))
    first = plane.result("job-1")["output"]
    plane.posted.clear()
    plane.give("job-1", **spec(tmp_path))
    second = plane.result("job-1")["output"]
    assert second["receipt"] == first["receipt"]
    assert second["message"].startswith("already done")
    assert "training" not in second


def test_a_job_that_another_worker_is_doing_waits_for_its_receipt(plane, worker, tmp_path):
    worker()
    order(tmp_path, step_seconds=0.3)
    plane.give("job-1", **spec(tmp_path))
    until(lambda: plane.progress("job-1"), "the first worker at work")
    worker()
    plane.give("job-1", **spec(tmp_path))
    bodies = until(lambda: len(plane.results("job-1")) == 2 and plane.results("job-1"), "both")
    assert {body["output"]["receipt"] for body in bodies} == {
        f"file://{tmp_path}/out/run-a/receipt.json"
    }
    assert sorted("training" in body["output"] for body in bodies) == [False, True]


def test_data_that_cannot_be_trained_on_is_told_as_such(plane, worker, tmp_path):
    """The real run, not the stand-in's: its data process reads the rows."""
    worker("handler")
    given = spec(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"messages": [{"role": "user"}]}\n' * 20)
    plane.give("job-1", **given)
    error = error_of(plane.result("job-1"))
    assert (error["code"], error["exit_code"], error["phase"]) == ("data", 65, "data")
    assert error["retryable"] is False


def test_a_trainer_that_is_killed_is_a_failure_and_the_next_job_is_done(plane, worker, tmp_path):
    worker()
    order(tmp_path, dies_at=3)
    plane.give("job-1", **spec(tmp_path))
    error = error_of(plane.result("job-1"))
    assert (error["code"], error["exit_code"], error["phase"]) == ("resources", 71, "train")
    assert error["retryable"] is True
    plane.give("job-1", **spec(tmp_path))  # as /retry hands it out
    until(lambda: len(plane.results("job-1")) == 2, "the second result")
    assert plane.results("job-1")[1]["output"]["status"] == "done"


def test_a_run_that_is_killed_itself_is_a_failure_too(plane, worker, tmp_path):
    process = worker()
    order(tmp_path, waits_in="train")
    plane.give("job-1", **spec(tmp_path))
    until(lambda: any(s.get("phase") == "train" for s in plane.progress("job-1")), "training")
    (supervisor,) = [
        int(p.name)
        for p in Path("/proc").glob("[0-9]*")
        if children_of(p) == process.pid
        and b"stand_in" in (p / "cmdline").read_bytes()
        and b"stand_in_worker" not in (p / "cmdline").read_bytes()
    ]
    os.kill(supervisor, signal.SIGKILL)
    error = error_of(plane.result("job-1"))
    assert (error["code"], error["retryable"]) == ("resources", True)


def children_of(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def test_a_cancelled_job_keeps_a_checkpoint_and_posts_nothing(plane, worker, tmp_path):
    worker()
    order(tmp_path, step_seconds=0.2)
    plane.give("job-1", **spec(tmp_path, checkpoint_minutes=60))
    until(lambda: any(s.get("step", 0) > 2 for s in plane.progress("job-1")), "a few steps")
    plane.stops.put(["job-1"])
    kept = tmp_path / "out/run-a/checkpoints"
    until(lambda: list(kept.glob("*/COMPLETE")), "a complete checkpoint at the destination")
    until(lambda: (tmp_path / "out/run-a/failure.json").exists(), "the end of the run")
    plane.give("job-2", **spec(tmp_path))  # the worker lives, and goes on from there
    assert plane.result("job-2")["output"]["status"] == "done"
    assert plane.results("job-1") == []


def test_a_worker_that_is_scaled_down_keeps_a_checkpoint_and_says_so(plane, worker, tmp_path):
    process = worker()
    order(tmp_path, step_seconds=0.2)
    plane.give("job-1", **spec(tmp_path, checkpoint_minutes=60))
    until(lambda: any(s.get("step", 0) > 2 for s in plane.progress("job-1")), "a few steps")
    process.send_signal(signal.SIGTERM)
    error = error_of(plane.result("job-1"))
    assert (error["code"], error["exit_code"], error["retryable"]) == ("stopped", 75, True)
    assert list((tmp_path / "out/run-a/checkpoints").glob("*/COMPLETE"))
    assert process.wait(30) == 0


def test_a_result_that_the_platform_loses_is_at_the_destination(plane, worker, tmp_path):
    worker()
    plane.done_statuses = [500, 500, 500]
    plane.take_statuses = [204, 400, 500, 429]
    plane.give("job-1", **spec(tmp_path))
    until(lambda: len(plane.results("job-1")) == 3, "three attempts")
    receipt, problems = verify_uri(f"file://{tmp_path}/out/run-a", read_credentials({}))
    assert problems == []
    plane.lose_replies = 1
    plane.give("job-2", **spec(tmp_path))  # its result is taken in, and the reply is lost
    assert plane.result("job-2")["output"]["spec_hash"] == receipt["spec_hash"]
    plane.give("job-3", **spec(tmp_path))
    assert plane.result("job-3")["output"]["spec_hash"] == receipt["spec_hash"]
    assert plane.lose_replies == 0


REFUSED = {
    "no spec": (None, "`input`"),
    "an unknown key": ({"modle": "org/name"}, "did you mean model?"),
    "a climbing path": ({"dataset": "/runpod-volume/../etc/passwd"}, "dataset"),
    "a climbing name": ({"name": "../other"}, "name"),
    "a token": ({"hf_token": CANARY}, "secrets are never keys"),
    "a token as a value": ({"model": f"https://u:{CANARY}@host/x"}, "model"),
    "a file of the worker": ({"dataset": "/etc/passwd"}, "file of the worker"),
    "a folder of the worker": ({"model": "/opt/venv"}, "folder of the worker"),
    "its own disk": ({"output": "file:///tmp/out"}, "gone with the worker"),
    "another work dir": ({"work_dir": "/etc"}, "set by the endpoint's owner"),
}


def test_what_may_not_be_asked_for_is_refused_before_anything_is_done(plane, worker, tmp_path):
    worker()
    for number, (changes, said) in enumerate(REFUSED.values()):
        job_id = f"job-{number}"
        given = None if changes is None else spec(tmp_path) | changes
        plane.jobs.put({"id": job_id, "input": given or "text"})
        error = error_of(plane.result(job_id))
        assert (error["code"], error["phase"], error["retryable"]) == ("spec", "spec", False)
        assert said in error["message"], error
    assert not (tmp_path / "work/run-a").exists()
    assert not (tmp_path / "out").exists()


def test_a_job_is_stopped_in_good_order_before_the_platform_would_kill_it(plane, worker, tmp_path):
    worker(RUNPOD_EXECUTION_TIMEOUT_S="37")
    order(tmp_path, step_seconds=2)
    plane.give("job-1", **spec(tmp_path, stop_grace=1, checkpoint_minutes=60))
    error = error_of(plane.result("job-1"))
    assert (error["code"], error["retryable"]) == ("stopped", True)


async def silent(_: dict[str, Any]) -> None:
    """Takes progress."""


def test_a_job_that_is_longer_than_the_endpoint_allows_is_refused(tmp_path):
    environ = {"JOB_DEVICE": "cpu", "RUNPOD_VOLUME_PATH": str(tmp_path)}

    def told(**changes: Any) -> dict[str, Any]:
        own = environ | {k: v for k, v in changes.items() if k.startswith("RUNPOD_")}
        asked = {k: v for k, v in changes.items() if not k.startswith("RUNPOD_")}
        one = Worker(own, lambda _: silent, ("false",))
        body = asyncio.run(one.handle({"id": "a", "input": spec(tmp_path) | asked}))
        return error_of(body)

    error = told(stop_grace=600)  # the default timeout is 600 s
    assert error["code"] == "spec"
    assert "RUNPOD_EXECUTION_TIMEOUT_S" in error["message"]
    before = dict(NOT_BUILT)
    NOT_BUILT.pop("max_hours", None)
    try:
        error = told(max_hours=2, RUNPOD_EXECUTION_TIMEOUT_S="7200")  # nothing is left to end in
        assert "cannot end within" in error["message"]
        error = told(max_hours=2, RUNPOD_EXECUTION_TIMEOUT_S="7300")
        assert error["code"] != "spec"  # it was started, and `false` fails
    finally:
        NOT_BUILT.clear()
        NOT_BUILT.update(before)
    error = told(RUNPOD_EXECUTION_TIMEOUT_S="soon")
    assert "not a number" in error["message"]


def test_the_endpoint_sets_defaults_and_the_input_wins(tmp_path):
    from job.runpod.payload import read_input

    given = spec(tmp_path)
    del given["output"]
    environ = {"RUNPOD_VOLUME_PATH": str(tmp_path), "JOB_OUTPUT": "s3://bucket/runs"}
    environ |= {"JOB_SEED": "1", "JOB_MAX_STEPS": "999", "JOB_SPEC": '{"lora_r": 4, "seed": 2}'}
    environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "MY_PASSWORD": "c"}
    found, env = read_input(given, environ)
    assert found.output[0].uri == "s3://bucket/runs"
    assert (found.seed, found.max_steps, found.lora_r) == (1, STEPS, 4)
    assert "MY_PASSWORD" not in env
    assert env["AWS_SECRET_ACCESS_KEY"] == "b"
    assert not [name for name in env if name.startswith("RUNPOD_")]


def test_the_newest_state_is_sent_in_order_and_nothing_after_the_end():
    sent: list[Any] = []

    async def send(state: dict[str, Any]) -> None:
        await asyncio.sleep(0.02)
        sent.append(state["step"])

    async def many() -> None:
        async with Progress(send, every=0.001) as progress:
            for step in range(50):
                progress.handle({"event": "step", "step": step})
                await asyncio.sleep(0.002)
        count = len(sent)
        await asyncio.sleep(0.1)
        assert len(sent) == count

    asyncio.run(many())
    assert sent == sorted(sent)
    assert 1 < len(sent) < 50


def test_a_run_that_ignores_its_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("job.runpod.child_run.LAST_WORDS", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    command = (sys.executable, "-c", deaf)

    async def once() -> Any:
        return await run(command, {}, print, Stop(), seconds=1.0, grace=0.1)

    began = time.monotonic()
    ended = asyncio.run(once())
    assert ended.code == -signal.SIGKILL
    assert ended.error().exit_code == 71
    assert time.monotonic() - began < 30


def test_a_worker_without_a_gpu_or_without_disk_is_not_fit(tmp_path, monkeypatch):
    gpu, disk = fitness_checks({"JOB_WORK_DIR": str(tmp_path)})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match="No NVIDIA driver"):
        gpu()
    disk()
    monkeypatch.setattr("job.runpod.worker.LEAST_DISK", 10**18)
    with pytest.raises(JobError, match="are free"):
        disk()
    assert LEAST_DISK == 10 * 2**30
    (on_cpu,) = fitness_checks({"JOB_WORK_DIR": "/proc/none", "JOB_DEVICE": "cpu"})
    with pytest.raises(JobError, match="JOB_WORK_DIR"):
        on_cpu()


@pytest.mark.parametrize("module", ["handler", "entrypoint"])
def test_handler_py_and_the_image_without_a_command_are_the_worker(plane, worker, module):
    process = worker(module)
    plane.give("job-1", model="no spec")
    assert error_of(plane.result("job-1"))["code"] == "spec"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    told = len(plane.pings)
    time.sleep(2.5)  # two of its pings
    assert len(plane.pings) == told, "a process of the SDK goes on"


def test_where_a_failure_must_be_loud_it_ends_the_worker_and_nothing_is_posted(
    plane, worker, tmp_path
):
    process = worker(RUNPOD_WORKER_EXITS_ON_FAILURE="1")
    order(tmp_path, diverges_at=2)
    plane.give("job-1", **spec(tmp_path))
    assert process.wait(60) == 82
    assert plane.results("job-1") == []

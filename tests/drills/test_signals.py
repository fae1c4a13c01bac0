"""SIGTERM in every phase: the step is finished and kept, exit 75, and the next start goes on."""

from __future__ import annotations

import shutil
import signal
import time

import pytest

from job.checkpoints import names, newest
from tests.conftest import BUCKET
from tests.drills.conftest import STEPS
from tests.jobs import wait
from tests.store.s3_proxy import S3Proxy

SLOW = {"step_seconds": 0.15}


def stopped(ended) -> None:
    assert ended.code == 75, ended.text
    assert ended.line["status"] == "stopped"
    assert ended.line["retryable"] is True
    assert ended.line["receipt"] is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_training_keeps_the_step_here_and_at_the_destination(drill, number):
    run = drill(JOB_CHECKPOINT_MINUTES="10")  # so that nothing is kept but for the signal
    run.order(**SLOW)
    process = run.start()
    run.until_said("step", step=4)
    process.send_signal(number)
    stopped(wait(process))
    (kept,) = names(run.run_folder / "checkpoints")
    assert names(run.place / "checkpoints") == [kept]
    assert run.said("mirrored")[-1]["step"] >= 4
    assert not (run.place / "receipt.json").exists()
    run.moved()  # to another machine
    run.is_done(run.run())
    assert run.said("resumed")[0]["step"] >= 4


def test_after_many_signals_the_weights_are_those_of_an_uninterrupted_run(drill):
    run = drill()
    for step in (2, 5, 9):
        run.order(**SLOW)
        process = run.start()
        run.until_said("step", step=step)
        process.terminate()
        stopped(wait(process))
    run.is_done(run.run())
    assert len(run.said("resumed")) == 3


@pytest.mark.parametrize("phase", ["data", "load", "eval", "merge"])
def test_a_signal_in_another_phase_ends_the_child_at_once(drill, phase):
    run = drill()
    run.order(waits_in=phase)
    process = run.start()
    if phase == "eval":
        run.until_said("checkpoint", step=STEPS)
        time.sleep(0.2)
    elif phase == "data":
        run.until_said("phase", phase=phase, message="waiting")
    else:
        run.until_said("phase", phase=phase)
    process.terminate()
    signalled = time.monotonic()
    stopped(wait(process))
    assert time.monotonic() - signalled < 15
    trained = len(run.said("step"))
    run.is_done(run.run())
    if phase in ("eval", "merge"):
        assert len(run.said("step")) == trained  # no step was done twice


def test_a_signal_while_verifying_leaves_verifying_to_the_next_start(drill):
    run = drill()
    run.run_folder.mkdir(parents=True)
    flag = run.run_folder / "verifier-waits"
    flag.touch()
    process = run.start()
    run.until_said("phase", phase="verify", message="waiting")
    process.terminate()
    stopped(wait(process))
    flag.unlink()
    run.is_done(run.run())
    assert len(run.said("step")) == STEPS


def test_a_signal_while_publishing_leaves_the_rest_to_the_next_start(drill, s3_env):
    run = drill(s3_env, JOB_OUTPUT=f"s3://{BUCKET}/signal")
    with S3Proxy(s3_env["AWS_ENDPOINT_URL_S3"]) as proxy:
        run.environ["AWS_ENDPOINT_URL_S3"] = proxy.url
        proxy.hold("PUT", "/merged/model.safetensors")
        process = run.start()
        assert proxy.held.wait(60)
        process.terminate()
        proxy.release()
        stopped(wait(process))
        proxy.paths.clear()
        run.is_done(run.run())
    written = [path for method, path in proxy.paths if method == "PUT"]
    assert [path for path in written if "/adapter/" in path] == []  # it was there
    assert len(run.said("step")) == STEPS


def test_with_little_grace_the_last_mirrored_checkpoint_is_whole(drill):
    """SIGTERM, then SIGKILL before anything could be finished, as on a spot machine."""
    run = drill(JOB_STOP_GRACE="5")
    run.order(step_seconds=0.3)
    process = run.start()
    run.until_said("mirrored", step=3)
    process.terminate()
    time.sleep(0.1)
    process.kill()
    process.communicate()
    shutil.rmtree(run.run_folder / "checkpoints")  # as on another machine
    found = newest(run.place / "checkpoints", run.spec_hash(), print)
    assert found is not None
    assert found.step >= 3
    run.environ["JOB_STOP_GRACE"] = "25"
    run.is_done(run.run())


def test_a_step_that_outlasts_the_grace_is_given_up(drill):
    run = drill(JOB_STOP_GRACE="6")
    run.order(step_seconds=0.2)
    process = run.start()
    run.until_said("checkpoint", step=2)
    run.order(step_seconds=600)
    process.terminate()
    stopped(wait(process))
    run.order(step_seconds=600)
    process = run.start()
    run.until_said("resumed")
    process.terminate()
    signalled = time.monotonic()
    stopped(wait(process))
    assert time.monotonic() - signalled < 6
    (run.run_folder / "drill.json").unlink(missing_ok=True)
    run.is_done(run.run())


def test_a_second_signal_ends_at_once_and_says_nothing_false(drill):
    run = drill()
    run.order(step_seconds=600)
    process = run.start()
    run.until_said("phase", phase="train")
    time.sleep(0.3)
    process.terminate()
    time.sleep(0.2)
    process.terminate()
    signalled = time.monotonic()
    stopped(wait(process))
    assert time.monotonic() - signalled < 3
    assert not (run.place / "receipt.json").exists()
    run.is_done(run.run())

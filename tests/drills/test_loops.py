"""Failures that come again: crash loops, the GPU's memory, divergence, the kernel's kills."""

from __future__ import annotations

import time

from job.checkpoints import names, read
from job.child import death, kernel_kills
from tests import s3
from tests.conftest import BUCKET
from tests.drills.conftest import LOG, cpu_seconds
from tests.store.s3_proxy import FOREVER, S3Proxy

TOO_BIG = {"memory_ends_at": 5, "always": True}


def test_a_run_that_fails_the_same_way_again_and_again_is_not_started_any_more(drill):
    run = drill(JOB_MAX_ATTEMPTS="3", JOB_CHECKPOINT_MINUTES="10")
    run.order(dies_at=3, always=True)
    assert [run.run().code for _ in range(3)] == [71, 71, 71]
    before = cpu_seconds()
    ended = run.run()
    assert cpu_seconds() - before < 5
    assert ended.code == 70
    assert "failed 3 times in the same way (resources in train)" in ended.line["message"]
    assert len(run.said("ready")) == 3
    run.order()
    run.environ["JOB_MAX_ATTEMPTS"] = "4"
    run.is_done(run.run())


def test_a_run_that_gets_further_each_time_is_started_again(drill):
    run = drill(JOB_MAX_ATTEMPTS="2")
    for step in (3, 5, 7, 9):
        run.order(dies_at=step)
        assert run.run().code == 71
    run.is_done(run.run())


def test_starts_that_are_killed_as_a_whole_are_counted_too(drill):
    run = drill(JOB_MAX_ATTEMPTS="2")
    for _ in range(2):
        run.order(waits_in="load")
        process = run.start()
        began = len(run.said("inputs"))
        run.until_said("phase", phase="load")
        while len(run.said("inputs")) == began and began:
            time.sleep(0.01)
        process.kill()
        process.communicate()
    ended = run.run()
    assert ended.code == 70
    assert "killed" in ended.line["message"]


def test_signals_are_never_counted(drill):
    run = drill(JOB_MAX_ATTEMPTS="1")
    for step in (2, 4):
        run.order(step_seconds=0.15)
        process = run.start()
        run.until_said("step", step=step)
        process.terminate()
        process.communicate()
        assert process.returncode == 75
    run.is_done(run.run())


def test_cuda_out_of_memory_is_tried_once_more_with_half_the_micro_batch(drill):
    run = drill(JOB_MICRO_BATCH_SIZE="4")
    run.order(**TOO_BIG, fits=2)
    run.is_done(run.run())
    plans = [event["settings"] for event in run.said("plan")]
    assert [plan["micro_batch_size"]["value"] for plan in plans] == [4, 2]
    assert [plan["gradient_accumulation"]["value"] for plan in plans] == [4, 8]
    assert [event["step"] for event in run.said("resumed")] == [4]


def test_cuda_out_of_memory_again_ends_with_81_and_the_estimate(drill):
    run = drill(JOB_MICRO_BATCH_SIZE="4")
    run.order(**TOO_BIG, fits=1)
    ended = run.run()
    assert ended.code == 81
    assert "tried with 2 sequence(s) at a time, estimated at" in ended.line["message"]
    assert len(run.said("ready")) == 2
    assert names(run.run_folder / "checkpoints")[-1] == "step-000004"
    assert not (run.place / "receipt.json").exists()


def test_a_single_sequence_that_does_not_fit_is_not_tried_again(drill):
    run = drill(JOB_MICRO_BATCH_SIZE="1")
    run.order(**TOO_BIG)
    assert run.run().code == 81
    assert len(run.said("ready")) == 1


def test_a_diverged_run_publishes_nothing_and_keeps_its_last_finite_checkpoint(drill):
    run = drill()
    run.order(diverges_at=6)
    ended = run.run()
    assert ended.code == 82
    assert ended.line["retryable"] is False
    kept = names(run.run_folder / "checkpoints")
    assert kept[-1] == "step-000005"
    assert read(run.run_folder / "checkpoints" / kept[-1]).step == 5
    parts = {path.name for path in run.place.iterdir()}
    assert parts == {"checkpoints", "claim.json", "failure.json", "report", *LOG}


def test_a_kill_by_the_kernel_is_told_from_others_by_the_counter_of_the_cgroup(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("12:memory:/old\n0::/kubepods/pod1\n")
    group = tmp_path / "root/kubepods/pod1"
    group.mkdir(parents=True)
    assert kernel_kills(tmp_path / "root", own) is None  # no such controller here
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\n")
    assert kernel_kills(tmp_path / "root", own) == 1
    own.write_text("4:memory:/version-one\n")
    assert kernel_kills(tmp_path / "root", own) is None
    for by_kernel, words in ((True, "by the kernel"), (False, "from outside"), (None, "as the")):
        killed = death("job.train", -9, stopped=False, by_kernel=by_kernel)
        assert killed.exit_code == 71
        assert words in killed.message


def test_a_trainer_that_dies_at_its_import_ends_the_run_while_the_model_is_fetched(drill, s3_env):
    run = drill(s3_env, JOB_MODEL=f"s3://{BUCKET}/base")
    for path in (run.folder / "model").iterdir():
        s3.client(s3_env).put_object(Bucket=BUCKET, Key=f"base/{path.name}", Body=path.read_bytes())
    with S3Proxy(s3_env["AWS_ENDPOINT_URL_S3"]) as proxy:
        run.environ["AWS_ENDPOINT_URL_S3"] = proxy.url
        proxy.order("wait", "GET", "base/model.safetensors", FOREVER, seconds=8)
        run.order(dies_in="import", always=True)
        ended = run.run()
        assert ended.code == 70, ended.text
        assert "exit code 9" in ended.line["message"]
        assert ended.line["phase"] == "fetch"
        proxy.heal()
        run.order()
        run.is_done(run.run())

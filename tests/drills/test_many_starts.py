"""One run, many starts: only what is missing is done, and after success nothing."""

from __future__ import annotations

import json
import shutil
import time

import pytest

from tests import s3
from tests.conftest import BUCKET
from tests.drills.boundaries import BY_THE_CLOCK
from tests.drills.conftest import LOG, STEPS, cpu_seconds
from tests.jobs import wait
from tests.store.s3_proxy import S3Proxy


def test_started_again_after_success_it_reports_the_same_receipt_within_three_seconds(
    drill, s3_env
):
    run = drill(s3_env, JOB_OUTPUT=f"s3://{BUCKET}/again")
    first = run.run()
    run.is_done(first)
    trained = len(run.said("step"))
    with S3Proxy(s3_env["AWS_ENDPOINT_URL_S3"]) as proxy:
        run.environ["AWS_ENDPOINT_URL_S3"] = proxy.url
        before = cpu_seconds()
        again = run.run()
        assert cpu_seconds() - before < 3
        assert again.line["receipt"] == first.line["receipt"]
        assert "already done" in again.line["message"]
        assert set(proxy.requests) == {"GET"}  # nothing is written, nothing is deleted
    assert len(run.said("step")) == trained
    run.moved()  # and on another machine
    run.environ |= s3_env
    assert run.run().line["receipt"] == first.line["receipt"]


def test_an_object_that_was_lost_after_success_is_found_and_only_it_is_sent_again(drill, s3_env):
    run = drill(s3_env, JOB_OUTPUT=f"s3://{BUCKET}/lost")
    run.is_done(run.run())
    bucket, begin = s3.client(s3_env), "lost/run-a/"
    lost, cut = "adapter/adapter_model.safetensors", "merged/model.safetensors"
    bucket.delete_object(Bucket=BUCKET, Key=begin + lost)
    bucket.put_object(Bucket=BUCKET, Key=begin + cut, Body=b"cut off")
    with S3Proxy(s3_env["AWS_ENDPOINT_URL_S3"]) as proxy:
        run.environ["AWS_ENDPOINT_URL_S3"] = proxy.url
        before = cpu_seconds()
        ended = run.run()
        assert cpu_seconds() - before < 3
        run.is_done(ended)
        written = [path for method, path in proxy.paths if method != "GET" and method != "HEAD"]
        assert written == [f"/{BUCKET}/{begin}{key}" for key in (lost, cut)]
    assert "already done" in ended.line["message"]
    said = [event["message"] for event in run.said("warning")]
    assert lost in said[-1]
    assert cut in said[-1]
    assert len(run.said("step")) == STEPS


def test_an_object_that_is_lost_everywhere_ends_with_73_before_anything_is_done(drill, s3_env):
    run = drill(s3_env, JOB_OUTPUT=f"s3://{BUCKET}/nowhere")
    run.is_done(run.run())
    bucket, begin = s3.client(s3_env), "nowhere/run-a/"
    bucket.delete_object(Bucket=BUCKET, Key=f"{begin}merged/model.safetensors")
    run.moved()
    ended = run.run()
    assert ended.code == 73, ended.text
    assert "merged/model.safetensors" in ended.line["message"]
    assert run.said("step") == []
    bucket.delete_object(Bucket=BUCKET, Key=f"{begin}receipt.json")  # as the message says
    run.is_done(run.run())


def test_killed_between_adapter_and_merge_it_only_merges(drill):
    run = drill()
    run.order(waits_in="merge")
    process = run.start()
    run.until_said("phase", phase="merge")
    process.kill()
    process.communicate()
    run.is_done(run.run())
    assert len(run.said("step")) == STEPS
    assert [e["part"] for e in run.said("artifact")] == ["adapter", "merged"]


def test_killed_between_merge_and_upload_it_only_publishes(drill):
    run = drill()
    shutil.rmtree(run.place, ignore_errors=True)
    process = run.start()
    run.until_said("phase", phase="publish")
    process.kill()
    process.communicate()
    before = len(run.said())
    run.is_done(run.run())
    phases = [e["phase"] for e in run.said()[before:] if e["event"] == "phase"]
    assert set(phases) == {"preflight", "publish"}


def test_killed_between_the_last_object_and_the_receipt_it_only_writes_the_receipt(drill, s3_env):
    run = drill(s3_env, JOB_OUTPUT=f"s3://{BUCKET}/receipt")
    with S3Proxy(s3_env["AWS_ENDPOINT_URL_S3"]) as proxy:
        run.environ["AWS_ENDPOINT_URL_S3"] = proxy.url
        proxy.hold("PUT", "/receipt.json")
        process = run.start()
        proxy.held.wait(60)
        process.kill()
        process.communicate()
        proxy.release()
        proxy.paths.clear()
        run.is_done(run.run())
    written = [path for method, path in proxy.paths if method in ("PUT", "POST")]
    kept = [p for p in written if ".check-" not in p and not p.endswith(BY_THE_CLOCK)]
    assert [path.rsplit("/", 1)[1] for path in kept] == ["receipt.json"]


def test_a_damaged_result_of_an_earlier_start_is_made_again(drill):
    run = drill()
    run.order(waits_in="merge")
    process = run.start()
    run.until_said("artifact", part="adapter")
    time.sleep(0.3)
    process.kill()
    process.communicate()
    with (run.run_folder / "adapter/adapter_model.safetensors").open("r+b") as file:
        file.write(b"\0")
    run.is_done(run.run())
    assert run.said("resumed")[0]["step"] == STEPS  # from the checkpoint of the last step


def test_publish_sends_what_is_finished_and_trains_nothing(drill):
    run = drill()
    refused = run.run("publish")
    assert refused.code == 64
    assert not run.place.exists()
    (run.folder / "out").write_text("in the way")  # so the upload fails
    assert run.run().code == 77
    assert not run.said("step")  # found in preflight, before anything was trained
    (run.folder / "out").unlink()
    process = run.start()
    run.until_said("phase", phase="publish")
    process.kill()
    process.communicate()
    shutil.rmtree(run.folder / "model")  # publishing needs no model
    run.is_done(run.run("publish"))
    assert len(run.said("step")) == STEPS


def test_merge_merges_the_saved_adapter_anew(drill):
    run = drill()
    assert run.run("merge").code == 64
    run.order(waits_in="merge")
    process = run.start()
    run.until_said("phase", phase="merge")
    process.terminate()
    assert wait(process).code == 75
    run.is_done(run.run("merge"))
    assert len(run.said("step")) == STEPS
    again = run.run("merge")
    assert "already done" in again.line["message"]


def test_another_spec_under_the_same_name_takes_nothing_over(drill):
    run = drill()
    run.order(waits_in="merge")
    process = run.start()
    run.until_said("artifact", part="adapter")
    process.kill()
    process.communicate()
    shutil.rmtree(run.folder / "out")
    run.environ["JOB_SEED"] = "1"
    ended = run.run()
    assert ended.code == 0, ended.text
    assert len(run.said("step")) == 2 * STEPS
    assert run.said("resumed") == []


@pytest.mark.parametrize("save", ["lora", "merged_16bit"])
def test_what_is_not_asked_for_is_not_waited_for(drill, save):
    run = drill(JOB_SAVE=save)
    ended = run.run()
    assert ended.code == 0, ended.text
    receipt = json.loads((run.place / "receipt.json").read_text())
    parts = {file["path"].split("/")[0] for file in receipt["files"]}
    assert parts == {"report", "adapter" if save == "lora" else "merged"}


def test_the_store_holds_nothing_but_the_log_and_what_the_receipt_lists(drill, s3_env):
    prefix = "listed"
    run = drill(s3_env, JOB_OUTPUT=f"s3://{BUCKET}/{prefix}")
    run.order(dies_at=5)
    assert run.run().code == 71
    assert run.run().code == 0
    bucket = s3.client(s3_env)
    found = bucket.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/run-a/")["Contents"]
    keys = {item["Key"].removeprefix(f"{prefix}/run-a/") for item in found}
    body = bucket.get_object(Bucket=BUCKET, Key=f"{prefix}/run-a/receipt.json")["Body"].read()
    listed = {file["path"] for file in json.loads(body)["files"]}
    assert keys == listed | {"receipt.json", *LOG}

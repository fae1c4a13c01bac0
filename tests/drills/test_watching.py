"""A whole run as others see it: at its destination, by webhook, and what it has cost."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator

import pytest

from job.credentials import read_credentials
from job.receipt import verify_uri
from tests import s3
from tests.conftest import BUCKET
from tests.jobs import until, wait
from tests.test_webhook import SECRET, Receiver

HOOK = {"JOB_WEBHOOK_URL": "https://host.example/hook", "JOB_WEBHOOK_SECRET": SECRET}
PRICE = 3600.0  # a dollar a second


def status(env: dict[str, str], prefix: str) -> dict:
    client = s3.client(env)
    try:
        found = client.get_object(Bucket=BUCKET, Key=f"{prefix}/run-a/status.json")
    except client.exceptions.NoSuchKey:
        return {}
    return json.loads(found["Body"].read())


def stored_events(env: dict[str, str], prefix: str) -> list[dict]:
    found = s3.client(env).get_object(Bucket=BUCKET, Key=f"{prefix}/run-a/events.jsonl")
    return [json.loads(line) for line in found["Body"].read().decode().splitlines()]


def test_whoever_reads_the_bucket_sees_the_run_go_on_fail_and_end(drill, s3_env):
    prefix = "watched"
    changes = {"JOB_OUTPUT": f"s3://{BUCKET}/{prefix}", "JOB_GPU_USD_PER_HOUR": str(PRICE)}
    run = drill({**s3_env, "DRILL_EVERY": "0.2"}, **changes)
    run.order(step_seconds=0.3, dies_at=9)
    process = run.start()
    seen = until(lambda: (now := status(s3_env, prefix)).get("step", 0) >= 3 and now, "step 3")
    assert (seen["state"], seen["phase"], seen["of"]) == ("running", "train", 12)
    assert seen["percent"] == pytest.approx(100 * seen["step"] / 12, abs=0.1)
    assert {"eta_seconds", "loss", "tokens_per_second", "time"} <= seen.keys()
    assert seen["spec_hash"] == run.spec_hash()
    assert wait(process).code == 71
    failed = status(s3_env, prefix)
    assert (failed["state"], failed["step"]) == ("failed", 9)
    assert failed["cost_usd"] > seen["cost_usd"] > 1
    first = stored_events(s3_env, prefix)
    assert first == run.said()

    run.moved()  # to another machine, which knows nothing of the first start's events
    ended = run.run()
    assert ended.code == 0, ended.text
    assert status(s3_env, prefix)["state"] == "done"
    assert stored_events(s3_env, prefix) == first + run.said()
    receipt, problems = verify_uri(ended.line["receipt"], read_credentials(run.environ))
    assert problems == []
    assert not {"events.jsonl", "status.json"} & {file["path"] for file in receipt["files"]}
    assert receipt["cost_usd"] > seen["cost_usd"]  # of both starts: the checkpoint brought it along


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


def test_a_receiver_hears_of_a_whole_run_in_order_and_signed(drill, receiver):
    run = drill({"DRILL_WEBHOOK": receiver.url}, **HOOK)
    run.order(dies_at=5)
    assert run.run().code == 71
    told = receiver.taken
    assert [state["number"] for state in told] == list(range(1, len(told) + 1))
    phases = [event["phase"] for event in run.said("phase")]
    assert [state["phase"] for state in told if state["state"] == "phase"] == phases
    assert (told[-1]["state"], told[-1]["exit_code"], told[-1]["phase"]) == ("failed", 71, "train")

    receiver.taken.clear()
    ended = run.run()
    assert ended.code == 0, ended.text
    states = [state["state"] for state in receiver.taken]
    assert states[-1] == "done"
    assert states.index("resumed") < states.index("trained") < len(states) - 1
    assert receiver.taken[-1]["receipts"] == [ended.line["receipt"]]
    for headers, body in receiver.got:
        stamp, mac = (part.split("=")[1] for part in headers["X-Signature"].split(","))
        signed = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256)
        assert mac == signed.hexdigest()


@pytest.mark.parametrize("how", ["down", "slow", "500"])
def test_a_receiver_that_fails_costs_a_whole_run_one_warning(drill, receiver, how):
    run = drill({"DRILL_WEBHOOK": receiver.url}, **HOOK)
    if how == "down":
        receiver.stop()
    elif how == "slow":
        receiver.seconds = 60.0
    else:
        receiver.status = [500]
    run.is_done(run.run())
    warnings = [event["message"] for event in run.said("warning")]
    assert [message.startswith("webhook: 127.0.0.1 ") for message in warnings] == [True]
    assert receiver.taken == []
    assert SECRET not in (run.run_folder / "events.jsonl").read_text()

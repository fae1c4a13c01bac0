"""Where training goes on: the newest whole checkpoint of this very run, wherever it lies."""

from __future__ import annotations

import json

import pytest

from job.checkpoints import names
from tests import s3
from tests.conftest import BUCKET
from tests.drills.conftest import STEPS
from tests.hub_double import HubDouble
from tests.jobs import wait

TOKEN = "hf_drillDrillDRILL0123456789"


def stopped_at(run, step: int) -> None:
    """A start that is stopped by a signal after about this step."""
    run.order(step_seconds=0.15)
    process = run.start()
    run.until_said("step", step=step)
    process.terminate()
    assert wait(process).code == 75


def resumed_from(run) -> list[int]:
    return [event["step"] for event in run.said("resumed")]


@pytest.mark.parametrize("what", ["a byte", "cut off", "missing", "COMPLETE"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_said(drill, what):
    run = drill()
    stopped_at(run, 5)
    *_, before, last = names(run.run_folder / "checkpoints")  # two, or a slow mirror keeps more
    for place in (run.run_folder, run.place):
        path = place / "checkpoints" / last / ("COMPLETE" if what == "COMPLETE" else "optimizer.pt")
        if what == "missing":
            path.unlink()
        else:
            content = path.read_bytes()
            path.write_bytes(content[:-9] if what == "cut off" else b"?" + content[1:])
    run.is_done(run.run())
    assert resumed_from(run) == [int(before[5:])]
    told = [event["message"] for event in run.said("warning")]
    assert any(last in message and "passed over" in message for message in told)


def test_a_checkpoint_damaged_here_is_fetched_from_the_destination(drill):
    run = drill()
    stopped_at(run, 5)
    last = names(run.run_folder / "checkpoints")[-1]
    (run.run_folder / "checkpoints" / last / "optimizer.pt").unlink()
    run.is_done(run.run())
    assert resumed_from(run) == [int(last[5:])]


def test_another_machine_goes_on_from_an_s3_store(drill, s3_env):
    run = drill(s3_env, JOB_OUTPUT=f"s3://{BUCKET}/moved")
    stopped_at(run, 5)
    bucket = s3.client(s3_env)
    found = bucket.list_objects_v2(Bucket=BUCKET, Prefix="moved/run-a/checkpoints/")["Contents"]
    kept = {item["Key"].split("/")[3] for item in found}
    assert len(kept) == 2  # of the five or more that were written
    last = max(kept)
    run.moved()
    run.is_done(run.run())
    assert resumed_from(run) == [int(last[5:])]
    left = bucket.list_objects_v2(Bucket=BUCKET, Prefix="moved/run-a/checkpoints/")
    assert "Contents" not in left


def test_another_machine_goes_on_from_a_branch_of_the_hub(drill):
    with HubDouble() as hub:
        hub.add_account(TOKEN, orgs=("org",))
        environ = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        run = drill(environ, JOB_OUTPUT="hf://org/tuned", JOB_CHECKPOINT_MINUTES="10")
        stopped_at(run, 5)
        repo = hub.repos["models", "org/tuned"]
        on_branch = {path.split("/")[1] for path in repo.branches["checkpoints"][-1].files
                     if path.startswith("checkpoints/")}  # fmt: skip
        assert not [path for path in hub.files("org/tuned") if path.startswith("checkpoints/")]
        run.moved()
        ended = run.run()
        assert ended.code == 0, ended.text
        assert resumed_from(run) == [int(max(on_branch)[5:])]
        assert repo.branches == {}
        assert not [path for path in hub.files("org/tuned") if path.startswith("checkpoints/")]


def test_resume_never_begins_anew_and_leaves_no_old_checkpoint(drill):
    run = drill()
    stopped_at(run, 5)
    run.environ["JOB_RESUME"] = "never"
    run.is_done(run.run())
    assert resumed_from(run) == []
    assert [event["step"] for event in run.said("step")][-STEPS:] == list(range(1, STEPS + 1))


def test_data_that_changed_are_not_trained_on_from_an_old_checkpoint(drill):
    run = drill()
    stopped_at(run, 5)
    rows = run.folder / "rows.jsonl"
    rows.write_text(rows.read_text() * 2)
    run.is_done(run.run())
    assert resumed_from(run) == []
    assert any("have changed" in event["message"] for event in run.said("warning"))


def test_the_report_of_a_resumed_run_shows_every_step_once(drill):
    run = drill()
    stopped_at(run, 5)
    run.moved()
    run.is_done(run.run())
    stages = json.loads((run.run_folder / "stages.json").read_text())
    training = stages["record"]["facts"]["training"]
    assert [point["step"] for point in training["history"]] == list(range(1, STEPS + 1))


def test_the_template_keeps_the_date_of_the_first_start(drill):
    run = drill()
    stopped_at(run, 5)
    for complete in run.place.glob("checkpoints/*/COMPLETE"):
        content = json.loads(complete.read_text())
        content["run"]["template_date"] = "2026-01-02"
        complete.write_text(json.dumps(content))
    run.moved()
    run.is_done(run.run())
    assert len(resumed_from(run)) == 1
    assert (run.run_folder / "template-date").read_text() == "2026-01-02"


def test_a_destination_that_is_away_does_not_hold_up_training(drill, s3_env):
    """The copy there fails with a warning; the next one is tried again."""
    from tests.store.s3_proxy import S3Proxy

    with S3Proxy(s3_env["AWS_ENDPOINT_URL_S3"]) as proxy:
        both = f"s3://{BUCKET}/away,file://{drill().folder}/out"
        environ = s3_env | {"AWS_ENDPOINT_URL_S3": proxy.url}
        run = drill(environ, JOB_OUTPUT=both)
        proxy.refuse_path("PUT", "/checkpoints/", 403, "AccessDenied")
        run.order(step_seconds=0.05)
        ended = run.run()
    run.environ |= s3_env
    run.is_done(ended)
    told = [event["message"] for event in run.said("warning")]
    assert any("is only here" in message for message in told)

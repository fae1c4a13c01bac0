"""What a tracker's process gets, what is refused before a run, and whole runs with trackers."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from job import trackers
from job.credentials import Credentials, read_credentials
from job.errors import SpecError
from job.trackers.feed import Feed, news
from tests.drills.conftest import drill  # noqa: F401 - a fixture
from tests.jobs import entrypoint, job, texts
from tests.trackers.conftest import SECRET, Speaker

SECRETS = {
    "HF_TOKEN": f"hf-{SECRET}",
    "AWS_ACCESS_KEY_ID": f"id-{SECRET}",
    "AWS_SECRET_ACCESS_KEY": f"key-{SECRET}",
    "WANDB_API_KEY": f"wandb-{SECRET}",
    "MLFLOW_TRACKING_TOKEN": f"mlflow-{SECRET}",
    "TRACKIO_WRITE_TOKEN": f"trackio-{SECRET}",
    "RUNPOD_API_KEY": f"runpod-{SECRET}",
    "JOB_WEBHOOK_SECRET": f"hook-{SECRET}",
}


@pytest.mark.parametrize(
    ("name", "more", "own"),
    [
        ("wandb", {}, {"WANDB_API_KEY"}),
        ("mlflow", {}, {"MLFLOW_TRACKING_TOKEN"}),
        ("trackio", {}, {"TRACKIO_WRITE_TOKEN"}),
        ("trackio", {"TRACKIO_SPACE_ID": "org/space"}, {"TRACKIO_WRITE_TOKEN", "HF_TOKEN"}),
        ("tensorboard", {}, set()),
    ],
)
def test_a_trackers_process_gets_its_own_credentials_and_no_others(tmp_path, name, more, own):
    environ = SECRETS | more | {"WANDB_ENTITY": "team", "MLFLOW_TRACKING_URI": "http://host"}
    env = trackers.environment(name, environ, read_credentials(environ), tmp_path)
    assert {key for key, value in env.items() if SECRET in value} == own
    assert ("WANDB_ENTITY" in env) == (name == "wandb")
    assert ("MLFLOW_TRACKING_URI" in env) == (name == "mlflow")
    assert env["HOME"] == str(tmp_path)


def test_a_secret_in_a_file_reaches_its_tracker(tmp_path):
    (tmp_path / "token").write_text(SECRET)
    environ = {"MLFLOW_TRACKING_TOKEN_FILE": f"{tmp_path}/token"}
    env = trackers.environment("mlflow", environ, read_credentials(environ), tmp_path)
    assert env["MLFLOW_TRACKING_TOKEN"] == SECRET
    assert "MLFLOW_TRACKING_TOKEN_FILE" not in env


@pytest.mark.parametrize("name", list(trackers.MODULES))
def test_one_that_is_not_installed_is_refused_with_the_extra_it_needs(tmp_path, name, monkeypatch):
    spec = Speaker(tmp_path, name).spec
    environ = {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": "http://host"}
    trackers.require(spec, environ, Credentials())
    real, missing = importlib.util.find_spec, trackers.MODULES[name]
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module: None if module == missing else real(module)
    )
    with pytest.raises(SpecError) as refused:
        trackers.require(spec, environ, Credentials())
    assert f"JOB_REPORT_TO: {name} is not installed" in str(refused.value)
    assert f"uv sync --extra {name}" in str(refused.value)


@pytest.mark.parametrize("command", ["check", "run"])
def test_what_a_tracker_needs_is_asked_for_before_anything_is_fetched(tmp_path, command):
    environ = job(tmp_path, JOB_REPORT_TO="wandb,mlflow", JOB_MODEL=f"{tmp_path}/none")
    ended = entrypoint(command, environ=environ)
    assert ended.code == 78
    assert "wandb needs WANDB_API_KEY, or WANDB_MODE=offline" in ended.line["message"]
    assert "mlflow needs MLFLOW_TRACKING_URI" in ended.line["message"]


def test_a_whole_run_is_at_every_tracker_and_none_of_their_secrets_anywhere(
    drill,  # noqa: F811
    proxy,
    server,
    tmp_path,
):
    environ = {"MLFLOW_TRACKING_URI": proxy.url, "MLFLOW_TRACKING_TOKEN": SECRET}
    environ |= {"WANDB_MODE": "offline", "WANDB_API_KEY": f"wandb-{SECRET}"}
    run = drill(environ, JOB_REPORT_TO="wandb,mlflow,trackio,tensorboard")
    run.order(dies_at=7)
    assert run.run().code == 71
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("finetune-job").experiment_id
    (there,) = client.search_runs([experiment])
    assert (there.info.status, there.data.tags["outcome.exit_code"]) == ("FAILED", "71")
    ended = run.run()
    run.is_done(ended)
    (there,) = client.search_runs([experiment])
    assert there.info.status == "FINISHED"
    assert json.loads(there.data.tags["outcome.receipts"].replace("'", '"'))
    points = client.get_metric_history(there.info.run_id, "train/loss")
    assert {point.step for point in points} == set(range(1, 13))
    board = EventAccumulator(str(run.run_folder / "trackers/tensorboard"))
    board.Reload()
    assert {point.step for point in board.Scalars("train/loss")} == set(range(1, 13))
    assert {headers["Authorization"] for headers in proxy.headers} == {f"Bearer {SECRET}"}
    assert SECRET not in texts(tmp_path) + ended.text
    assert [e["message"] for e in run.said("warning") if "mlflow" in e["message"]] == []


def test_a_run_whose_tracker_is_down_ends_as_it_would_without(drill, tmp_path):  # noqa: F811
    run = drill({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, JOB_REPORT_TO="mlflow")
    began = time.monotonic()
    run.is_done(run.run())
    assert time.monotonic() - began < 60
    steps = [event["time"] for event in run.said("step")]
    assert len(steps) == 12
    warnings = [event["message"] for event in run.said("warning")]
    assert all(message.startswith("mlflow: ") for message in warnings)
    assert "not everything was taken in time" in warnings[-1]
    again = run.run()  # finds its receipt, tries to catch up, and is as good
    assert again.code == 0, again.text


def lines(path: Path, *events: dict) -> None:
    with path.open("a") as file:
        file.write("".join(json.dumps(event) + "\n" for event in events))


def test_the_feed_gives_what_was_not_taken_again_and_no_line_that_is_not_whole(tmp_path):
    path, place = tmp_path / "events.jsonl", tmp_path / "place.json"
    lines(path, {"event": "a"}, {"event": "b"})
    feed = Feed(path, place)
    assert [event["event"] for event in feed.more()] == ["a", "b"]
    with path.open("a") as file:
        file.write('{"event": "half')
    assert [event["event"] for event in feed.more()] == ["a", "b"]
    feed.taken()
    assert feed.more() == []
    with path.open("a") as file:
        file.write("\n")  # a start after a kill ends the line
    lines(path, {"event": "c"})
    later = Feed(path, place)  # another start
    assert [event["event"] for event in later.more()] == ["c"]
    later.taken(ended=True)
    assert json.loads(place.read_text()) == {"offset": path.stat().st_size, "ended": True}


def test_the_outcome_of_an_earlier_start_is_not_the_runs():
    failed = {"event": "failed", "exit_code": 71, "message": "killed"}
    begins = {"event": "phase", "phase": "preflight"}
    assert news([failed]).outcome == {"state": "failed", "exit_code": 71, "message": "killed"}
    assert news([failed, begins]).outcome is None

"""MLflow's client against a real server: healthy, down, slow, broken, refusing, silent."""

from __future__ import annotations

import base64
import socket
import uuid
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.jobs import texts, until
from tests.trackers.conftest import PATIENCE, SECRET, Speaker
from tests.trackers.mlflow_server import Proxy

STEPS = list(range(1, 9))


class Mlflow:
    """A run's tracking in an experiment of its own."""

    def __init__(self, folder: Path, address: str, server: str) -> None:
        self.folder, self.experiment = folder, uuid.uuid4().hex
        self.environ = {"MLFLOW_TRACKING_URI": address, "MLFLOW_EXPERIMENT_NAME": self.experiment}
        self.client = MlflowClient(server)

    def speaker(self, **environ: str) -> Speaker:
        return Speaker(self.folder, "mlflow", **self.environ, **environ)

    def run(self):
        """The one run there."""
        experiment = self.client.get_experiment_by_name(self.experiment)
        (run,) = self.client.search_runs([experiment.experiment_id])
        return run

    def steps(self, metric: str = "train/grad_norm") -> list[int]:
        experiment = self.client.get_experiment_by_name(self.experiment)
        runs = self.client.search_runs([experiment.experiment_id]) if experiment else []
        histories = [self.client.get_metric_history(run.info.run_id, metric) for run in runs]
        return sorted(point.step for points in histories for point in points)


@pytest.fixture
def mlflow(tmp_path: Path, proxy: Proxy, server: str) -> Mlflow:
    return Mlflow(tmp_path, proxy.url, server)


def test_a_run_is_told_with_its_settings_its_curves_and_its_outcome(mlflow, proxy):
    speaker = mlflow.speaker(MLFLOW_TRACKING_USERNAME="me", MLFLOW_TRACKING_PASSWORD=SECRET)
    speaker.trackers.start()
    speaker.whole()
    speaker.end()
    run = mlflow.run()
    assert (run.info.run_name, run.info.status) == ("run-a", "FINISHED")
    assert run.data.params["lora_r"] == "8"
    assert run.data.params["model"] == "hf://org/base"
    assert run.data.params["plan.micro_batch_size"] == "4"
    assert run.data.params["training.tokens"] == "800"
    assert run.data.tags["outcome.state"] == "done"
    assert mlflow.steps() == STEPS
    assert mlflow.steps("train/loss") == [1, 2, 4, 5, 6, 7, 8]  # without the one that is none
    assert mlflow.steps("eval/loss") == mlflow.steps("eval/accuracy") == [0, 8]
    losses = mlflow.client.get_metric_history(run.info.run_id, "train/loss")
    assert {point.step: point.value for point in losses}[8] == 0.5
    assert speaker.warnings() == []
    sent = base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert {headers["Authorization"] for headers in proxy.headers} == {f"Basic {sent}"}
    assert SECRET not in texts(speaker.folder)


@pytest.mark.parametrize("how", ["down", "500", "401"])
def test_a_server_that_comes_back_while_the_run_goes_on_is_told_everything(mlflow, proxy, how):
    if how == "down":
        proxy.stop()
    else:
        proxy.status = int(how)
    speaker = mlflow.speaker()
    speaker.trackers.start()
    assert speaker.steps(1, 5) < 1
    until(speaker.warnings, "the warning", PATIENCE)
    assert speaker.steps(6, 8) < 1
    if how == "down":
        proxy.start()
    proxy.status = 0
    until(lambda: mlflow.steps() == STEPS, "what was missed", PATIENCE)
    speaker.log.emit("failed", code="stopped", exit_code=75, message="a signal")
    speaker.end()
    assert mlflow.run().info.status == "KILLED"
    (warning,) = speaker.warnings()
    assert warning.startswith("mlflow: MlflowException: ")
    assert "the run goes on" in warning
    assert len(speaker.said("log")) == 1  # it answers again


def test_a_server_that_is_down_to_the_end_is_told_by_the_next_start(mlflow, proxy):
    proxy.stop()
    speaker = mlflow.speaker()
    speaker.trackers.start()
    speaker.whole()
    until(speaker.warnings, "the warning", PATIENCE)
    assert speaker.end(seconds=3) < 8
    assert "not everything was taken in time" in speaker.warnings()[1]
    proxy.start()
    again = mlflow.speaker()
    again.trackers.catch_up()  # as a start does that finds its receipt
    again.log.emit("done", message="already done", receipts=[])
    again.end()
    assert mlflow.steps() == STEPS
    assert mlflow.run().info.status == "FINISHED"
    third = mlflow.speaker()
    third.trackers.catch_up()  # of which there is nothing left
    assert third.trackers._running == []
    third.end()


def test_a_slow_server_slows_nothing_and_gets_all(mlflow, proxy):
    proxy.seconds = 1.0
    speaker = mlflow.speaker()
    speaker.trackers.start()
    assert speaker.steps(1, 8) < 1
    speaker.log.emit("failed", code="bug", exit_code=70, message="no")
    speaker.end()
    assert mlflow.steps() == STEPS
    assert mlflow.run().info.status == "FAILED"
    assert speaker.warnings() == []


def test_a_server_that_takes_connections_and_never_answers_costs_a_bounded_end(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        speaker = Speaker(tmp_path, "mlflow", MLFLOW_TRACKING_URI=address)
        speaker.trackers.start()
        speaker.whole()
        assert speaker.end(seconds=3) < 8
    assert "not everything was taken in time" in speaker.warnings()[-1]


def test_starts_of_one_run_are_one_run_there(mlflow):
    first = mlflow.speaker()
    first.trackers.start()
    first.steps(1, 4)
    first.log.emit("failed", code="resources", exit_code=71, message="killed")
    first.end()
    assert mlflow.run().info.status == "FAILED"
    second = mlflow.speaker()
    second.trackers.start()
    second.log.enter("train")
    second.steps(5, 8)
    until(lambda: mlflow.steps() == STEPS, "both starts' steps", PATIENCE)
    assert mlflow.run().info.status == "RUNNING"
    second.log.emit("done", message="done", receipts=[])
    second.end()
    assert mlflow.run().info.status == "FINISHED"

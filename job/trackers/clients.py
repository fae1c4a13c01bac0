"""Each tracker's own client library behind three calls: open, send, close."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from job.trackers.feed import News

Request = dict[str, Any]
T = TypeVar("T")
STOPPED = 75  # exit code of a run that may go on


class Client(Protocol):
    """Made from the process's request: opens the run where it is known already, else makes it.

    Every call raises whatever the library raises; `send` is then called again with the same news.
    """

    def send(self, news: News) -> None: ...

    def close(self) -> None:
        """Nothing more comes; waits until all is sent."""


class Wandb:
    """Weights & Biases, also offline (WANDB_MODE); its address and project by its own variables."""

    def __init__(self, request: Request) -> None:
        import wandb

        self._exit_code = 1
        self._run = wandb.init(
            id=_identity(request),
            name=request["run"],
            resume="allow",
            config=request["settings"],
            settings=wandb.Settings(
                **{"console": "off", "silent": True, "save_code": False, "disable_git": True},
                **{"x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True},
                init_timeout=30.0,
            ),
        )

    def send(self, news: News) -> None:
        if news.settings:
            self._run.config.update(news.settings, allow_val_change=True)
        for point in news.points:
            self._run.log(point.values, step=point.step)
        if news.outcome:
            self._exit_code = news.outcome.get("exit_code", 0)
            self._run.summary.update(news.outcome)

    def close(self) -> None:
        self._run.finish(exit_code=self._exit_code)


class Mlflow:
    """An MLflow server, at MLFLOW_TRACKING_URI."""

    def __init__(self, request: Request) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        experiment = self._experiment(request["project"])
        self._run = self._find(experiment, request) or self._make(experiment, request)
        self._client.update_run(self._run, status="RUNNING")
        self._log_settings(request["settings"])

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _find(self, experiment: str, request: Request) -> str | None:
        which = f"tags.`{_TAG}` = '{_identity(request)}'"
        runs = self._client.search_runs([experiment], which, max_results=1)
        return runs[0].info.run_id if runs else None

    def _make(self, experiment: str, request: Request) -> str:
        tags = {_TAG: _identity(request)}
        made = self._client.create_run(experiment, run_name=request["run"], tags=tags)
        return str(made.info.run_id)

    def _log_settings(self, settings: dict[str, Any]) -> None:
        """Those that are new: a parameter cannot be changed, and another start may have others."""
        from mlflow.entities import Param

        known = self._client.get_run(self._run).data.params
        params = [Param(k, str(v)[:_LONGEST]) for k, v in settings.items() if k not in known]
        for some in _parts(params, 100):
            self._client.log_batch(self._run, params=some)

    def send(self, news: News) -> None:
        from mlflow.entities import Metric, RunTag

        self._log_settings(news.settings)
        metrics = [
            Metric(name, value, int(1000 * point.seconds), point.step)
            for point in news.points
            for name, value in point.values.items()
        ]
        for some in _parts(metrics, 500):
            self._client.log_batch(self._run, metrics=some)
        if news.outcome:
            tags = [RunTag(f"outcome.{k}", str(v)[:_LONGEST]) for k, v in news.outcome.items()]
            self._client.log_batch(self._run, tags=tags)
            stopped = "KILLED" if news.outcome.get("exit_code") == STOPPED else "FAILED"
            status = "FINISHED" if news.outcome["state"] == "done" else stopped
            self._client.set_terminated(self._run, status)

    def close(self) -> None:
        pass  # each call has waited for its answer


class Trackio:
    """trackio: a database in the run's folder, or a Space or server by its own variables."""

    def __init__(self, request: Request) -> None:
        import trackio

        self._trackio = trackio
        trackio.init(
            project=request["project"],
            name=_identity(request),
            resume="allow",
            config=request["settings"],
            private=True,
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self._step = 0

    def send(self, news: News) -> None:
        for point in news.points:
            self._trackio.log(point.values, step=point.step)
            self._step = point.step
        # Its config is sent with the first figures alone, so what is known later is a row of texts.
        outcome = {f"outcome.{name}": value for name, value in (news.outcome or {}).items()}
        if rest := {name: str(value) for name, value in (news.settings | outcome).items()}:
            self._trackio.log(rest, step=self._step)

    def close(self) -> None:
        self._trackio.finish()


class TensorBoard:
    """Event files in the run's folder, for `tensorboard --logdir`."""

    def __init__(self, request: Request) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(Path(request["folder"]) / "tensorboard"))
        self._text("settings", request["settings"])

    def _text(self, tag: str, values: dict[str, Any]) -> None:
        rows = "".join(f"| {name} | {value} |\n" for name, value in values.items())
        self._writer.add_text(tag, f"| | |\n| --- | --- |\n{rows}", 0)

    def send(self, news: News) -> None:
        if news.settings:
            self._text("chosen", news.settings)
        for point in news.points:
            for name, value in point.values.items():
                self._writer.add_scalar(name, value, point.step, walltime=point.seconds)
        if news.outcome:
            self._text("outcome", news.outcome | {"time": time.strftime("%F %T", time.gmtime())})
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


CLIENTS: dict[str, Callable[[Request], Client]] = {
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
    "tensorboard": TensorBoard,
}
_TAG = "finetune-job"
_LONGEST = 5000  # characters; MLflow refuses parameters of more than 6000, and such tags


def _identity(request: Request) -> str:
    """The same for every start of a run, another for another spec under its name."""
    return f"{request['run']}-{request['spec_hash'][:12]}"


def _parts(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

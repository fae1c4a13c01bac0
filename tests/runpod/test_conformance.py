"""One spec, started in the three ways: `docker run`, a pod, a serverless worker. One result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from job.credentials import read_credentials
from job.receipt import verify_uri
from tests.drills.conftest import OFTEN, STEPS
from tests.jobs import ROOT, job, until
from tests.runpod.control_plane import control_plane
from tests.runpod.pod_api import PodApi
from tests.train.conftest import ROWS, smollm2  # noqa: F401 - a fixture

POD = "pod-ours"
# Differ from run to run: times are in them.
WITH_TIMES = ("report/", "adapter/README.md", "merged/README.md")
STAND_IN = ("-m", "tests.drills.stand_in", "run")
Receipt = dict[str, Any]


def finished(folder: Path) -> Receipt:
    """The receipt of the only run below `out/`, verified; then the folder is as it was before."""
    (place,) = (folder / "out").iterdir()
    receipt, problems = verify_uri(f"file://{place}", read_credentials({}))
    assert problems == []
    shutil.rmtree(folder / "out")
    shutil.rmtree(folder / "work")
    return receipt


def by_docker_run(environ: dict[str, str], folder: Path, _: PodApi) -> Receipt:
    """Variables and exit code."""
    assert python(STAND_IN, environ).wait(120) == 0
    return finished(folder)


def by_pod(environ: dict[str, str], folder: Path, api: PodApi) -> Receipt:
    """The same, and the pod is terminated."""
    api.pods[POD] = "RUNNING"
    process = python(STAND_IN, environ | api.environ(POD))
    api.ended = lambda pod, action: process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0
    assert api.pods == {}
    return finished(folder)


def by_worker(environ: dict[str, str], folder: Path, _: PodApi) -> Receipt:
    """The same keys as `input`."""
    given = {k.removeprefix("JOB_").lower(): v for k, v in environ.items() if k.startswith("JOB_")}
    owners = {"JOB_WORK_DIR": given.pop("work_dir"), "RUNPOD_VOLUME_PATH": str(folder)}
    with served(("-m", "tests.runpod.stand_in_worker"), owners) as give:
        output = give(given)["output"]
    receipt = finished(folder)
    assert output["spec_hash"] == receipt["spec_hash"]
    return receipt


def python(arguments: tuple[str, ...], environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """A Python process with this environment."""
    env = {"PATH": os.environ["PATH"], **environ}
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=env)


@contextmanager
def served(
    arguments: tuple[str, ...], environ: dict[str, str], patience: float = 120
) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """A worker on a loopback control plane; gives it a job and waits for what it posts."""
    with control_plane() as plane:
        process = python(arguments, environ | plane.environ() | {"JOB_DEVICE": "cpu"})

        def give(payload: dict[str, Any]) -> Any:
            plane.give("job-1", **payload)
            return until(lambda: plane.results("job-1"), "the result", patience)[0]

        try:
            yield give
        finally:
            process.terminate()
            process.wait(60)


def what_counts(receipt: Receipt) -> tuple[Any, ...]:
    """Spec and files by their bytes."""
    files = {
        file["path"]: file["sha256"]
        for file in receipt["files"]
        if not file["path"].startswith(WITH_TIMES)
    }
    assert {path.split("/")[0] for path in files} == {"adapter", "merged"}
    return receipt["run"], receipt["spec_hash"], receipt["training"]["loss_last"], files


def test_the_same_spec_gives_the_same_result_in_each_of_the_three_ways(api, tmp_path):
    environ = job(tmp_path, JOB_MAX_STEPS=str(STEPS), JOB_CHECKPOINT_MINUTES=OFTEN)
    first = what_counts(by_docker_run(environ, tmp_path, api))
    assert what_counts(by_pod(environ, tmp_path, api)) == first
    assert what_counts(by_worker(environ, tmp_path, api)) == first


@pytest.mark.training
@pytest.mark.timeout(1800)
def test_a_real_training_as_a_serverless_job(smollm2, tmp_path):  # noqa: F811 - the fixture
    """Real SDK, real handler, real supervisor, Unsloth on the CPU, a real small model."""
    rows = tmp_path / "rows.jsonl"
    shutil.copy(ROWS, rows)
    payload = {
        **{"dataset": str(rows), "output": f"file://{tmp_path}/out"},
        **{"max_steps": 2, "batch_size": 1, "max_seq_length": 128, "overlength": "truncate"},
        **{"save": "lora", "warmup_steps": 0, "max_dropped": 1},
    }
    owners = {"JOB_WORK_DIR": f"{tmp_path}/work", "RUNPOD_EXECUTION_TIMEOUT_S": "1700"}
    # The model of the checkout is the owner's, as one that is baked into an image.
    owners |= {"JOB_MODEL": str(smollm2), "RUNPOD_VOLUME_PATH": str(tmp_path)}
    with served((str(ROOT / "entrypoint.py"),), owners, patience=1700) as give:
        body = give(payload)
    assert list(body) == ["output"], json.dumps(body)
    assert body["output"]["training"]["steps"] == 2
    receipt, problems = verify_uri(body["output"]["receipt"], read_credentials({}))
    assert problems == []
    assert receipt["spec_hash"] == body["output"]["spec_hash"]
    assert "adapter/adapter_model.safetensors" in {file["path"] for file in receipt["files"]}

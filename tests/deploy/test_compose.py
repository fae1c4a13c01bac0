"""The two services of deploy/compose.yaml, run here as processes: a real S3 server and the job.

Their commands and variables are taken from the file. Changed is what cannot be had without an
engine: names become loopback addresses, ports and folders are free ones, the model is a small one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.with_s3 import free_ports
from job.credentials import read_credentials
from job.receipt import verify_uri
from tests.deploy.manifests import read
from tests.jobs import ROOT, entrypoint, job

S3, JOB = (read("compose.yaml")["services"][name] for name in ("s3", "job"))
MOVED = ("master.port", "volume.port", "filer.port", "admin.port")
GRPC = ("s3.port.grpc", "master.port.grpc", "volume.port.grpc", "filer.port.grpc")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service `s3`, healthy by its own health check."""
    folder = tmp_path_factory.mktemp("s3")
    names = ("s3.port", *MOVED, *GRPC, "admin.port.grpc")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    changed = {"dir": str(folder), "ip": "127.0.0.1", "ip.bind": "127.0.0.1", **ports}
    given = dict(word.removeprefix("-").split("=") for word in S3["command"][1:])
    given |= {"s3.port.iceberg": "0", "s3.port.lance": "0"}
    arguments = [f"-{name}={value}" for name, value in {**given, **changed}.items()]
    weed = Path(sys.executable).with_name("weed")
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), **S3["environment"]}
    with (folder / "log").open("wb") as log:
        command = [weed, S3["command"][0], *arguments]
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        url = S3["healthcheck"]["test"][-1].replace("s3:8888", f"127.0.0.1:{ports['filer.port']}")
        wait_until_it_answers(url, folder / "log")
        yield f"http://127.0.0.1:{ports['s3.port']}"
    finally:
        server.terminate()
        server.wait(30)


def wait_until_it_answers(url: str, log: Path) -> None:
    """What the engine does with the health check."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            time.sleep(0.1)


def variables(endpoint: str) -> dict[str, str]:
    """The variables of the service `job`, with the address where `s3` is here."""
    given = {name: str(value) for name, value in JOB["environment"].items()}
    given = {name: "" if re.fullmatch(r"\$\{\w+:-\}", v) else v for name, v in given.items()}
    assert given["AWS_ENDPOINT_URL_S3"] == f"http://s3:{S3['ports'][0].rsplit(':', 1)[1]}"
    return given | {"AWS_ENDPOINT_URL_S3": endpoint}


def test_the_job_can_start_beside_the_server(endpoint: str, tmp_path: Path):
    here = job(tmp_path)
    changed = {name: here[name] for name in ("JOB_MODEL", "JOB_DATASET", "JOB_WORK_DIR")}
    # The twenty rows are all alike: nothing can be held out of them.
    environ = variables(endpoint) | changed | {"JOB_DEVICE": "cpu", "JOB_EVAL_FRACTION": ""}
    ended = entrypoint("check", environ=environ)
    assert ended.code == 0, ended.text
    assert "destination: s3://runs/finetunes/" in ended.stderr
    assert S3["environment"]["AWS_SECRET_ACCESS_KEY"] not in ended.text


@pytest.mark.training
@pytest.mark.timeout(900)
def test_both_services_run_to_a_verified_receipt(endpoint: str, tmp_path: Path):
    model = ROOT / ".demo" / "model"
    done = subprocess.run([sys.executable, ROOT / "examples" / "smollm2.py", model], timeout=300)
    assert done.returncode == 0
    environ = variables(endpoint) | {
        "PATH": os.environ["PATH"],
        "JOB_MODEL": str(model),
        "JOB_DATASET": str(ROOT / "examples" / "multilingual-thinking.jsonl"),
        "JOB_WORK_DIR": str(tmp_path),
        "JOB_DEVICE": "cpu",
        "JOB_MAX_STEPS": "2",
        "JOB_WARMUP_STEPS": "0",
        "JOB_BATCH_SIZE": "2",
        "JOB_MAX_SEQ_LENGTH": "1024",
        "JOB_EVAL_FRACTION": "",
    }
    ended = subprocess.run(
        [sys.executable, "entrypoint.py", "run"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    line = json.loads(ended.stdout.splitlines()[-1])
    receipt, problems = verify_uri(line["receipt"], read_credentials(environ))
    assert line["receipt"].startswith("s3://runs/finetunes/")
    assert problems == []
    assert receipt["training"]["steps"] == 2
    assert receipt["image"] is None  # not from an image: this is a checkout

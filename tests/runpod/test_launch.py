"""`launch`: the request it sends, held against what is known of the API; and a pod followed to its
end on a loopback API, with the stand-in's job as the pod's container."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from job.cli import main
from job.credentials import Credentials, read_credentials
from job.plan import GIB
from job.receipt import build_receipt
from job.runpod import launch as launcher
from job.spec import read_spec
from job.spec.rules import NOT_BUILT
from job.store import open_store
from tests.conftest import BUCKET
from tests.jobs import ROOT, job, make_model, until
from tests.runpod.pod_api import CREATE, GPU, KEY, PodApi

HF = "hf_" + "CANARYOFTHELAUNCHER0123456789"
CARD = "NVIDIA GeForce RTX 5090"
HUB_JOB = {"JOB_MODEL": "org/name", "JOB_DATASET": "org/rows", "JOB_OUTPUT": "s3://bucket/runs"}
ASK = ("--gpu", CARD, "--image", "registry.example.com/finetune-job:0.1.0")


def run(capsys: Any, *arguments: str, **environ: str) -> tuple[int, str, str]:
    """The command's code, stdout and stderr."""
    code = main(["launch", *arguments], environ)
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["exit_code"] == code
    return code, said.out, said.err


def request(out: str) -> dict[str, Any]:
    """What a dry run printed before its last line."""
    found: dict[str, Any] = json.loads("\n".join(out.splitlines()[:-1]))
    return found


def carried(body: dict[str, Any]) -> dict[str, str]:
    """The spec in a pod's JOB_SPEC."""
    text = body["env"]["JOB_SPEC"].removeprefix("base64:")
    found: dict[str, str] = json.loads(base64.b64decode(text))
    return found


def test_a_dry_run_prints_the_request_by_the_schema_and_no_secret(capsys):
    secrets = {"HF_TOKEN": HF, "RUNPOD_API_KEY": KEY, "AWS_ACCESS_KEY_ID": "AKIACANARY0123456789"}
    secrets |= {"AWS_SECRET_ACCESS_KEY": "canary-of-the-secret-key"}
    more = {"AWS_DEFAULT_REGION": "eu-1", "MY_PASSWORD": "canary-of-another"}
    prompt = {"JOB_PROMPTS": '["He said \\"hello\\"\\nand 你好"]'}
    environ = HUB_JOB | secrets | more | prompt
    code, out, err = run(
        capsys, *ASK, "--disk", "80", "--volume", "vol123", "--cloud", "community", "--dry-run",
        **environ,
    )  # fmt: skip
    assert code == 0
    sent = request(out)
    assert (sent["method"], sent["url"]) == ("POST", "https://api.runpod.io/v2/pods")
    body = sent["body"]
    assert set(body) <= CREATE
    assert {"name", "image", "gpu"} <= set(body)
    assert body["gpu"] == {"id": CARD, "count": 1, "minCudaVersion": "12.8"}
    assert set(body["gpu"]) <= GPU
    assert body["image"] == ASK[3]
    assert (body["cloud"], body["disk"]) == ("COMMUNITY", 80)
    assert body["mounts"] == {"network": [{"volumeId": "vol123", "path": "/workspace"}]}
    passed = {"JOB_SPEC", "HF_HOME", "HF_TOKEN", "AWS_DEFAULT_REGION"}
    assert set(body["env"]) == passed | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert all(isinstance(value, str) for value in body["env"].values())
    spec = carried(body)
    assert spec["work_dir"] == "/workspace/work"
    there = read_spec({"JOB_SPEC": body["env"]["JOB_SPEC"]})
    assert there.spec_hash == read_spec(HUB_JOB | prompt).spec_hash
    assert there.prompts == read_spec(HUB_JOB | prompt).prompts
    for secret in (*secrets.values(), "canary-of-another"):
        assert secret not in out + err


def test_a_secret_may_stay_with_runpod(capsys):
    environ = HUB_JOB | {"HF_TOKEN": HF}
    _, out, _ = run(
        capsys, *ASK, "--disk", "9", "--secret", "HF_TOKEN=mine", "--dry-run", **environ
    )
    assert request(out)["body"]["env"]["HF_TOKEN"] == "{{ RUNPOD_SECRET_mine }}"
    code, out, _ = run(capsys, *ASK, "--secret", "JOB_MODEL=mine", **environ)
    assert code == 64


def test_the_hours_go_with_the_spec(capsys):
    before = dict(NOT_BUILT)
    NOT_BUILT.pop("max_hours", None)
    try:
        _, out, _ = run(capsys, *ASK, "--disk", "9", "--max-hours", "2", "--dry-run", **HUB_JOB)
    finally:
        NOT_BUILT.clear()
        NOT_BUILT.update(before)  # in its order, from which the README's list is made
    assert carried(request(out)["body"])["max_hours"] == 2


def test_what_could_not_run_there_is_refused_here(capsys, tmp_path):
    code, out, _ = run(capsys, *ASK, "--disk", "9", "--dry-run", **job(tmp_path))
    assert code == 78
    for key in ("model", "dataset", "output"):
        assert f"{key}: " in out
    code, out, _ = run(capsys, *ASK, "--disk", "9", **HUB_JOB)
    assert code == 77
    assert "RUNPOD_API_KEY" in out
    code, out, _ = run(capsys, "--dry-run", **HUB_JOB)
    assert code == 64
    long = {"JOB_PROMPTS": json.dumps(["x" * 8000] * 20)}
    code, out, _ = run(capsys, *ASK, "--disk", "9", "--dry-run", **HUB_JOB | long)
    assert code == 78


# -- the catalogue --------------------------------------------------------------------------------


def gpu(name: str, memory: int, secure: float | None, **more: Any) -> dict[str, Any]:
    price = {"secure": secure or 9.9, "community": 0.1}
    whole = {"id": name, "memory": memory, "manufacturer": "NVIDIA", "price": price}
    return {
        **whole,
        "secure": secure is not None,
        "community": False,
        "availability": "HIGH",
        **more,
    }


def test_the_cards_that_fit_are_listed_cheapest_first(api, capsys, tmp_path):
    make_model(tmp_path / "model", hidden_size=4096)
    api.gpus = [
        gpu("big", 80, 2.5),
        gpu("fits", 48, 0.8),
        gpu("too small", 2, 0.1),
        gpu("not in this cloud", 80, None),
        gpu("another maker", 192, 0.2, manufacturer="AMD"),
    ]
    environ = job(tmp_path, JOB_DEVICE="cuda", RUNPOD_API_KEY=KEY, RUNPOD_API_BASE_URL=api.url)
    code, _, err = run(capsys, "--list-gpus", **environ)
    assert code == 0
    assert [line.split("  ")[-1] for line in err.splitlines()] == ["fits", "big"]
    assert "0.80 $/h" in err


def test_the_disk_follows_from_the_model(capsys, tmp_path):
    from job.runpod.catalogue import describe_model, disk_estimate
    from job.runpod.request import SPARE_GB, disk_gb

    make_model(tmp_path / "model")
    spec = read_spec(job(tmp_path, JOB_DEVICE="cuda"))
    estimate = disk_estimate(spec, describe_model(spec, Credentials()))
    assert GIB <= estimate < 2 * GIB
    assert disk_gb(estimate) == SPARE_GB + 2


# -- a pod, made and followed ---------------------------------------------------------------------


class Platform:
    """Runs the containers of the pods that are made: the stand-in's job, on this machine."""

    def __init__(self, api: PodApi, folder: Path, **environ: str) -> None:
        self.api, self.folder, self.more = api, folder, environ
        self.containers: dict[str, subprocess.Popen[str]] = {}
        api.made, api.ended = self.start, self.end

    def start(self, pod: str, body: dict[str, Any]) -> None:
        local = {k: v for k, v in job(self.folder).items() if k in ("JOB_MODEL", "JOB_DATASET")}
        spec = carried(body) | {k.removeprefix("JOB_").lower(): v for k, v in local.items()}
        spec |= {"device": "cpu", "work_dir": f"{self.folder}/work"}
        env = body["env"] | {"JOB_SPEC": json.dumps(spec)} | self.api.environ(pod) | self.more
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.drills.stand_in", *body["args"].split()],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.containers[pod] = process
        for line in process.stdout or ():
            self.api.logs.append(line.rstrip("\n"))

    def end(self, pod: str, action: str) -> None:
        self.containers[pod].send_signal(signal.SIGTERM)

    def close(self) -> None:
        for process in self.containers.values():
            process.kill()
            process.wait()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(launcher, "POLL_SECONDS", 0.1)


def hub_like_job(api: PodApi, s3_env: dict[str, str], folder: Path, **more: str) -> dict[str, str]:
    """A job whose model and data are named as on the Hub; the platform has them as folders."""
    spec = {**HUB_JOB, "JOB_OUTPUT": f"s3://{BUCKET}/{folder.name}", "JOB_MAX_STEPS": "12"}
    spec |= {"JOB_NAME": "run-a", "RUNPOD_API_KEY": KEY, "RUNPOD_API_BASE_URL": api.url}
    return spec | s3_env | {"HF_TOKEN": HF} | more


def test_a_wrong_card_is_told_in_runpods_words(api, capsys):
    environ = HUB_JOB | {"RUNPOD_API_KEY": KEY, "RUNPOD_API_BASE_URL": api.url}
    api.refuse = {"v2": [400]}
    code, out, _ = run(capsys, *ASK, "--disk", "9", **environ)
    assert code != 0
    assert "400" in out
    api.refuse = {"v2": [403]}
    assert run(capsys, *ASK, "--disk", "9", **environ)[0] == 77
    assert api.pods == {}


def test_without_follow_it_starts_the_pod_and_returns(api, capsys):
    environ = HUB_JOB | {"RUNPOD_API_KEY": KEY, "RUNPOD_API_BASE_URL": api.url, "HF_TOKEN": HF}
    code, out, err = run(capsys, *ASK, "--disk", "9", **environ)
    assert code == 0
    assert api.pods == {"pod0": "RUNNING"}
    assert api.bodies[0]["env"]["HF_TOKEN"] == HF  # it did get there
    assert HF not in out + err
    assert "pod0" in out


def test_followed_to_a_failure_it_ends_with_the_jobs_code(api, capsys, s3_env, tmp_path, quick):
    """The job fails there at once: its spec names a dataset that is not a file there."""
    platform = Platform(api, tmp_path)
    platform.more = {"JOB_MAX_ATTEMPTS": "nonsense"}
    try:
        environ = hub_like_job(api, s3_env, tmp_path)
        code, out, err = run(capsys, *ASK, "--disk", "9", "--follow", **environ)
    finally:
        platform.close()
    assert code == 78
    assert "JOB_MAX_ATTEMPTS" in err  # its log was shown
    assert api.pods == {"pod0": "EXITED"}
    assert HF not in out + err


def test_followed_to_its_end_it_has_the_receipt(api, capsys, s3_env, tmp_path, quick, monkeypatch):
    """The spec's hash there is another one, since the folders are: so the log's last line tells."""
    platform = Platform(api, tmp_path)
    try:
        environ = hub_like_job(api, s3_env, tmp_path)
        code, out, err = run(capsys, *ASK, "--disk", "9", "--follow", **environ)
    finally:
        platform.close()
    assert code == 0, out + err
    receipt = f"s3://{BUCKET}/{tmp_path.name}/run-a/receipt.json"
    assert json.loads(out.splitlines()[-1])["receipt"] == receipt
    assert api.pods == {}
    assert HF not in out + err


def test_a_job_that_is_done_already_starts_no_pod(api, capsys, s3_env, tmp_path):
    environ = hub_like_job(api, s3_env, tmp_path)
    spec = read_spec({k: v for k, v in environ.items() if k.startswith("JOB_")})
    receipt = build_receipt(
        run="run-a", spec_hash=spec.spec_hash, spec=spec.public(), files=[], facts={}
    )
    store = open_store("s3", f"{BUCKET}/{tmp_path.name}/run-a", read_credentials(s3_env))
    store.put("receipt.json", json.dumps(receipt).encode())
    code, out, _ = run(capsys, *ASK, "--disk", "9", "--follow", **environ)
    assert code == 0
    assert json.loads(out.splitlines()[-1])["receipt"] == f"{store.uri}/receipt.json"
    assert api.asked == []


def test_an_interrupt_removes_the_pod(api, capsys, s3_env, tmp_path, quick):
    platform = Platform(api, tmp_path, DRILL="")
    (tmp_path / "work/run-a").mkdir(parents=True)
    (tmp_path / "work/run-a/drill.json").write_text('{"waits_in": "train"}')

    def interrupt() -> None:
        until(lambda: any("train" in line for line in api.logs), "training")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        code, out, _ = run(
            capsys, *ASK, "--disk", "9", "--follow", **hub_like_job(api, s3_env, tmp_path)
        )
    finally:
        platform.close()
    assert code == 75
    assert "removed" in out
    assert api.pods == {}


def test_a_pod_is_removed_when_its_hours_are_over(
    api, capsys, s3_env, tmp_path, quick, monkeypatch
):
    monkeypatch.setattr(launcher, "limit_hours", lambda spec: 0.0)
    monkeypatch.setattr(launcher, "SPARE_SECONDS", 1)
    environ = hub_like_job(api, s3_env, tmp_path)
    code, out, _ = run(capsys, *ASK, "--disk", "9", "--follow", **environ)
    assert code == 75
    assert "hours are over" in out
    assert api.pods == {}


def test_a_pod_whose_making_was_not_answered_is_not_left_behind(api, capsys, monkeypatch):
    """The request arrived, the reply did not: the pod is found by its name and removed."""
    import httpx

    from job.runpod.api import PodApi as Client

    ask = Client._ask

    def lost(self: Any, method: str, path: str, **more: Any) -> httpx.Response:
        answer = ask(self, method, path, **more)
        if (method, path) == ("POST", "/v2/pods"):
            from job.errors import Unavailable

            raise Unavailable("RunPod's API did not answer: ReadTimeout")
        return answer

    monkeypatch.setattr(Client, "_ask", lost)
    environ = HUB_JOB | {"RUNPOD_API_KEY": KEY, "RUNPOD_API_BASE_URL": api.url}
    assert run(capsys, *ASK, "--disk", "9", **environ)[0] == 69
    assert len(api.bodies) == 1
    assert api.pods == {}

"""The command line as a user runs it: real processes, their exit codes and what they print."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from pathlib import Path

import pytest

from job.hashing import hash_folder
from job.receipt import build_receipt
from job.spec import JobSpec
from tests.jobs import Ended, entrypoint, job, make_model, make_rows, start, texts, wait
from tests.test_spec_refused import AWS_KEY, CANARY, GOOD, TOKEN

IMPORTTIME = ("-X", "importtime")
HEAVY = {"torch", "transformers", "datasets", "unsloth", "runpod"}
NEEDLESS = {"boto3", "botocore", "huggingface_hub", "pyarrow", "matplotlib", "trl", "numpy"}
MODULE = re.compile(r"^import time:.*\|\s+([\w.]+)$", re.MULTILINE)

# Where a job may have its secrets from; all of them valid, none of them for anything.
SECRETS = {
    "HF_TOKEN": TOKEN,
    "AWS_ACCESS_KEY_ID": AWS_KEY,
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "AWS_SESSION_TOKEN": f"session-{CANARY}",
    "WANDB_API_KEY": f"wandb-{CANARY}",
    "RUNPOD_API_KEY": f"rpa_{CANARY}",
}


def loaded(ended: Ended) -> set[str]:
    """The top-level packages that a process started with IMPORTTIME has imported."""
    packages = {name.split(".")[0] for name in MODULE.findall(ended.stderr)}
    assert "json" in packages
    return packages


def shows_no_secret(text: str) -> None:
    encoded = base64.b64encode(CANARY.encode()).decode()[:16]
    for secret in (CANARY, TOKEN, AWS_KEY, encoded):
        assert secret not in text


BAD_SPECS = [
    ("nothing", {}, ["JOB_MODEL", "JOB_DATASET", "JOB_OUTPUT"]),
    (
        "several",
        {**GOOD, "JOB_LORA_R": "0", "JOB_MAX_STEP": "5", "JOB_DEVICE": "tpu"},
        ["JOB_LORA_R", "JOB_MAX_STEP", "JOB_DEVICE"],
    ),
    (
        "contradiction",
        {**GOOD, "JOB_BATCH_SIZE": "16", "JOB_MICRO_BATCH_SIZE": "3"},
        ["JOB_BATCH_SIZE", "JOB_MICRO_BATCH_SIZE"],
    ),
    ("escape", {**GOOD, "JOB_NAME": "../other"}, ["JOB_NAME"]),
    ("JOB_SPEC", {**GOOD, "JOB_SPEC": '{"lora_rank": 3, "seed": "x"}'}, ["lora_rank", "seed"]),
    ("token as variable", {**GOOD, "JOB_HF_TOKEN": TOKEN}, ["JOB_HF_TOKEN"]),
    (
        "token in a URL",
        {**GOOD, "JOB_DATASET": f"https://me:{CANARY}@host/rows.jsonl"},
        ["JOB_DATASET"],
    ),
    (
        "signature in a URL",
        {**GOOD, "JOB_SPEC": f"https://host/job.yaml?X-Amz-Signature={CANARY}"},
        ["JOB_SPEC"],
    ),
    ("no effect yet", {**GOOD, "JOB_WEBHOOK_SECRET": CANARY}, ["JOB_WEBHOOK_SECRET"]),
    ("half a key", {**GOOD, "AWS_ACCESS_KEY_ID": AWS_KEY}, ["AWS_SECRET_ACCESS_KEY"]),
]


@pytest.mark.parametrize(
    ("environ", "names"), [row[1:] for row in BAD_SPECS], ids=[row[0] for row in BAD_SPECS]
)
def test_a_bad_spec_is_refused_at_once_with_every_problem(environ, names):
    started = time.monotonic()
    ended = entrypoint("run", environ=environ)
    # It takes 0.2 to 0.3 s; what makes it so is that nothing heavy is loaded (next test).
    assert time.monotonic() - started < 5
    assert ended.code == 78
    assert ended.line["status"] == "failed"
    assert ended.line["phase"] == "spec"
    assert ended.line["retryable"] is False
    assert ended.line["receipt"] is None
    for name in names:
        assert name in ended.line["message"]
        assert name in ended.stderr
    assert "Traceback" not in ended.text
    shows_no_secret(ended.text)


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_bad_spec_is_refused_before_anything_heavy_is_loaded(command):
    ended = entrypoint(command, environ={**GOOD, "JOB_SEED": "x"}, options=IMPORTTIME)
    assert ended.code == 78
    assert not (HEAVY | NEEDLESS) & loaded(ended)


def test_run_is_the_default_command():
    assert entrypoint(environ={}).code == 78


def test_check_prints_the_plan_and_leaves_nothing(tmp_path):
    environ = job(tmp_path, **SECRETS)
    ended = entrypoint("check", environ=environ, options=IMPORTTIME)
    assert ended.code == 0, ended.text
    assert ended.line["status"] == "ok"
    assert ended.line["phase"] == "check"
    assert len(ended.stdout.splitlines()) == 1
    assert not (HEAVY | NEEDLESS) & loaded(ended)
    for said in (
        "run: run-a",
        f"destination: file://{tmp_path}/out/run-a can be written",
        f"model: {tmp_path}/model",
        "20 rows",
        "micro_batch_size = 1",
        "estimated memory: ",
        "NVIDIA B200 ",
        "still to be written",
    ):
        assert said in ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "rows.jsonl"]
    shows_no_secret(ended.text)


def test_check_finds_what_the_run_would_find(tmp_path):
    environ = job(tmp_path)
    make_rows(tmp_path / "rows.jsonl", 16)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"messages": []}\n')
    ended = entrypoint("check", environ=environ)
    assert ended.code == 65
    assert "row 17" in ended.line["message"]
    assert ended.line["receipt"] is None
    shutil.rmtree(tmp_path / "model")
    assert entrypoint("check", environ=environ).code == 66


def test_schema_prints_a_json_schema_and_nothing_else():
    ended = wait(start("schema", environ={}))
    assert ended.code == 0
    assert ended.stderr == ""
    schema = json.loads(ended.stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(JobSpec.model_fields)
    assert set(schema["required"]) == {"model", "dataset", "output"}
    for name, key in schema["properties"].items():
        assert key["description"], name


def test_an_unknown_command_is_a_usage_error_with_the_usage():
    ended = entrypoint("trian", environ={})
    assert ended.code == 64
    assert "'trian'" in ended.line["message"]
    assert "verify URI" in ended.stderr


@pytest.mark.parametrize("arguments", [("run", "x"), ("check", "x"), ("schema", "x"), ("verify",)])
def test_wrong_arguments_are_a_usage_error(arguments):
    assert entrypoint(*arguments, environ={}).code == 64


@pytest.mark.parametrize("option", ["-h", "--help", "help"])
def test_help_is_a_success(option):
    ended = wait(start(option, environ={}))
    assert ended.code == 0
    assert "verify URI" in ended.stdout


def finished_run(folder: Path) -> Path:
    """A run with one part and its receipt, as a destination holds it."""
    place = folder / "run-a"
    make_model(place / "adapter")
    files = hash_folder(place / "adapter", "adapter/")
    receipt = build_receipt(run="run-a", spec_hash="a" * 64, spec={}, files=files, facts={})
    (place / "receipt.json").write_text(json.dumps(receipt))
    return place


def test_verify_reads_every_file_again(tmp_path):
    uri = f"file://{finished_run(tmp_path)}"
    ended = entrypoint("verify", uri, environ=SECRETS, options=IMPORTTIME)
    assert ended.code == 0
    assert ended.line["status"] == "ok"
    assert ended.line["receipt"] == uri
    assert ended.line["message"].startswith("5 files, ")
    assert not (HEAVY | NEEDLESS) & loaded(ended)
    shows_no_secret(ended.text)


def test_verify_names_a_file_that_changed(tmp_path):
    place = finished_run(tmp_path)
    (place / "adapter/config.json").write_text("{}")
    ended = entrypoint("verify", f"file://{place}", environ={})
    assert ended.code == 74
    assert "adapter/config.json" in ended.line["message"]
    assert "tokenizer.json" not in ended.line["message"]


def test_verify_of_a_run_that_is_not_there_says_so(tmp_path):
    ended = entrypoint("verify", f"file://{tmp_path}/run-b", environ={})
    assert ended.code == 66
    assert f"file://{tmp_path}/run-b" in ended.line["message"]
    assert entrypoint("verify", "ftp://host/run-b", environ={}).code == 64


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_job_for_a_card_does_not_fall_back_to_the_cpu(tmp_path, command):
    environ = job(tmp_path, JOB_DEVICE="cuda", PATH=str(tmp_path))  # no nvidia-smi there
    ended = entrypoint(command, environ=environ)
    assert ended.code == 69
    assert ended.line["retryable"] is True
    assert "--gpus all" in ended.line["message"]


def test_a_secret_is_nowhere_though_the_run_fails(tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    secrets = {name: value for name, value in SECRETS.items() if name != "HF_TOKEN"}
    environ = job(tmp_path, **secrets, HF_TOKEN_FILE=f"{tmp_path}/token")
    make_rows(tmp_path / "rows.jsonl", 1).write_text(json.dumps({"messages": CANARY}) + "\n")
    ended = entrypoint("run", environ=environ)
    assert ended.code == 65
    shows_no_secret(ended.text + texts(tmp_path / "work", tmp_path / "out"))


def test_json_logs_are_one_event_a_line(tmp_path):
    environ = job(tmp_path, JOB_LOG_FORMAT="json", JOB_MODEL=f"{tmp_path}/none")
    ended = entrypoint("run", environ=environ)
    assert ended.code == 66
    events = [json.loads(line) for line in ended.stderr.splitlines()]
    assert events[0]["event"] == "phase"
    assert events[-1]["event"] == "failed"


def test_a_finished_run_is_not_repeated(tmp_path):
    environ = job(tmp_path)
    (spec_hash,) = re.findall(r"\b[0-9a-f]{64}\b", _failure_text(environ, tmp_path))
    place = finished_run(tmp_path / "out")
    receipt = json.loads((place / "receipt.json").read_text()) | {"spec_hash": spec_hash}
    (place / "receipt.json").write_text(json.dumps(receipt))
    before = texts(place)

    ended = entrypoint("run", environ=environ, options=IMPORTTIME)

    assert ended.code == 0
    assert ended.line["status"] == "done"
    assert ended.line["receipt"] == f"file://{place}/receipt.json"
    assert "already done" in ended.line["message"]
    assert not HEAVY & loaded(ended)
    assert texts(place) == before
    status = json.loads((tmp_path / "work/run-a/status.json").read_text())
    assert status["state"] == "done"
    assert not (tmp_path / "work/run-a/failure.json").exists()


def _failure_text(environ: dict[str, str], folder: Path) -> str:
    """What a run of this spec writes when it fails, which names the spec's hash."""
    rows = folder / "rows.jsonl"
    rows.rename(folder / "aside")
    assert entrypoint("run", environ=environ).code == 66
    (folder / "aside").rename(rows)
    return (folder / "work/run-a/failure.json").read_text()

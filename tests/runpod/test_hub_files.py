"""The RunPod Hub's files: keys that exist, presets that are valid, a smoke test that can fail."""

from __future__ import annotations

import json

import pytest

from job.credentials import SECRETS
from job.runpod.payload import TIMEOUT_VARIABLE, read_input, seconds_for
from job.runpod.worker import LOUD_VARIABLE
from job.spec import JobSpec, read_spec
from tests.jobs import ROOT

HUB = json.loads((ROOT / ".runpod/hub.json").read_text(encoding="utf-8"))
TESTS = json.loads((ROOT / ".runpod/tests.json").read_text(encoding="utf-8"))
OTHERS = {*SECRETS, "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", TIMEOUT_VARIABLE}
OUTPUT = {"JOB_OUTPUT": "s3://bucket/runs"}


def test_the_listing_has_what_the_hub_requires():
    assert {"title", "description", "type", "category", "config"} <= set(HUB)
    assert (HUB["type"], HUB["category"], HUB["config"]["runsOn"]) == (
        "serverless",
        "language",
        "GPU",
    )
    for name in ("handler.py", "Dockerfile", "README.md"):
        assert (ROOT / name).is_file()


def test_every_setting_is_a_key_of_ours_described_as_in_the_spec():
    for setting in HUB["config"]["env"]:
        key, described = setting["key"], setting["input"]
        if key in OTHERS:
            continue
        field = JobSpec.model_fields[key.removeprefix("JOB_").lower()]
        assert described["description"] == (field.description or "").replace("`", "")
        for option in described.get("options", []):
            read_spec({"JOB_MODEL": "a/b", "JOB_DATASET": "a/b", **OUTPUT, key: option["value"]})


@pytest.mark.parametrize("preset", HUB["config"]["presets"], ids=lambda preset: preset["name"])
def test_a_preset_is_a_valid_job_once_it_has_a_destination(preset):
    assert set(preset["defaults"]) <= {setting["key"] for setting in HUB["config"]["env"]}
    read_spec(preset["defaults"] | OUTPUT)


def test_the_smoke_job_is_accepted_and_fails_loudly():
    environ = {pair["key"]: pair["value"] for pair in TESTS["config"]["env"]}
    assert environ[LOUD_VARIABLE]
    (smoke,) = TESTS["tests"]
    assert float(environ[TIMEOUT_VARIABLE]) * 1000 <= smoke["timeout"]
    payload = smoke["input"] | {"output": "s3://bucket/runs"}
    spec, _ = read_input(payload, environ)
    assert seconds_for(spec, environ) > 600
    read_spec({"JOB_SPEC": json.dumps(smoke["input"])})

"""Secrets come from variables or files, and are never shown."""

from __future__ import annotations

import pytest

from job.credentials import SECRETS, Credentials, read_credentials
from job.errors import SpecError

CANARY = "canary-0123456789"


def problems_of(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read_credentials(environ)
    assert CANARY not in str(caught.value)
    return caught.value.problems


def test_nothing_set_is_nothing_given():
    assert read_credentials({}) == Credentials()
    assert read_credentials(dict.fromkeys(SECRETS, "")) == Credentials()
    assert read_credentials({}).values() == []


def test_every_secret_is_read_and_listed_for_redaction():
    environ = {name: f"{CANARY}-{name}" for name in SECRETS}
    credentials = read_credentials(environ)
    assert credentials.hf_token == f"{CANARY}-HF_TOKEN"
    assert credentials.wandb_api_key == f"{CANARY}-WANDB_API_KEY"
    assert credentials.runpod_api_key == f"{CANARY}-RUNPOD_API_KEY"
    assert credentials.webhook_secret == f"{CANARY}-JOB_WEBHOOK_SECRET"
    assert credentials.aws == {n: environ[n] for n in SECRETS if n.startswith("AWS_")}
    assert sorted(credentials.values()) == sorted(environ.values())


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_can_come_from_a_file(name, tmp_path):
    other = {"AWS_ACCESS_KEY_ID": "AWS_SECRET_ACCESS_KEY"}
    other |= {secret: key for key, secret in other.items()}
    file = tmp_path / "secret"
    file.write_text(f"  {CANARY}\n")
    environ = {f"{name}_FILE": str(file)} | ({other[name]: "half"} if name in other else {})
    credentials = read_credentials(environ)
    assert CANARY in credentials.values()
    assert f"{name}_FILE" not in credentials.aws


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_and_its_file_together_are_refused(name, tmp_path):
    (tmp_path / "secret").write_text(CANARY)
    (problem,) = problems_of({name: CANARY, f"{name}_FILE": str(tmp_path / "secret")})
    assert problem.startswith(f"{name} and {name}_FILE are both set")


def test_files_that_cannot_be_used_are_all_named(tmp_path):
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "lines").write_text(f"{CANARY}\nsecond")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    problems = problems_of(
        {
            "HF_TOKEN_FILE": str(tmp_path / "absent"),
            "WANDB_API_KEY_FILE": str(tmp_path / "empty"),
            "RUNPOD_API_KEY_FILE": str(tmp_path / "lines"),
            "JOB_WEBHOOK_SECRET_FILE": str(tmp_path / "binary"),
            "AWS_SESSION_TOKEN_FILE": str(tmp_path),
        }
    )
    starts = [problem.split(":")[0] for problem in problems]
    assert sorted(starts) == [
        "AWS_SESSION_TOKEN_FILE",
        "HF_TOKEN_FILE",
        "JOB_WEBHOOK_SECRET_FILE",
        "RUNPOD_API_KEY_FILE",
        "WANDB_API_KEY_FILE",
    ]


def test_a_token_put_where_its_file_belongs_is_not_shown():
    (problem,) = problems_of({"HF_TOKEN_FILE": CANARY})
    assert "No such file" in problem


def test_half_an_aws_key_pair_is_refused():
    (problem,) = problems_of({"AWS_ACCESS_KEY_ID": CANARY})
    assert problem.startswith("AWS_SECRET_ACCESS_KEY is missing")
    (problem,) = problems_of({"AWS_SECRET_ACCESS_KEY": CANARY})
    assert problem.startswith("AWS_ACCESS_KEY_ID is missing")


def test_settings_are_carried_but_are_no_secrets():
    settings = {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9000",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CA_BUNDLE": "/ca.pem",
        "AWS_SHARED_CREDENTIALS_FILE": "/aws/credentials",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/token",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": CANARY,
    }
    credentials = read_credentials(settings | {"AWS_PROFILE": "", "HF_ENDPOINT": "https://hub"})
    assert credentials.aws == settings
    assert credentials.hf_endpoint == "https://hub"
    assert credentials.values() == [CANARY]


def test_no_value_is_shown():
    credentials = read_credentials(dict.fromkeys(SECRETS, CANARY))
    assert CANARY not in repr(credentials) + str(credentials) + f"{credentials}"
    assert "HF_TOKEN" in repr(credentials)

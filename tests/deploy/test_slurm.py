"""The batch scripts: exit codes, requeueing and the signal, with stand-ins for Slurm."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.deploy.manifests import DEPLOY
from tests.deploy.test_manifests import FINAL, RETRYABLE

# A step: notes how it was called and its environment, ends with $CODE, and on SIGTERM with 75.
SRUN = """#!/bin/bash
printf '%s\\n' "$@" > "$NOTES/srun"
env > "$NOTES/env"
trap 'sleep 0.2; exit 75' TERM
touch "$NOTES/started"
[ -n "$CODE" ] && exit "$CODE"
while true; do sleep 0.05; done
"""
SCONTROL = """#!/bin/bash
echo "$@" > "$NOTES/scontrol"
"""
SCRIPTS = ["slurm/pyxis.sh", "slurm/apptainer.sh"]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder with the stand-ins, into which they write."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def start(script: str, notes: Path, code: str = "", **env: str) -> subprocess.Popen[str]:
    given = {
        "PATH": f"{notes}/bin:{os.environ['PATH']}",
        "HOME": str(notes),
        "NOTES": str(notes),
        "CODE": code,
        "SLURM_JOB_ID": "17",
        "HF_TOKEN": "secret-canary",
    }
    return subprocess.Popen(
        ["bash", DEPLOY / script], env=given | env, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_exit_code_is_the_jobs_and_only_what_may_be_mended_is_queued_again(script, notes):
    for code in sorted({0} | FINAL | RETRYABLE):
        (notes / "scontrol").unlink(missing_ok=True)
        assert start(script, notes, str(code)).wait(30) == code
        assert (notes / "scontrol").exists() == (code in RETRYABLE), code
    assert (notes / "srun").read_text().splitlines()[-3:] == [
        "/opt/venv/bin/python",
        "/app/entrypoint.py",
        "run",
    ]


def test_a_job_is_not_queued_for_ever(notes):
    assert start(SCRIPTS[0], notes, "75", SLURM_RESTART_COUNT="3").wait(30) == 75
    assert not (notes / "scontrol").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_slurms_warning_reaches_the_step_and_its_end_is_waited_for(script, notes):
    process = start(script, notes)
    deadline = time.monotonic() + 30
    while not (notes / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75
    assert (notes / "scontrol").read_text() == "requeue 17\n"


def test_apptainer_hands_secrets_by_the_environment_and_not_on_the_command_line(notes):
    assert start("slurm/apptainer.sh", notes, "0", JOB_LORA_R="16").wait(30) == 0
    env = (notes / "env").read_text().splitlines()
    assert "APPTAINERENV_HF_TOKEN=secret-canary" in env
    assert "APPTAINERENV_JOB_LORA_R=16" in env
    assert "APPTAINERENV_JOB_MODEL=unsloth/gpt-oss-20b" in env
    assert "secret-canary" not in (notes / "srun").read_text()

"""The job in its container: non-root, read-only, without capabilities, without a network."""

from __future__ import annotations

import json
import re

import pytest

from tests.image.conftest import DEMO
from tests.image.engine import HANGS, Ended, Engine

pytestmark = [pytest.mark.image, pytest.mark.timeout(2 * HANGS)]


def test_the_demo_ends_with_0_and_one_line_of_json(demo: Ended) -> None:
    assert demo.code == 0, demo.stderr
    line = demo.last_line
    assert (line["status"], line["exit_code"]) == ("done", 0)
    assert line["receipt"] == "file:///output/demo/receipt.json"
    assert len(demo.stdout.splitlines()) == 1


def test_the_demo_trained_its_steps_and_verified_the_merge(demo: Ended) -> None:
    steps = [event["step"] for event in demo.events if event["event"] == "step"]
    assert steps == [1, 2, 3]
    assert [event["event"] for event in demo.events].count("verified") == 1


def test_the_receipt_verifies_in_another_container(demo: Ended, engine: Engine) -> None:
    ended = engine.run("verify", demo.last_line["receipt"])
    assert ended.code == 0, ended.stderr
    assert ended.last_line["status"] == "ok"


def test_a_second_container_finds_the_run_done(demo: Ended, engine: Engine) -> None:
    ended = engine.run(env=DEMO)
    assert ended.code == 0, ended.stderr
    assert ended.last_line["receipt"] == demo.last_line["receipt"]
    assert "already done" in ended.last_line["message"]
    phases = [event["phase"] for event in ended.events if event["event"] == "phase"]
    assert phases == ["preflight"]


def test_docker_stop_ends_a_training_with_75_and_without_a_receipt(engine: Engine) -> None:
    env = DEMO | {"JOB_NAME": "stopped", "JOB_MAX_STEPS": "1000", "JOB_SAVE": "lora"}
    container = engine.start(env)
    try:
        container.wait_for("step")
        ended = container.stop(grace=30)
    finally:
        container.remove()
    assert ended.code == 75, ended.stderr
    assert (ended.last_line["status"], ended.last_line["receipt"]) == ("stopped", None)
    assert engine.run("verify", "file:///output/stopped").code == 66


# The image's own entrypoint; then the processor time that it took, as "0m0.31s 0m0.04s".
TIMED = "/usr/bin/tini -- python /app/entrypoint.py; code=$?; times >&2; exit $code"


def test_a_bad_spec_ends_with_78_in_a_second_and_names_the_variables(engine: Engine) -> None:
    env = DEMO | {"JOB_LERNING_RATE": "1e-4", "JOB_LORA_R": "eight"}
    ended = engine.run("-c", TIMED, env=env, options="--entrypoint=sh")
    assert ended.code == 78, ended.stderr
    assert "JOB_LEARNING_RATE" in ended.last_line["message"]
    assert "JOB_LORA_R" in ended.last_line["message"]
    # The promise of the README. Of the processor, since other work may hold up the clock.
    times = re.findall(r"(\d+)m([\d.]+)s", ended.stderr.splitlines()[-1])
    assert 0 < sum(60 * int(minutes) + float(seconds) for minutes, seconds in times) < 1


def test_nothing_is_written_outside_the_mounted_folders(engine: Engine) -> None:
    # On a root that may be written, so that the attempt would show.
    writable = ("--cap-drop", "ALL", "--network", "none", "--tmpfs", "/tmp:mode=1777,size=2g")
    env = DEMO | {"JOB_NAME": "diff", "JOB_SAVE": "lora", "JOB_PROMPTS": ""}
    container = engine.start(env, hardening=writable)
    try:
        ended = container.wait()
        changed = container.changed()
    finally:
        container.remove()
    assert ended.code == 0, ended.stderr
    # The engine's own: where volumes are mounted.
    assert set(changed) <= {"/model", "/examples", "/work", "/output", "/tmp"}


def test_the_receipt_names_the_image(demo: Ended, engine: Engine) -> None:
    written = engine.run("/output/demo/receipt.json", options="--entrypoint=cat").stdout
    build = engine.run("/usr/share/finetune-job/build.json", options="--entrypoint=cat").stdout
    assert json.loads(written)["image"] == json.loads(build)


def test_without_a_gpu_the_job_ends_with_69_and_says_so(engine: Engine) -> None:
    env = {name: value for name, value in DEMO.items() if name != "JOB_DEVICE"}
    ended = engine.run(env=env | {"JOB_NAME": "no-gpu"})
    assert ended.code == 69, ended.stderr
    assert "--gpus all" in ended.last_line["message"]


def test_a_work_dir_that_cannot_be_written_ends_with_71_and_says_so(engine: Engine) -> None:
    ended = engine.run(env=DEMO | {"JOB_WORK_DIR": "/model/work"})
    assert ended.code == 71, ended.stderr
    assert "JOB_WORK_DIR" in ended.last_line["message"]

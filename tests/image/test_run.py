"""The job in its container: non-root, read-only, without capabilities, without a network."""

from __future__ import annotations

import pytest

from tests.image.conftest import DEMO
from tests.image.engine import Ended, Engine

pytestmark = [pytest.mark.image, pytest.mark.timeout(1200)]


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
    assert ended.seconds < 20


def test_docker_stop_ends_a_training_with_75_and_without_a_receipt(engine: Engine) -> None:
    env = DEMO | {"JOB_NAME": "stopped", "JOB_MAX_STEPS": "1000", "JOB_SAVE": "lora"}
    container = engine.start(env)
    try:
        container.wait_for("step", 300)
        ended = container.stop(grace=30)
    finally:
        container.remove()
    assert ended.code == 75, ended.stderr
    assert (ended.last_line["status"], ended.last_line["receipt"]) == ("stopped", None)
    assert engine.run("verify", "file:///output/stopped").code == 66


def test_a_bad_spec_ends_with_78_at_once_and_names_the_variables(engine: Engine) -> None:
    ended = engine.run(env=DEMO | {"JOB_LERNING_RATE": "1e-4", "JOB_LORA_R": "eight"})
    assert ended.code == 78, ended.stderr
    assert "JOB_LEARNING_RATE" in ended.last_line["message"]
    assert "JOB_LORA_R" in ended.last_line["message"]
    assert ended.seconds < 10


def test_without_a_gpu_the_job_ends_with_69_and_says_so(engine: Engine) -> None:
    env = {name: value for name, value in DEMO.items() if name != "JOB_DEVICE"}
    ended = engine.run(env=env | {"JOB_NAME": "no-gpu"})
    assert ended.code == 69, ended.stderr
    assert "--gpus all" in ended.last_line["message"]


def test_a_work_dir_that_cannot_be_written_ends_with_71_and_says_so(engine: Engine) -> None:
    ended = engine.run(env=DEMO | {"JOB_WORK_DIR": "/model/work"})
    assert ended.code == 71, ended.stderr
    assert "JOB_WORK_DIR" in ended.last_line["message"]

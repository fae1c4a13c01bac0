"""Runs that fail: each with its exit code, its last line, its failure.json, and no receipt."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.errors import InternalError
from job.events import EventLog
from job.publish import Publisher
from job.receipt import build_receipt
from job.record import Record
from job.redact import Redactor
from job.spec import read_spec
from job.stages import Stages
from tests import s3
from tests.conftest import BUCKET
from tests.jobs import (
    LINE_KEYS,
    Ended,
    entrypoint,
    events,
    is_alive,
    job,
    make_model,
    make_rows,
    running,
    start,
    texts,
    trainer_of,
    until,
    wait,
)

CANARY = "canary-secret-9f8e7d6c"


def failure_of(folder: Path, ended: Ended, code: int) -> dict:
    """What failure.json says, the same in the work dir and at the destination; no receipt."""
    assert ended.code == code, ended.text
    assert list(ended.line) == LINE_KEYS
    assert ended.line["exit_code"] == code
    assert ended.line["receipt"] is None
    here = json.loads((folder / "work/run-a/failure.json").read_text())
    there = folder / "out/run-a"
    assert json.loads((there / "failure.json").read_text()) == here
    # Nothing that looks finished, and no claim that would hold up the next start.
    log = {"events.jsonl", "status.json"} if _had_the_claim(folder) else set()
    files = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()}
    assert files == {"failure.json", "report/index.html"} | log
    if log:
        assert json.loads((there / "status.json").read_text())["state"] == "failed"
    assert here["exit_code"] == code
    assert here["phase"] == ended.line["phase"]
    assert here["message"] in ended.line["message"]
    assert here["run"] == "run-a"
    assert len(here["spec_hash"]) == 64
    status = json.loads((folder / "work/run-a/status.json").read_text())
    assert status["state"] == "failed"
    assert (folder / "work/run-a/report/index.html").is_file()
    return here


def _had_the_claim(folder: Path) -> bool:
    """Whether the newest start came past preflight, after which it claims its destinations."""
    phases = [event["phase"] for event in events(folder) if event["event"] == "phase"]
    return phases[-1] != "preflight"


@pytest.mark.parametrize(
    ("number", "code", "retryable", "words"),
    [(signal.SIGKILL, 71, True, "memory"), (signal.SIGSEGV, 70, False, "SIGSEGV")],
)
def test_a_killed_trainer_is_a_reported_failure(tmp_path, number, code, retryable, words):
    with running(job(tmp_path)) as supervisor:
        os.kill(trainer_of(supervisor), number)
        ended = wait(supervisor)
    failure = failure_of(tmp_path, ended, code)
    assert ended.line["retryable"] is retryable
    assert ended.line["status"] == "failed"
    assert words in failure["message"]


@pytest.mark.parametrize("moment", ["started", "inputs"])
def test_sigterm_ends_the_run_with_75_and_its_trainer_too(tmp_path, moment):
    with running(job(tmp_path)) as supervisor:
        trainer = trainer_of(supervisor)
        if moment == "inputs":  # all is downloaded, and the supervisor waits for the trainer
            until(lambda: "inputs" in [event["event"] for event in events(tmp_path)], "inputs")
            time.sleep(0.1)
        supervisor.send_signal(signal.SIGTERM)
        ended = wait(supervisor)
    failure = failure_of(tmp_path, ended, 75)
    assert ended.line["status"] == "stopped"
    assert ended.line["retryable"] is True
    assert failure["code"] == "stopped"
    assert not is_alive(trainer)


def test_ctrl_c_ends_the_run_as_sigterm_does(tmp_path):
    with running(job(tmp_path)) as supervisor:
        trainer_of(supervisor)
        supervisor.send_signal(signal.SIGINT)
        ended = wait(supervisor)
    failure_of(tmp_path, ended, 75)
    assert "Traceback" not in ended.stderr


@pytest.fixture
def silent_store() -> Iterator[dict[str, str]]:
    """AWS_* variables of a store that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }


def test_sigterm_ends_a_request_that_a_library_would_send_again(tmp_path, silent_store):
    with running(job(tmp_path, JOB_MODEL=f"s3://{BUCKET}/model", **silent_store)) as supervisor:
        said = "can be written"  # then the model is asked for
        until(lambda: said in json.dumps(events(tmp_path)), said)
        time.sleep(0.5)
        supervisor.send_signal(signal.SIGTERM)
        signalled = time.monotonic()
        ended = wait(supervisor)
    assert time.monotonic() - signalled < 20  # JOB_STOP_GRACE less what the end takes
    failure_of(tmp_path, ended, 75)
    assert ended.line["phase"] == "preflight"


def test_a_broken_row_is_found_before_the_model_is_fetched(tmp_path, s3_env):
    environ = job(tmp_path, JOB_MODEL=f"s3://{BUCKET}/tiny-model", **s3_env)
    bucket = s3.client(s3_env)
    for path in (tmp_path / "model").iterdir():
        bucket.upload_file(str(path), BUCKET, f"tiny-model/{path.name}")
    lines = make_rows(tmp_path / "rows.jsonl", 30).read_text().splitlines()
    lines[16] = json.dumps({"messages": [{"role": "user", "content": CANARY}]})
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))

    ended = entrypoint("run", environ=environ)

    (problem,) = failure_of(tmp_path, ended, 65)["problems"]
    assert "row 17" in problem
    assert "row 17" in ended.line["message"]
    assert ended.line["phase"] == "data"
    assert not (tmp_path / "work/downloads").exists()
    assert CANARY not in ended.text + texts(tmp_path / "work", tmp_path / "out")


def test_a_model_that_is_not_there_is_named(tmp_path):
    environ = job(tmp_path, JOB_MODEL=f"{tmp_path}/no-model")
    failure = failure_of(tmp_path, entrypoint("run", environ=environ), 66)
    assert f"{tmp_path}/no-model" in failure["message"]
    assert failure["phase"] == "preflight"


def test_a_dataset_that_is_not_there_is_named(tmp_path):
    environ = job(tmp_path, JOB_DATASET=f"{tmp_path}/no-rows.jsonl")
    failure = failure_of(tmp_path, entrypoint("run", environ=environ), 66)
    assert f"{tmp_path}/no-rows.jsonl" in failure["message"]


@pytest.mark.parametrize(
    ("bucket", "changes", "code", "words"),
    [
        (BUCKET, {"AWS_SECRET_ACCESS_KEY": CANARY}, 77, "AWS_SECRET_ACCESS_KEY"),
        ("no-such-bucket", {}, 66, "no-such-bucket"),
    ],
    ids=["wrong secret", "no bucket"],
)
def test_a_destination_that_refuses_ends_the_run_before_training(
    tmp_path, s3_env, bucket, changes, code, words
):
    both = f"s3://{bucket}/refused,file://{tmp_path}/out"  # the other one is told why
    environ = job(tmp_path, JOB_OUTPUT=both, **s3_env | changes)
    ended = entrypoint("run", environ=environ)
    failure = failure_of(tmp_path, ended, code)
    assert words in failure["message"]
    assert failure["phase"] == "preflight"
    assert not (tmp_path / "work/run-a/trainer.log").exists()
    assert CANARY not in ended.text + texts(tmp_path / "work", tmp_path / "out")


@pytest.mark.parametrize("there", ["receipt", "claim"])
def test_the_place_of_another_run_is_left_as_it_is(tmp_path, there):
    place = tmp_path / "out/run-a"
    place.mkdir(parents=True)
    other = "b" * 64
    if there == "receipt":
        receipt = build_receipt(run="run-a", spec_hash=other, spec={}, files=[], facts={})
        (place / "receipt.json").write_text(json.dumps(receipt))
    else:
        claim = {"owner": "somebody", "spec_hash": other, "beat": "1"}
        (place / "claim.json").write_text(json.dumps(claim))
    before = texts(place)

    ended = entrypoint("run", environ=job(tmp_path))

    assert ended.code == 73
    assert other[:12] in ended.line["message"]
    assert "JOB_NAME" in ended.line["message"]
    assert texts(place) == before
    assert json.loads((tmp_path / "work/run-a/failure.json").read_text())["exit_code"] == 73
    assert not (tmp_path / "work/run-a/trainer.log").exists()


def test_a_second_process_leaves_the_first_one_alone(tmp_path):
    environ = job(tmp_path)
    with running(environ) as first:
        trainer_of(first)
        second = entrypoint("run", environ=environ)
        assert second.code == 73
        assert "Another process" in second.line["message"]
        assert "failed" not in [event["event"] for event in events(tmp_path)]
        assert not (tmp_path / "work/run-a/failure.json").exists()
        assert (tmp_path / "out/run-a/claim.json").exists()
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        failure_of(tmp_path, wait(first), 75)


def test_an_unforeseen_error_is_reported_without_secrets(tmp_path):
    make_model(tmp_path / "odd", hidden_size=CANARY)  # which the error's text repeats
    (tmp_path / "token").write_text(CANARY)
    environ = job(tmp_path, JOB_MODEL=f"{tmp_path}/odd", HF_TOKEN_FILE=f"{tmp_path}/token")
    ended = entrypoint("run", environ=environ)
    failure = failure_of(tmp_path, ended, 70)
    assert "[redacted]" in failure["message"]
    assert "Traceback" in json.dumps(events(tmp_path))
    assert CANARY not in ended.text + texts(tmp_path / "work", tmp_path / "out")


def test_a_full_disk_is_told_where_that_is_still_possible(tmp_path):
    run = tmp_path / "work/run-a"
    run.mkdir(parents=True)
    (run / "events.jsonl").symlink_to("/dev/full")  # every write to it ends with ENOSPC
    ended = entrypoint("run", environ=job(tmp_path))
    assert ended.code == 71
    assert "full" in ended.line["message"]
    there = json.loads((tmp_path / "out/run-a/failure.json").read_text())
    assert there["exit_code"] == 71


def test_a_work_dir_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    ended = entrypoint("run", environ=job(tmp_path, JOB_WORK_DIR=f"{tmp_path}/file/work"))
    assert ended.code == 71
    assert "JOB_WORK_DIR" in ended.line["message"]


def test_the_failure_of_an_earlier_start_is_forgotten(tmp_path):
    environ = job(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    failure_of(tmp_path, entrypoint("run", environ=environ), 65)
    make_rows(tmp_path / "rows.jsonl")
    with running(environ) as again:
        trainer_of(again)
        assert not (tmp_path / "work/run-a/failure.json").exists()
        again.send_signal(signal.SIGTERM)
        assert failure_of(tmp_path, wait(again), 75)["code"] == "stopped"


def test_two_signals_end_the_run_once(tmp_path):
    process = start("run", environ=job(tmp_path))
    trainer_of(process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    ended = wait(process)
    assert ended.code == 75, ended.text
    assert len(ended.stdout.splitlines()) == 1
    # After a second signal the destination is not waited for; two that come as one are the first.
    there = [path.name for path in (tmp_path / "out/run-a").glob("*.json")]
    assert "receipt.json" not in there
    here = json.loads((tmp_path / "work/run-a/failure.json").read_text())
    assert (here["exit_code"], here["code"]) == (75, "stopped")


def test_a_signal_while_the_run_ends_does_not_change_how_it_ended(tmp_path):
    numbers = tmp_path / "work/run-a/report/result.json"
    numbers.parent.mkdir(parents=True)
    os.mkfifo(numbers)  # the report waits here until somebody reads
    with running(job(tmp_path, JOB_MODEL=f"{tmp_path}/no-model")) as supervisor:
        until(lambda: "failed" in [event["event"] for event in events(tmp_path)], "the failure")
        supervisor.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        reader = os.open(numbers, os.O_RDONLY | os.O_NONBLOCK)
        ended = wait(supervisor)
        assert b"no-model" in os.read(reader, 1 << 16)
        os.close(reader)
    assert ended.code == 66, ended.text
    assert ended.line["exit_code"] == 66


def test_a_trainer_that_left_a_part_out_is_a_bug_and_nothing_is_published(tmp_path):
    spec = read_spec(job(tmp_path))
    log, record = EventLog(tmp_path, Redactor([])), Record(spec)
    log.listen(record.handle)
    log.emit("artifact", part="adapter")  # and not the merged weights
    with pytest.raises(InternalError, match="lora, merged_16bit it only left adapter"):
        Publisher(spec, tmp_path, [], log, record, Stages(tmp_path, "a" * 64)).publish({})
    log.close()

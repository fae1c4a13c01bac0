"""S3 and the way there break: nothing is lost, nothing false is published, the end says why."""

from __future__ import annotations

import json
import re
import signal
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import s3
from tests.conftest import BUCKET
from tests.drills.conftest import LOG, Drill
from tests.jobs import Ended, wait
from tests.store.s3_proxy import FOREVER, S3Proxy

MIB = 2**20
PART = 5 * MIB
MERGED = "merged/model.safetensors"
OLD, NEW = "canary-session-token-old", "canary-session-token-new"


@dataclass
class Upload:
    """A run whose merged weights have five parts, and the proxy before its store."""

    run: Drill
    proxy: S3Proxy
    prefix: str
    s3: Any

    def there(self) -> set[str]:
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.prefix}/")
        begin = f"{self.prefix}/run-a/"
        return {item["Key"].removeprefix(begin) for item in found.get("Contents", [])}

    def open_uploads(self) -> list[Any]:
        found = self.s3.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{self.prefix}/")
        return found.get("Uploads", [])

    def is_done(self, ended: Ended) -> None:
        """Exit 0, a receipt that verifies, and only the log beside it at the destination."""
        self.run.is_done(ended)
        body = self.s3.get_object(Bucket=BUCKET, Key=f"{self.prefix}/run-a/receipt.json")["Body"]
        listed = {file["path"] for file in json.loads(body.read())["files"]}
        assert self.there() == {*listed, "receipt.json", *LOG}
        assert self.open_uploads() == []

    def failed(self, ended: Ended, code: int, text: str) -> None:
        """This exit, a message that says this, all files kept, and no receipt."""
        assert ended.code == code, ended.text
        assert re.search(text, ended.line["message"]), ended.line["message"]
        assert "receipt.json" not in self.there()
        assert (self.run.run_folder / MERGED).stat().st_size > 20 * MIB

    def retries(self) -> list[dict[str, Any]]:
        return self.run.said("retry")


@pytest.fixture
def upload(drill: Callable[..., Drill], s3_env: dict[str, str], tmp_path: Path) -> Iterator[Upload]:
    prefix = uuid.uuid4().hex
    more = {**s3_env, "DRILL_PART_BYTES": str(PART), "DRILL_PATIENCE": "20"}
    changes = {"JOB_MAX_STEPS": "2", "JOB_CHECKPOINT_MINUTES": "60"}
    run = drill(more, JOB_OUTPUT=f"s3://{BUCKET}/{prefix}", **changes)
    model = tmp_path / "model" / "model.safetensors"
    model.write_bytes(model.read_bytes() + b"".join(bytes([n]) * MIB for n in range(21)))
    bucket = s3.client(s3_env)
    with S3Proxy(s3_env["AWS_ENDPOINT_URL_S3"]) as proxy:
        run.environ["AWS_ENDPOINT_URL_S3"] = proxy.url
        yield Upload(run, proxy, prefix, bucket)


def test_after_a_kill_no_part_that_the_store_has_is_sent_again(upload: Upload):
    for number in (2, 5):
        upload.proxy.order("wait", "PUT", f"partNumber={number}", seconds=60)
    process = upload.run.start()
    upload.run.until_said("phase", phase="publish")
    while len(upload.proxy.parts) < 3:
        assert process.poll() is None
    process.kill()
    process.communicate()
    upload.proxy.heal()
    kept = sorted(number for _, number, _ in upload.proxy.parts)
    assert set(kept) >= {1, 3, 4}
    assert len(upload.open_uploads()) == 1
    ended = upload.run.run()
    upload.is_done(ended)
    numbers = sorted(number for _, number, _ in upload.proxy.parts)
    assert [number for number in numbers if number in (1, 3, 4)] == [1, 3, 4]
    told = [event for event in upload.run.said("uploaded") if event["uri"].endswith(MERGED)]
    assert told[-1]["sent"] <= 10 * MIB < told[-1]["bytes"]


@pytest.mark.parametrize(
    ("kind", "method", "where"),
    [
        ("reset", "PUT", "partNumber=2"),
        ("flip", "PUT", MERGED),
        ("cut", "PUT", "adapter_model"),
        ("error in 200", "POST", "uploadId"),
        ("lose", "POST", "uploadId"),
        ("break off", "GET", "receipt.json"),
        ("wait", "PUT", "adapter"),
    ],
)
def test_what_breaks_once_is_done_again(upload: Upload, kind: str, method: str, where: str):
    upload.proxy.order(kind, method, where, seconds=2, code="InternalError")
    upload.is_done(upload.run.run())
    assert len(upload.retries()) == (0 if kind in ("wait",) else 1) or where == "receipt.json"


def test_a_store_that_is_down_for_a_while_costs_only_time(upload: Upload):
    process = upload.run.start()
    upload.run.until_said("phase", phase="verify")
    upload.proxy.is_down_for(6)
    upload.is_done(wait(process))
    retries = upload.retries()
    assert all("SlowDown" in retry["why"] for retry in retries)
    assert all(0 < retry["budget_left_seconds"] <= 20 for retry in retries)
    assert len(retries) >= 2


def test_a_narrow_line_costs_only_time_however_little_the_patience(upload: Upload):
    upload.run.environ["DRILL_PATIENCE"] = "2"
    process = upload.run.start()
    upload.run.until_said("phase", phase="verify")
    upload.proxy.bytes_per_second = 4 * MIB
    upload.is_done(wait(process))
    assert upload.retries() == []
    told = [event for event in upload.run.said("uploaded") if event["uri"].endswith(MERGED)]
    assert told[-1]["seconds"] > 5  # 21 MiB by this line: more than the patience


def test_a_store_that_stays_down_ends_with_74_and_the_next_start_only_uploads(upload: Upload):
    upload.run.environ["DRILL_PATIENCE"] = "2"
    upload.proxy.refuse("PUT", 503, "SlowDown", FOREVER, "partNumber=4")
    upload.failed(upload.run.run(), 74, "did not take it.*SlowDown")
    assert any("budget_left_seconds" in retry for retry in upload.retries())
    upload.proxy.heal()
    upload.proxy.parts.clear()
    upload.is_done(upload.run.run())
    assert [number for _, number, _ in upload.proxy.parts] == [4]
    assert len(upload.run.said("step")) == 2  # of the first start


def test_bytes_that_never_arrive_as_they_were_sent_end_with_74(upload: Upload):
    upload.proxy.flip_a_bit("partNumber=2", FOREVER)
    upload.failed(upload.run.run(), 74, "not what was sent")
    upload.proxy.heal()
    upload.is_done(upload.run.run())


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "text"),
    [
        (403, "AccessDenied", 77, "s3:PutObject"),
        (404, "NoSuchBucket", 66, "bucket does not exist"),
        (400, "ExpiredToken", 77, "expired"),
    ],
)
def test_what_cannot_heal_fails_at_once_and_keeps_all(
    upload: Upload, status: int, code: str, exit_code: int, text: str
):
    upload.proxy.refuse("PUT", status, code, FOREVER, "/merged/")
    upload.failed(upload.run.run(), exit_code, text)
    assert upload.retries() == []
    upload.proxy.heal()
    upload.is_done(upload.run.run())


def test_a_wrong_clock_ends_with_69_and_says_by_how_much(upload: Upload):
    upload.proxy.hours_ahead = 2
    upload.proxy.refuse("PUT", 403, "RequestTimeTooSkewed", FOREVER, "/merged/")
    upload.failed(upload.run.run(), 69, "clock is 2 h 0 min behind the store's")
    upload.proxy.heal()
    upload.is_done(upload.run.run())


def test_credentials_in_a_file_that_expire_are_read_again(upload: Upload, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text(OLD)
    upload.run.environ["AWS_SESSION_TOKEN_FILE"] = str(token)
    process = upload.run.start()
    upload.run.until_said("phase", phase="verify")
    token.write_text(NEW)
    upload.proxy.expired.add(OLD)
    ended = wait(process)
    upload.is_done(ended)
    said = [event["message"] for event in upload.run.said("log")]
    assert len([text for text in said if "expired and were read again" in text]) == 1
    for text in (ended.text, (upload.run.run_folder / "events.jsonl").read_text()):
        assert OLD not in text
        assert NEW not in text


def test_credentials_that_stay_expired_end_with_77(upload: Upload):
    upload.run.environ["AWS_SESSION_TOKEN"] = OLD
    process = upload.run.start()
    upload.run.until_said("phase", phase="verify")
    upload.proxy.expired.add(OLD)
    upload.failed(wait(process), 77, "AWS_SESSION_TOKEN has expired")
    assert upload.retries() == []
    upload.proxy.expired.clear()
    upload.is_done(upload.run.run())


def _killed_at(upload: Upload, boundary: int) -> bool:
    """A start that is killed at this boundary, then one that ends it; whether it came that far."""
    ended = upload.run.run(DRILL_KILL_AT=str(boundary))
    if ended.code == 0:
        upload.is_done(ended)
        return False
    assert ended.code == -signal.SIGKILL, ended.text
    upload.is_done(upload.run.run())
    for key in upload.there():
        upload.s3.delete_object(Bucket=BUCKET, Key=f"{upload.prefix}/run-a/{key}")
    upload.run.moved()
    return True


@pytest.mark.parametrize("boundary", [9, 18, 24])
def test_a_run_killed_at_a_store_boundary_leaves_one_receipt_and_no_orphan(
    upload: Upload, boundary: int
):
    """A sample; `make drills` takes every one."""
    assert _killed_at(upload, boundary)


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_a_run_killed_at_every_store_boundary_leaves_one_receipt_and_no_orphan(upload: Upload):
    boundary = 1
    while _killed_at(upload, boundary):
        boundary += 1
    assert boundary > 30  # before and after each of five parts, their completion, each object

"""Large files: what a kill, a break or a store's whim leaves is gone on from, or given up."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from job.errors import UploadFailed
from job.hashing import FileRecord, hash_file
from job.store.keys import Sent
from job.store.objects import ObjectDestination
from job.store.retry import Policy
from job.store.s3 import S3Store
from job.store.s3_parts import split
from tests import s3
from tests.conftest import BUCKET
from tests.store.conftest import claim, no_progress
from tests.store.s3_proxy import FOREVER, S3Proxy

MIB = 2**20
PART = 5 * MIB
KEY = "merged/large.safetensors"


@pytest.fixture
def proxy(s3_env: dict[str, str]) -> Iterator[S3Proxy]:
    with S3Proxy(s3_env["AWS_ENDPOINT_URL_S3"]) as proxy:
        yield proxy


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """21 MiB and a byte: four parts of 5 MiB, all different, and one that is shorter."""
    path = tmp_path / "large.safetensors"
    path.write_bytes(b"".join(bytes([n]) * MIB for n in range(21)) + b"!")
    return path


class Bucket:
    """A store at a place of its own, and hands that reach into the bucket behind its back."""

    def __init__(self, env: dict[str, str], proxy: S3Proxy) -> None:
        self.prefix = uuid.uuid4().hex
        self.told: list[dict[str, Any]] = []
        self._aws = {**env, "AWS_ENDPOINT_URL_S3": proxy.url}
        self.s3 = s3.client(env)

    def store(self, budget: float = 20) -> S3Store:
        policy = Policy(budget, lambda kind, **fields: self.told.append({"kind": kind, **fields}))
        return S3Store(f"{BUCKET}/{self.prefix}", self._aws, policy, part_bytes=PART)

    def put(self, path: Path, budget: float = 20, key: str = KEY) -> int:
        record = FileRecord(key, path.stat().st_size, hash_file(path))
        sent = Sent("file", record.size, no_progress)
        size = self.store(budget).put_file(key, path, record, sent)
        assert sent.done == record.size
        assert self.store().digest(key) == (record.size, record.sha256)
        return size

    def begun(self, path: Path, numbers: list[int], key: str = KEY) -> str:
        """An upload that a kill cut off after these parts; its id."""
        at = {"Bucket": BUCKET, "Key": f"{self.prefix}/{key}"}
        upload = self.s3.create_multipart_upload(**at)["UploadId"]
        content = path.read_bytes()
        for number in numbers:
            body = content[(number - 1) * PART : number * PART]
            self.s3.upload_part(**at, UploadId=upload, PartNumber=number, Body=body)
        return upload

    def open_uploads(self) -> list[str]:
        found = self.s3.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{self.prefix}/")
        return [upload["UploadId"] for upload in found.get("Uploads", [])]


@pytest.fixture
def bucket(s3_env: dict[str, str], proxy: S3Proxy) -> Bucket:
    return Bucket(s3_env, proxy)


def test_only_the_parts_that_the_store_does_not_have_are_sent(
    bucket: Bucket, proxy: S3Proxy, large: Path
):
    bucket.begun(large, [1, 3])
    assert bucket.put(large) == 11 * MIB + 1
    assert sorted(number for _, number, _ in proxy.parts) == [2, 4, 5]
    assert bucket.open_uploads() == []


def test_of_several_uploads_the_fullest_is_gone_on_with_and_the_others_are_aborted(
    bucket: Bucket, proxy: S3Proxy, large: Path
):
    for numbers in ([1], [1, 2, 3, 5], [4]):
        bucket.begun(large, numbers)
    assert bucket.put(large) == PART
    assert [number for _, number, _ in proxy.parts] == [4]
    assert bucket.open_uploads() == []


def test_an_upload_of_other_bytes_is_aborted(
    bucket: Bucket, proxy: S3Proxy, large: Path, tmp_path: Path
):
    other = tmp_path / "other"
    other.write_bytes(large.read_bytes()[:-1] + b"?")
    bucket.begun(other, [1, 5])  # the first part is the same
    assert bucket.put(large) == large.stat().st_size
    assert bucket.open_uploads() == []


def test_uploads_of_a_longer_key_are_left_alone(bucket: Bucket, large: Path):
    theirs = bucket.begun(large, [1], f"{KEY}.index")
    bucket.put(large)
    assert bucket.open_uploads() == [theirs]


def test_where_uploads_may_not_be_listed_all_is_sent(bucket: Bucket, proxy: S3Proxy, large: Path):
    bucket.begun(large, [1])
    proxy.refuse("GET", 403, "AccessDenied", FOREVER, "?uploads")
    assert bucket.put(large) == large.stat().st_size


def test_an_upload_that_the_store_drops_on_the_way_is_begun_anew(
    bucket: Bucket, proxy: S3Proxy, large: Path
):
    proxy.refuse("PUT", 404, "NoSuchUpload", where="partNumber=2")
    bucket.put(large)
    assert any("lost" in told["why"] for told in bucket.told if told["kind"] == "retry")
    assert bucket.open_uploads() == []


@pytest.mark.parametrize(
    ("kind", "method", "where"),
    [
        ("reset", "PUT", "partNumber=2"),
        ("lose", "PUT", "partNumber=3"),
        ("flip", "PUT", "partNumber=1"),
        ("cut", "PUT", "partNumber=4"),
        ("lose", "POST", "uploads"),
        ("lose", "POST", "uploadId"),
        ("reset", "POST", "uploadId"),
        ("break off", "POST", "uploadId"),
        ("lose", "HEAD", ""),
    ],
)
def test_one_broken_request_costs_one_retry_and_nothing_else(
    bucket: Bucket, proxy: S3Proxy, large: Path, kind: str, method: str, where: str
):
    proxy.order(kind, method, where)
    bucket.put(large)
    numbers = sorted(number for _, number, _ in proxy.parts)
    again = [3] if (kind, where) == ("lose", "partNumber=3") else []
    assert numbers == sorted([1, 2, 3, 4, 5, *again])
    retries = [told for told in bucket.told if told["kind"] == "retry"]
    assert len(retries) == 1
    assert retries[0]["attempt"] == 2
    assert retries[0]["wait_seconds"] <= 1.5
    assert 0 < retries[0]["budget_left_seconds"] <= 20


def test_a_200_that_says_internal_error_is_no_success(bucket: Bucket, proxy: S3Proxy, large: Path):
    for _ in range(4):
        proxy.faults.append(_in_200())
    bucket.put(large)
    whys = [told["why"] for told in bucket.told if told["kind"] == "retry"]
    assert len(whys) == 4
    assert all(why.startswith("InternalError") for why in whys)


def _in_200() -> Any:
    from tests.store.s3_proxy import Fault

    return Fault("error in 200", "POST", "uploadId", code="InternalError")


def test_a_body_that_never_arrives_as_it_was_sent_is_given_up_after_five_attempts(
    bucket: Bucket, proxy: S3Proxy, large: Path
):
    proxy.flip_a_bit("partNumber=2", FOREVER)
    with pytest.raises(UploadFailed, match="not what was sent"):
        bucket.put(large, budget=600)
    assert len([told for told in bucket.told if "part 2 of 5" in told.get("what", "")]) == 4


def test_an_object_that_gets_on_is_not_given_up(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr("job.store.retry.time.monotonic", lambda: now[0])
    budget = Policy(1800).budget()
    for now[0] in (1000.0, 2000.0, 3000.0):
        assert budget.left == 800
        budget.refill()
    now[0] = 4801.0
    assert budget.left < 0


def test_a_lost_answer_to_the_last_request_is_no_second_upload(
    bucket: Bucket, proxy: S3Proxy, large: Path
):
    proxy.order("lose", "POST", "uploadId")
    bucket.put(large)
    assert len(proxy.parts) == 5
    proxy.parts.clear()
    assert bucket.put(large) == 0
    assert proxy.parts == []


def test_an_object_under_foreign_etags_is_read_back_rather_than_sent_again(
    bucket: Bucket, proxy: S3Proxy, large: Path
):
    proxy.foreign_etags = True
    bucket.put(large)
    proxy.parts.clear()
    assert bucket.put(large) == 0
    assert proxy.parts == []


def test_parts_are_also_told_by_their_crc32(large: Path):
    record = FileRecord("large", large.stat().st_size, hash_file(large))
    part = split(large, record, PART)[1]
    entry = {"Size": part.size, "ETag": '"opaque"', "ChecksumCRC32": "AAAAAA=="}
    assert not part.is_stored_as(entry)
    import base64
    import zlib

    crc32 = zlib.crc32(large.read_bytes()[PART : 2 * PART])
    entry["ChecksumCRC32"] = base64.b64encode(crc32.to_bytes(4, "big")).decode()
    assert part.is_stored_as(entry)
    assert not part.is_stored_as({**entry, "Size": 1})


def test_a_run_that_begins_gives_up_what_others_have_begun_in_its_place(
    bucket: Bucket, large: Path
):
    """A claim of this spec would mean that the uploads are of this spec, too."""
    bucket.begun(large, [1])
    bucket.begun(large, [1], "checkpoints/step-000001/optimizer.pt")
    destination = ObjectDestination(bucket.store())
    destination.acquire(claim("me"))
    assert bucket.open_uploads() == []
    kept = bucket.begun(large, [2])
    bucket.begun(large, [1], "checkpoints/step-000001/optimizer.pt")
    again = ObjectDestination(bucket.store())  # the first was killed
    again.acquire(claim("me"))
    assert bucket.open_uploads() == [kept]
    again.tidy()
    assert bucket.open_uploads() == []
    again.release()
    destination.release()

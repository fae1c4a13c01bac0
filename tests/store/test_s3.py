"""S3: what its errors mean, large files, and a network that breaks."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.errors import AccessRefused, InternalError, JobError, NotFound, Unavailable, UploadFailed
from job.hashing import FileRecord, hash_file, hash_folder
from job.store import objects
from job.store.keys import Sent
from job.store.objects import ObjectDestination
from job.store.retry import Policy
from job.store.s3 import S3Store
from job.store.s3_parts import part_bytes
from tests.conftest import BUCKET
from tests.store.conftest import claim, no_progress
from tests.store.s3_proxy import S3Proxy

MIB = 2**20


@pytest.fixture
def proxy(s3_env: dict[str, str]) -> Iterator[S3Proxy]:
    with S3Proxy(s3_env["AWS_ENDPOINT_URL_S3"]) as proxy:
        yield proxy


def store_at(env: dict[str, str], url: str | None = None, budget: float = 20) -> S3Store:
    aws = {**env, "AWS_ENDPOINT_URL_S3": url or env["AWS_ENDPOINT_URL_S3"]}
    return S3Store(f"{BUCKET}/{uuid.uuid4().hex}", aws, Policy(budget), part_bytes=5 * MIB)


def put(store: S3Store, path: Path) -> tuple[FileRecord, Sent]:
    record = FileRecord(path.name, path.stat().st_size, hash_file(path))
    sent = Sent("file", record.size, no_progress)
    store.put_file(path.name, path, record, sent)
    return record, sent


def reads(proxy: S3Proxy) -> int:
    """How many objects were read; to list uploads is a GET of the bucket."""
    return sum(method == "GET" and path != f"/{BUCKET}" for method, path in proxy.paths)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """11 MiB and a byte: three parts of at most 5 MiB."""
    path = tmp_path / "large.safetensors"
    path.write_bytes(b"".join(bytes([n]) * MIB for n in range(11)) + b"!")
    return path


def test_a_large_file_goes_up_in_parts_and_verifies(s3_env, proxy: S3Proxy, large: Path):
    store = store_at(s3_env, proxy.url)
    record, sent = put(store, large)
    assert proxy.requests.count("PUT") == 3
    assert proxy.requests.count("POST") == 2  # begin and complete
    assert reads(proxy) == 0  # its ETag was enough
    assert sent.done == record.size
    assert store.digest(large.name) == (record.size, record.sha256)


def test_a_file_that_is_there_already_is_not_sent_again(s3_env, proxy: S3Proxy, large: Path):
    store = store_at(s3_env, proxy.url)
    put(store, large)
    proxy.requests.clear()
    put(store, large)
    assert proxy.requests == ["HEAD"]


def test_parts_are_sized_so_that_ten_thousand_suffice():
    assert part_bytes(MIB, 64 * MIB) == 64 * MIB
    assert part_bytes(5 * 10**12, 64 * MIB) == 500 * 10**6  # both limits at once, RunPod's too
    part = part_bytes(2**40, 64 * MIB)
    assert part * 10_000 >= 2**40 > (part - 1) * 10_000


def test_where_etags_are_not_md5_the_object_is_read_back(s3_env, proxy: S3Proxy, large: Path):
    proxy.foreign_etags = True
    store = store_at(s3_env, proxy.url)
    put(store, large)
    assert reads(proxy) == 1


@pytest.mark.parametrize("foreign_etags", [False, True])
def test_a_bit_flipped_on_the_way_is_sent_again(
    s3_env, proxy: S3Proxy, tmp_path: Path, foreign_etags: bool
):
    path = tmp_path / "small.json"
    path.write_bytes(b"some content")
    proxy.foreign_etags = foreign_etags
    proxy.flip_a_bit()
    store = store_at(s3_env, proxy.url)
    record, sent = put(store, path)
    assert store.digest("small.json") == (record.size, record.sha256)
    assert proxy.requests.count("PUT") == 2
    assert sent.done == record.size


def test_a_store_that_keeps_damaging_what_it_gets_fails_the_upload(
    s3_env, tmp_path: Path, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "small.json"
    path.write_bytes(b"some content")
    store = store_at(s3_env, proxy.url, budget=1)
    monkeypatch.setattr(store, "_holds", lambda *args, **kwargs: False)
    with pytest.raises(UploadFailed, match="not what was sent"):
        put(store, path)


def test_a_storm_of_503_is_survived(s3_env, proxy: S3Proxy, large: Path):
    proxy.refuse("PUT", 503, "SlowDown", times=7)  # more than boto3 alone bears
    store = store_at(s3_env, proxy.url)
    record, _ = put(store, large)
    assert store.digest(large.name) == (record.size, record.sha256)


def test_an_outage_longer_than_the_budget_is_an_upload_that_failed(s3_env, proxy: S3Proxy, large):
    proxy.refuse("PUT", 503, "SlowDown", times=1000)
    with pytest.raises(UploadFailed, match="SlowDown"):
        put(store_at(s3_env, proxy.url, budget=1), large)


def test_a_lost_reply_to_a_conditional_write_counts_as_done(s3_env, proxy: S3Proxy):
    store = store_at(s3_env, proxy.url)
    proxy.lose_reply("PUT")
    etag = store.put_if_absent("receipt.json", b"ours")
    assert etag is not None
    proxy.lose_reply("PUT")
    assert store.put_if_match("receipt.json", b"newer", etag) is not None
    assert store.put_if_absent("receipt.json", b"theirs") is None


@pytest.mark.parametrize(
    ("status", "code", "error", "word"),
    [
        (403, "AccessDenied", AccessRefused, "s3:PutObject"),
        (400, "ExpiredToken", AccessRefused, "AWS_SESSION_TOKEN"),
        (403, "RequestTimeTooSkewed", Unavailable, "clock"),
        (404, "NoSuchBucket", NotFound, "bucket"),
        (301, "PermanentRedirect", AccessRefused, "AWS_REGION"),
    ],
)
def test_what_cannot_pass_fails_at_once(
    s3_env, proxy: S3Proxy, status: int, code: str, error: type[JobError], word: str
):
    proxy.refuse("PUT", status, code)
    with pytest.raises(error, match=word):
        store_at(s3_env, proxy.url).put("key", b"content")
    assert proxy.requests.count("PUT") == 1


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"),
        ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"),
    ],
)
def test_a_wrong_secret_is_refused_before_training(s3_env, name: str, word: str):
    wrong = "not-the-right-value"
    destination = ObjectDestination(store_at({**s3_env, name: wrong}))
    with pytest.raises(AccessRefused, match=word) as refused:
        destination.check()
    assert wrong not in str(refused.value)


def test_no_credentials_at_all_are_refused(s3_env, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    env = {"AWS_ENDPOINT_URL_S3": s3_env["AWS_ENDPOINT_URL_S3"]}
    with pytest.raises(AccessRefused, match="AWS_ACCESS_KEY_ID"):
        ObjectDestination(store_at(env)).check()


def test_a_store_that_nobody_answers_for_is_unavailable(s3_env, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objects, "QUICK_SECONDS", 0.5)
    destination = ObjectDestination(store_at(s3_env, "http://127.0.0.1:9", budget=0.5))
    with pytest.raises(Unavailable, match="EndpointConnectionError"):
        destination.check()


def test_a_file_that_changed_after_it_was_hashed_is_a_bug(s3_env, tmp_path: Path):
    (tmp_path / "a").write_bytes(b"before")
    files = hash_folder(tmp_path)
    (tmp_path / "a").write_bytes(b"after!")
    destination = ObjectDestination(store_at(s3_env))
    destination.acquire(claim("me"))
    with pytest.raises(InternalError, match="changed"):
        destination.publish("adapter", tmp_path, files, no_progress)
    destination.release()

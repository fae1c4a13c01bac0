from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from job.credentials import Credentials
from job.errors import AccessRefused, DataError, NotFound, Unavailable
from job.sources import (
    SMALL,
    fetch_dataset,
    fetch_model,
    model_facts,
    resolve_dataset,
    transfer,
)
from job.sources.s3 import client
from job.sources.text import fetch_text
from tests.sources.parts import (
    NEEDED,
    SHARDS,
    WEIGHT_BYTES,
    Watch,
    model,
    model_files,
    source,
)

Put = Callable[[Mapping[str, bytes]], str]


@pytest.fixture
def credentials(s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Credentials:
    monkeypatch.setattr(transfer, "LOOK_PATIENCE", 0.5)
    monkeypatch.setattr(transfer, "PATIENCE", 0.5)
    return Credentials(aws=s3_env)


@pytest.fixture
def put(s3_env: dict[str, str]) -> Put:
    """Uploads files below a prefix of this test's own; gives the prefix's URI."""
    prefix, s3 = uuid.uuid4().hex, client(s3_env)

    def put(files: Mapping[str, bytes]) -> str:
        for name, content in files.items():
            s3.put_object(Bucket="test-bucket", Key=f"{prefix}/{name}", Body=content)
        return f"s3://test-bucket/{prefix}"

    return put


def test_a_model_comes_with_only_what_is_needed(put: Put, credentials: Credentials, tmp_path: Path):
    ref = model(put(model_files()))
    facts = model_facts(ref, credentials)
    assert not facts.is_local
    assert facts.config == {"model_type": "llama"}
    assert facts.weight_bytes == WEIGHT_BYTES
    watch = Watch()
    fetched = fetch_model(ref, facts, tmp_path / "m", credentials, watch)
    assert fetched.revision == facts.revision
    found = {p.relative_to(fetched.path).as_posix(): p.read_bytes() for p in walk(fetched.path)}
    assert found == {name: model_files()[name] for name in NEEDED}
    assert fetched.size == sum(map(len, found.values()))
    assert watch.calls[-1] == ("model", fetched.size, fetched.size)


def walk(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_second_start_fetches_only_what_is_not_complete(
    put: Put, credentials: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ref = model(put(model_files()))
    facts = model_facts(ref, credentials)
    fetch_model(ref, facts, tmp_path, credentials, Watch())
    shard = tmp_path / SHARDS[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    streamed: list[str] = []
    real = transfer.stream

    def stream(open_at: Any, target: Path, *rest: Any) -> None:
        streamed.append(target.name)
        real(open_at, target, *rest)

    monkeypatch.setattr(transfer, "stream", stream)
    fetch_model(ref, facts, tmp_path, credentials, Watch())
    assert streamed == [SHARDS[0]]
    assert shard.read_bytes() == model_files()[SHARDS[0]]


def test_a_model_cut_off_in_a_shard_goes_on_in_it(
    put: Put, credentials: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ref = model(put(model_files()))
    facts = model_facts(ref, credentials)
    etag = next(file.etag for file in facts.remote if file.name == SHARDS[1])
    mark = hashlib.sha256(str(etag).encode()).hexdigest()[:12]
    # A part that is told apart from the store's bytes, to see that it is kept and gone on with.
    (tmp_path / f".{SHARDS[1]}.{mark}.part").write_bytes(b"?" * 5000)
    fetch_model(ref, facts, tmp_path, credentials, Watch())
    assert (tmp_path / SHARDS[1]).read_bytes() == b"?" * 5000 + model_files()[SHARDS[1]][5000:]


def test_files_of_another_revision_do_not_stay(put: Put, credentials: Credentials, tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"of another model")
    ref = model(put(model_files()))
    fetch_model(ref, model_facts(ref, credentials), tmp_path, credentials, Watch())
    assert not (tmp_path / "model.safetensors").exists()


def test_an_object_that_is_replaced_after_the_look_is_refused(
    put: Put, credentials: Credentials, tmp_path: Path
):
    ref = model(put(model_files()))
    facts = model_facts(ref, credentials)
    put({SHARDS[0]: b"other bytes" * 1000})
    with pytest.raises(Unavailable, match="replaced while it was read"):
        fetch_model(ref, facts, tmp_path, credentials, Watch())
    assert model_facts(ref, credentials).revision != facts.revision


def test_a_model_without_safetensors_or_with_a_missing_shard_is_not_found(
    put: Put, credentials: Credentials
):
    small = {"config.json": b"{}", "tokenizer.json": b"{}"}
    uri = put({**small, "pytorch_model.bin": b"x"})
    with pytest.raises(NotFound, match=r"found pytorch_model\.bin"):
        model_facts(model(uri), credentials)
    sub = {f"sub/{n}": data for n, data in model_files().items() if n != SHARDS[1]}
    with pytest.raises(NotFound, match=SHARDS[1]):
        model_facts(model(put(sub) + "/sub"), credentials)


def test_one_object_is_a_dataset(put: Put, credentials: Credentials, tmp_path: Path):
    uri = put({"rows/train.jsonl": b"{}\n", "rows/train.jsonl.md5": b"x"})
    resolved = resolve_dataset(source(f"{uri}/rows/train.jsonl"), credentials)
    fetched = fetch_dataset(resolved, tmp_path, credentials, Watch())
    assert fetched.files == (tmp_path / "train.jsonl",)
    assert fetched.files[0].read_bytes() == b"{}\n"
    assert fetched.sha256 == hashlib.sha256(b"{}\n").hexdigest()
    assert fetched.revision == hashlib.md5(b"{}\n").hexdigest()  # noqa: S324 - an ETag


def test_all_data_files_below_a_prefix_are_a_dataset(
    put: Put, credentials: Credentials, tmp_path: Path
):
    uri = put({"b.jsonl": b"2", "a/a.jsonl": b"1", "test.jsonl": b"3", "README.md": b"#"})
    resolved = resolve_dataset(source(uri), credentials)
    fetched = fetch_dataset(resolved, tmp_path, credentials, Watch())
    assert fetched.files == (tmp_path / "a/a.jsonl", tmp_path / "b.jsonl")
    test = resolve_dataset(source(f"{uri}?split=test"), credentials)
    assert [file.name for file in test.files] == ["test.jsonl"]
    assert test.revision != resolved.revision


def test_a_prefix_does_not_match_the_beginning_of_another_name(put: Put, credentials: Credentials):
    uri = put({"rows-old/train.jsonl": b"{}"})
    with pytest.raises(NotFound, match="no such object, and none below it"):
        resolve_dataset(source(f"{uri}/rows"), credentials)


def test_a_suffix_that_is_not_read_is_told(put: Put, credentials: Credentials):
    uri = put({"rows.xlsx": b"a,b"})
    with pytest.raises(DataError, match=r"rows\.xlsx.*convert it"):
        resolve_dataset(source(f"{uri}/rows.xlsx"), credentials)


def test_another_sha256_is_refused(put: Put, credentials: Credentials, tmp_path: Path):
    uri = put({"train.jsonl": b"{}"})
    resolved = resolve_dataset(source(f"{uri}/train.jsonl?sha256={'0' * 64}"), credentials)
    with pytest.raises(DataError, match="the spec asks for 000"):
        fetch_dataset(resolved, tmp_path, credentials, Watch())


def test_an_empty_prefix_and_a_bucket_that_is_not_there_are_not_found(credentials: Credentials):
    with pytest.raises(NotFound, match="JOB_MODEL s3://test-bucket/nothing is empty"):
        model_facts(model("s3://test-bucket/nothing"), credentials)
    with pytest.raises(NotFound, match="no bucket 'no-such-bucket'"):
        model_facts(model("s3://no-such-bucket/x"), credentials)
    with pytest.raises(NotFound, match="no bucket 'no-such-bucket'"):
        resolve_dataset(source("s3://no-such-bucket/x.jsonl"), credentials)


@pytest.mark.parametrize(
    "wrong", [{"AWS_SECRET_ACCESS_KEY": "not-the-secret"}, {"AWS_ACCESS_KEY_ID": "nobody"}]
)
def test_wrong_keys_are_refused_and_never_shown(
    put: Put, s3_env: dict[str, str], wrong: dict[str, str]
):
    uri = put({"train.jsonl": b"{}"})
    other = Credentials(aws={**s3_env, **wrong})
    for look in (
        lambda: model_facts(model(uri), other),
        lambda: resolve_dataset(source(f"{uri}/train.jsonl"), other),
    ):
        with pytest.raises(
            AccessRefused, match=r"S3 refused.*AWS_\* credentials are wrong"
        ) as seen:
            look()
        assert not any(value in str(seen.value) for value in other.values())


def test_a_server_that_is_not_there_is_unavailable(credentials: Credentials):
    nowhere = Credentials(aws={**credentials.aws, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"})
    with pytest.raises(Unavailable, match=r"S3 cannot be reached.*AWS_ENDPOINT_URL_S3"):
        model_facts(model("s3://test-bucket/x"), nowhere)


def test_a_small_object_is_read_and_a_large_one_is_not(put: Put, credentials: Credentials):
    uri = put({"job.yaml": b"model: x", "large.yaml": b"x" * (SMALL + 1)})
    assert fetch_text(f"{uri}/job.yaml", credentials) == b"model: x"
    with pytest.raises(DataError, match=r"JOB_SPEC s3://.*large\.yaml has 1,048,577 bytes"):
        fetch_text(f"{uri}/large.yaml", credentials)
    with pytest.raises(NotFound, match=r"JOB_SPEC .*no such object"):
        fetch_text(f"{uri}/none.yaml", credentials)


def test_the_version_is_recorded_where_a_bucket_keeps_versions(
    s3_env: dict[str, str], credentials: Credentials, tmp_path: Path
):
    s3 = client(s3_env)
    s3.create_bucket(Bucket="with-versions")
    s3.put_bucket_versioning(Bucket="with-versions", VersioningConfiguration={"Status": "Enabled"})
    put = s3.put_object(Bucket="with-versions", Key="train.jsonl", Body=b"{}")
    resolved = resolve_dataset(source("s3://with-versions/train.jsonl"), credentials)
    assert resolved.revision == put["VersionId"]
    assert fetch_dataset(resolved, tmp_path, credentials, Watch()).revision == put["VersionId"]

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from job.errors import DataError, NotFound
from job.sources import fetch_dataset, fetch_model, model_facts, resolve_dataset
from tests.sources.parts import (
    NEEDED,
    NOBODY,
    SHARDS,
    WEIGHT_BYTES,
    Watch,
    model,
    model_files,
    source,
)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_local_model_is_used_in_place(tmp_path: Path):
    folder = write(tmp_path / "model", model_files())
    facts = model_facts(model(str(folder)), NOBODY)
    assert facts.is_local
    assert facts.revision is None
    assert tuple(name for name, _ in facts.files) == NEEDED
    assert facts.weight_bytes == WEIGHT_BYTES
    fetched = fetch_model(model(str(folder)), facts, tmp_path / "into", NOBODY, Watch())
    assert (fetched.path, fetched.files) == (folder, len(NEEDED))
    assert not (tmp_path / "into").exists()


def test_links_to_files_elsewhere_are_followed(tmp_path: Path):
    blobs = write(tmp_path / "blobs", model_files())
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for path in blobs.iterdir():
        (folder / path.name).symlink_to(path)
    assert model_facts(model(str(folder)), NOBODY).weight_bytes == WEIGHT_BYTES


def test_a_link_that_leads_nowhere_is_a_missing_shard(tmp_path: Path):
    folder = write(tmp_path, model_files())
    (folder / SHARDS[0]).unlink()
    (folder / SHARDS[0]).symlink_to("gone")
    with pytest.raises(NotFound, match=SHARDS[0]):
        model_facts(model(str(folder)), NOBODY)


def test_a_folder_that_is_not_there_names_the_variable(tmp_path: Path):
    with pytest.raises(NotFound, match=r"JOB_MODEL .*mount it into the container"):
        model_facts(model(str(tmp_path / "none")), NOBODY)


def test_a_file_is_read_where_it_is_and_its_digest_recorded(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"{}\n")
    resolved = resolve_dataset(source(str(path)), NOBODY)
    assert (resolved.size, resolved.revision) == (3, None)
    fetched = fetch_dataset(resolved, tmp_path / "into", NOBODY, Watch())
    assert fetched.files == (path,)
    assert fetched.sha256 == hashlib.sha256(b"{}\n").hexdigest()


def test_a_folder_gives_its_files_in_order_and_one_digest_for_all(tmp_path: Path):
    write(tmp_path, {"b.jsonl": b"2", "a.jsonl": b"1", "sub/c.json": b"3", "test.jsonl": b"4"})
    fetched = fetch_dataset(
        resolve_dataset(source(str(tmp_path)), NOBODY), tmp_path, NOBODY, Watch()
    )
    assert [path.name for path in fetched.files] == ["a.jsonl", "b.jsonl", "c.json"]
    digests = sorted(hashlib.sha256(data).hexdigest() for data in (b"1", b"2", b"3"))
    together = hashlib.sha256("".join(digests).encode()).hexdigest()
    assert (fetched.sha256, fetched.size) == (together, 3)
    resolved = resolve_dataset(source(f"{tmp_path}?sha256={together}"), NOBODY)
    assert fetch_dataset(resolved, tmp_path, NOBODY, Watch()).sha256 == together


def test_another_sha256_than_asked_for_is_refused_with_both(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"changed")
    resolved = resolve_dataset(source(f"{path}?sha256={'0' * 64}"), NOBODY)
    with pytest.raises(DataError) as caught:
        fetch_dataset(resolved, tmp_path, NOBODY, Watch())
    assert "0" * 64 in str(caught.value)
    assert hashlib.sha256(b"changed").hexdigest() in str(caught.value)


@pytest.mark.parametrize(("name", "error"), [("none.jsonl", NotFound), ("here.xlsx", DataError)])
def test_a_path_that_cannot_be_read_says_why(tmp_path: Path, name: str, error: type[Exception]):
    (tmp_path / "here.xlsx").write_bytes(b"a,b")
    with pytest.raises(error, match=name):
        resolve_dataset(source(str(tmp_path / name)), NOBODY)

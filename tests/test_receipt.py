"""Receipts, and the command that checks what they say."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import pytest

from job.credentials import Credentials
from job.errors import DestinationTaken, NotFound, UsageError
from job.hashing import FileRecord, hash_folder
from job.receipt import build_receipt, is_inside, parse_receipt, verify_uri
from job.spec import DestinationRef
from job.store import Claim, Destination, open_destination
from tests.hub_double import HubDouble

SPEC_HASH = "a" * 64


def published(destination: Destination, source: Path, run: str = "run-a") -> dict:
    """Publish the folder as a finished run."""
    destination.acquire(Claim("me", SPEC_HASH))
    destination.publish("adapter", source, hash_folder(source), lambda *_: None)
    files = hash_folder(source, "adapter/")
    receipt = build_receipt(
        run=run, spec_hash=SPEC_HASH, spec={"model": "m"}, files=files, facts={}
    )
    destination.publish_receipt(receipt)
    destination.release()
    return receipt


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"\0weights")
    return folder


@pytest.fixture
def out(tmp_path: Path, source: Path) -> Path:
    """A destination folder with one finished run, `run-a`."""
    folder = tmp_path / "out"
    ref = DestinationRef(uri=f"file://{folder}", scheme="file", location=str(folder))
    published(open_destination(ref, "run-a", ("lora",), Credentials(), True), source)
    return folder


@pytest.mark.parametrize("what", ["/run-a", "/run-a/", "/run-a/receipt.json", "", "/"])
@pytest.mark.parametrize("scheme", ["file://", ""])
def test_a_run_is_found_by_its_folder_its_receipt_or_the_folder_above(
    out: Path, scheme: str, what: str
):
    receipt, problems = verify_uri(f"{scheme}{out}{what}", Credentials())
    assert receipt["run"] == "run-a"
    assert problems == []


def test_a_damaged_file_is_named(out: Path):
    (out / "run-a/adapter/adapter_model.safetensors").write_bytes(b"\0weightz")
    _, problems = verify_uri(f"file://{out}/run-a", Credentials())
    assert problems == ["adapter/adapter_model.safetensors: not the bytes that the receipt lists"]


def test_a_run_that_did_not_finish_has_no_receipt(out: Path):
    (out / "run-a/receipt.json").unlink()
    for uri in (f"file://{out}/run-a", f"file://{out}", f"file://{out}/nowhere"):
        with pytest.raises(NotFound, match="no receipt"):
            verify_uri(uri, Credentials())
    assert not (out / "nowhere").exists()


def test_of_several_runs_one_must_be_named(out: Path, source: Path):
    ref = DestinationRef(uri=f"file://{out}", scheme="file", location=str(out))
    published(open_destination(ref, "run-b", ("lora",), Credentials(), True), source, "run-b")
    with pytest.raises(UsageError, match="several runs") as refused:
        verify_uri(f"file://{out}", Credentials())
    assert refused.value.problems == ["run-a", "run-b"]


@pytest.mark.parametrize("uri", ["https://host/run", "relative/path", "s3://", "file://", ""])
def test_what_is_no_destination_is_refused(uri: str):
    with pytest.raises(UsageError, match="not a destination"):
        verify_uri(uri, Credentials())


def test_a_run_on_s3_is_verified(s3_env: dict[str, str], source: Path):
    location = "test-bucket/receipts"
    ref = DestinationRef(uri=f"s3://{location}", scheme="s3", location=location)
    credentials = Credentials(aws=s3_env)
    receipt = published(open_destination(ref, "run-a", ("lora",), credentials, True), source)
    for uri in ("s3://test-bucket/receipts/run-a/receipt.json", "s3://test-bucket/receipts"):
        assert verify_uri(uri, credentials) == (receipt, [])


def test_a_run_on_the_hub_is_verified(source: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with HubDouble() as hub:
        hub.add_account("hf_w", "me")
        credentials = Credentials(hf_token="hf_w", hf_endpoint=hub.url)
        ref = DestinationRef(uri="hf://me/tuned", scheme="hf", location="me/tuned")
        published(open_destination(ref, "run-a", ("lora",), credentials, True), source)
        for uri in ("hf://me/tuned", "hf://me/tuned/receipt.json"):
            receipt, problems = verify_uri(uri, credentials)
            assert problems == []
        assert receipt["files"][0]["commit"] == hub.commits("me/tuned")[1].oid
        with pytest.raises(NotFound, match="no receipt"):
            verify_uri("hf://me/other", credentials)


def test_a_receipt_says_what_it_was_built_from():
    files = [FileRecord("adapter/a", 1, "b" * 64)]
    receipt = build_receipt(
        run="run-a", spec_hash=SPEC_HASH, spec={"seed": 1}, files=files, facts={"status": "done"}
    )
    assert receipt == {
        "version": 1,
        "run": "run-a",
        "spec_hash": SPEC_HASH,
        "spec": {"seed": 1},
        "files": [{"path": "adapter/a", "size": 1, "sha256": "b" * 64}],
        "status": "done",
    }
    assert parse_receipt(json.dumps(receipt).encode(), "here") == receipt


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"spec_hash": "A" * 64},
        {"spec_hash": None},
        {"spec": []},
        {"run": 5},
        {"files": None},
        {"files": [{"path": "a", "size": 1}]},
        {"files": [{"path": "../a", "size": 1, "sha256": "b" * 64}]},
        {"files": [{"path": "/etc/passwd", "size": 1, "sha256": "b" * 64}]},
        {"files": [{"path": "a", "size": "1", "sha256": "b" * 64}]},
    ],
)
def test_what_is_no_receipt_is_refused(change: dict):
    good = build_receipt(run="r", spec_hash=SPEC_HASH, spec={}, files=[], facts={})
    with pytest.raises(DestinationTaken, match="here is not a receipt"):
        parse_receipt(json.dumps({**good, **change}).encode(), "here")


@pytest.mark.parametrize("path", ["a", "a/b", "a/..b", "..."])
def test_a_path_inside_is_allowed(path: str):
    assert is_inside(path)


@pytest.mark.parametrize("path", ["", ".", "/", "/a", "..", "a/../b", "a\\b", "a\0"])
def test_a_path_outside_is_refused(path: str):
    assert not is_inside(path)

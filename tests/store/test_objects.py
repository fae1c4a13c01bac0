"""What a folder and an S3 bucket do alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from job.errors import DestinationTaken, InternalError, NotFound, Unavailable
from job.hashing import FileRecord, hash_folder
from job.store import misfits
from job.store.keys import Store, Stored
from job.store.objects import ObjectDestination
from tests.store.conftest import OTHERS, OURS, Place, claim, no_progress, receipt_of


def publish(place: Place, adapter: Path, owner: str = "me") -> dict:
    """A whole run, up to its receipt."""
    destination = place.open()
    destination.acquire(claim(owner))
    try:
        destination.publish("adapter", adapter, hash_folder(adapter), no_progress)
        receipt = receipt_of(adapter)
        destination.publish_receipt(receipt)
    finally:
        destination.release()
    return receipt


def test_what_was_published_is_there_byte_for_byte_and_verifies(place: Place, adapter: Path):
    receipt = publish(place, adapter)
    assert place.files() == [
        "run-a/adapter/adapter_config.json",
        "run-a/adapter/adapter_model.safetensors",
        "run-a/adapter/more/empty.txt",
        "run-a/receipt.json",
    ]
    assert place.read("run-a/adapter/adapter_config.json") == b'{"r": 8}'
    later = place.open()
    assert later.read_receipt() == receipt
    assert later.verify(receipt) == []


def test_verify_names_a_flipped_bit_and_a_missing_file(place: Place, adapter: Path):
    receipt = publish(place, adapter)
    weights = "adapter/adapter_model.safetensors"
    content = place.read(f"run-a/{weights}")
    place.write(f"run-a/{weights}", content[:-1] + bytes([content[-1] ^ 1]))
    receipt["files"].append({"path": "merged/gone", "size": 1, "sha256": "0" * 64})
    problems = place.open().verify(receipt)
    assert problems == [
        f"{weights}: not the bytes that the receipt lists",
        "merged/gone: missing",
    ]


def test_sizes_tell_what_is_gone_or_cut_off_and_it_is_put_back_without_a_claim(
    place: Place, adapter: Path
):
    destination = place.open()
    destination.acquire(claim("me"))
    destination.publish("adapter", adapter, hash_folder(adapter), no_progress)
    receipt = receipt_of(adapter)
    destination.publish_receipt(receipt)
    destination.release()
    assert misfits(destination, receipt) == []
    weights = "adapter/adapter_model.safetensors"
    place.write(f"run-a/{weights}", b"cut off")
    place.delete("run-a/adapter/more/empty.txt")
    wrong = misfits(destination, receipt)
    assert [file.path for file in wrong] == [weights, "adapter/more/empty.txt"]
    for file in wrong:
        destination.restore(file, adapter.parent / file.path, no_progress)
    assert destination.verify(receipt) == []
    assert misfits(destination, receipt) == []


def test_a_second_receipt_is_refused_and_the_first_stays(place: Place, adapter: Path):
    first = publish(place, adapter)
    destination = place.open()
    destination.acquire(claim("me"))  # finds the receipt, and so takes no claim
    with pytest.raises(DestinationTaken):
        destination.publish_receipt({**first, "status": "again"})
    assert place.open().read_receipt() == first


def test_a_receipt_that_appears_under_a_held_claim_is_not_overwritten(place: Place, adapter: Path):
    destination = place.open()
    destination.acquire(claim("me"))
    first = receipt_of(adapter)
    place.write("run-a/receipt.json", json.dumps(first).encode())
    with pytest.raises(DestinationTaken, match="has a receipt already"):
        destination.publish_receipt({**first, "status": "again"})
    destination.release()
    assert json.loads(place.read("run-a/receipt.json")) == first


def test_check_leaves_nothing_behind(place: Place):
    place.open().check()
    assert place.keys() == []


def test_progress_ends_at_each_files_size_also_when_all_is_there(place: Place, adapter: Path):
    destination = place.open()
    destination.acquire(claim("me"))
    for _ in range(2):
        heard: list[tuple[str, int, int]] = []
        destination.publish(
            "adapter", adapter, hash_folder(adapter), lambda *args, to=heard: to.append(args)
        )
        for record in [r for r in hash_folder(adapter, "adapter/") if r.size]:
            done = [d for what, d, _ in heard if what == f"{record.path} to {destination.uri}"]
            assert done == sorted(done)
            assert done[-1] == record.size
    destination.release()


def test_files_of_an_attempt_that_was_cut_off_do_not_stay(place: Place, adapter: Path):
    place.write("run-a/adapter/model-00002-of-00002.safetensors", b"old")
    place.write("run-a/report/index.html", b"kept")
    publish(place, adapter)
    assert "run-a/adapter/model-00002-of-00002.safetensors" not in place.files()
    assert "run-a/report/index.html" in place.files()


@pytest.mark.parametrize("path", ["../escape", "/etc/passwd", "a/../../b", "a\\b", ""])
def test_a_path_that_leaves_the_run_is_refused(place: Place, tmp_path: Path, path: str):
    destination = place.open()
    destination.acquire(claim("me"))
    with pytest.raises(InternalError, match="not a path inside"):
        destination.publish("adapter", tmp_path, [FileRecord(path, 1, OURS)], no_progress)
    with pytest.raises(InternalError, match="not a path inside"):
        destination.verify({"files": [{"path": path, "size": 1, "sha256": OURS}]})
    destination.release()
    assert place.files() == []


def test_a_failure_is_told_and_goes_when_a_receipt_comes(place: Place, adapter: Path):
    place.open().publish_failure({"exit_code": 65})
    assert json.loads(place.read("run-a/failure.json")) == {"exit_code": 65}
    publish(place, adapter)
    assert "run-a/failure.json" not in place.files()


def test_the_page_of_a_failure_makes_way_for_the_report_of_another_spec(
    place: Place, adapter: Path
):
    failing = place.open()
    failing.acquire(claim("me", OTHERS))
    assert failing.publish_failure({"exit_code": 82})
    failing.publish_page(b"<html>why")
    failing.release()
    assert place.read("run-a/report/index.html") == b"<html>why"
    report = adapter.parent / "report"
    report.mkdir()
    (report / "index.html").write_bytes(b"<html>done")
    again = place.open()
    again.acquire(claim("me"))
    again.publish("report", report, hash_folder(report), no_progress)
    again.release()
    assert place.read("run-a/report/index.html") == b"<html>done"


def test_the_page_of_a_failure_comes_too_late_for_a_run_that_is_finished(
    place: Place, adapter: Path
):
    failing = place.open()
    assert failing.publish_failure({"exit_code": 69})
    publish(place, adapter)
    failing.publish_page(b"<html>why")
    assert "run-a/report/index.html" not in place.files()


def test_a_failure_does_not_touch_a_finished_run(place: Place, adapter: Path):
    receipt = publish(place, adapter)
    assert not place.open().publish_failure({"exit_code": 70})
    assert "run-a/failure.json" not in place.files()
    assert place.open().read_receipt() == receipt


def test_a_failure_does_not_disturb_another_process(place: Place):
    holder = place.open()
    holder.acquire(claim("holder"))
    assert not place.open().publish_failure({"exit_code": 73})
    assert "run-a/failure.json" not in place.files()
    holder.publish_failure({"exit_code": 70})
    assert "run-a/failure.json" in place.files()
    holder.release()


def test_a_receipt_of_another_spec_is_refused_naming_both(place: Place, adapter: Path):
    publish(place, adapter)
    with pytest.raises(DestinationTaken) as refused:
        place.open().acquire(claim("other", OTHERS))
    assert OURS in refused.value.message
    assert OTHERS in refused.value.message


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": 2}', b"\xff"])
def test_somebody_elses_receipt_json_is_refused(place: Place, content: bytes):
    place.write("run-a/receipt.json", content)
    with pytest.raises(DestinationTaken, match="not a receipt of this program"):
        place.open().acquire(claim("me"))


def test_publishing_without_a_claim_is_refused(place: Place, adapter: Path):
    with pytest.raises(DestinationTaken):
        place.open().publish("adapter", adapter, hash_folder(adapter), no_progress)
    assert place.keys() == []


def test_nothing_is_read_where_nothing_was_published(place: Place):
    assert place.open().read_receipt() is None


class _Forgetful:
    """A store that ignores the conditions of a write, as some S3 look-alikes do."""

    uri = "s3://forgetful"

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def within(self, seconds: float) -> _Forgetful:
        return self

    def get(self, key: str) -> Stored | None:
        return Stored(self.content[key], str(hash(self.content[key])))

    def put(self, key: str, content: bytes) -> None:
        self.content[key] = content

    def put_if_absent(self, key: str, content: bytes) -> str | None:
        self.content[key] = content
        return "etag"

    def put_if_match(self, key: str, content: bytes, etag: str) -> str | None:
        self.content[key] = content
        return "etag"

    def list(self, prefix: str = "") -> list[str]:
        return []

    def delete(self, key: str) -> None:
        self.content.pop(key, None)


def test_a_store_that_ignores_conditions_is_refused_before_training():
    store = _Forgetful()
    typed: Store = store  # type: ignore[assignment]
    with pytest.raises(Unavailable, match="If-None-Match"):
        ObjectDestination(typed).check()
    assert store.content == {}


def test_a_bucket_that_is_not_there_is_not_found(s3_env: dict[str, str]):
    from tests.store.conftest import s3_place

    place = s3_place(s3_env)
    place.ref = place.ref.model_copy(update={"location": "no-such-bucket/prefix"})
    with pytest.raises(NotFound, match="does not exist"):
        place.open().check()

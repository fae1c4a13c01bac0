"""What reaches the destinations: all of a good run, the adapter of one whose merge failed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from job.credentials import Credentials
from job.errors import AccessRefused, DestinationTaken, InternalError, Stopped
from job.events import EventLog
from job.publish import Publisher
from job.receipt import verify_uri
from job.record import Record, describe
from job.spec import JobSpec, read_spec
from job.stages import Stages
from job.store import open_destination
from tests.report.sample import done

PARTS = {"adapter": "adapter_model.safetensors", "merged": "model.safetensors"}


def spec(folder: Path, *outputs: str) -> JobSpec:
    return read_spec(
        {
            "JOB_MODEL": "org/model",
            "JOB_DATASET": "org/rows",
            "JOB_OUTPUT": ",".join(outputs or (f"file://{folder}/out",)),
            "JOB_WORK_DIR": f"{folder}/work",
            "JOB_NAME": "run-a",
        }
    )


@pytest.fixture
def publisher() -> Iterator[Callable[..., Publisher]]:
    """Makes publishers that hold their claims, and releases these at the end."""
    made: list[Publisher] = []

    def make(folder: Path, *outputs: str) -> Publisher:
        made.append(new_publisher(folder, *outputs))
        return made[-1]

    yield make
    for one in made:
        one.release()


def new_publisher(folder: Path, *outputs: str) -> Publisher:
    """A publisher of a run whose adapter and merged weights lie complete in its folder."""
    job = spec(folder, *outputs)
    run = folder / "work" / "run-a"
    for part, name in PARTS.items():
        (run / part).mkdir(parents=True)
        (run / part / name).write_bytes(part.encode() * 100)
    record = Record(job)
    for part in PARTS:
        record.handle({"event": "artifact", "part": part})
    known: dict[str, Any] = done()
    kept = ("model", "datasets", "device", "training", "audit", "merge", "samples")
    record.facts |= {key: known[key] for key in kept if key in known}
    destinations = [
        open_destination(ref, job.run_name, job.save, Credentials(), hub_private=True)
        for ref in job.output
    ]
    stages = Stages(run, job.spec_hash)
    result = Publisher(job, run, destinations, EventLog(run, str), record, stages)
    result.acquire("owner")
    return result


def stored(folder: Path) -> set[str]:
    root = folder / "out" / "run-a"
    return {p.relative_to(root).parts[0] for p in root.rglob("*") if p.is_file()}


def failure(error: Any, phase: str) -> dict[str, Any]:
    return {"run": "run-a", "spec_hash": "a" * 64, **describe(error, phase)}


def test_a_good_run_is_published_whole_and_its_receipt_verifies(
    publisher: Callable[..., Publisher], tmp_path: Path
) -> None:
    (uri,) = publisher(tmp_path).publish({})
    receipt, problems = verify_uri(uri, Credentials())
    assert problems == []
    paths = {file["path"] for file in receipt["files"]}
    assert paths >= {"adapter/README.md", "merged/README.md", "report/index.html"}


@pytest.mark.parametrize("phase", ["merge", "verify"])
def test_when_only_the_merge_went_wrong_the_adapter_is_published(
    phase: str, publisher: Callable[..., Publisher], tmp_path: Path
) -> None:
    run = publisher(tmp_path)
    reason = failure(InternalError("the merged weights do not reproduce base + adapter"), phase)
    run.publish_failure(reason, done() | {"status": "failed", "failure": reason})
    assert stored(tmp_path) - {"claim.json"} == {"adapter", "failure.json", "report"}
    page = (tmp_path / "out" / "run-a" / "report" / "index.html").read_text(encoding="utf-8")
    assert "the merged weights do not reproduce base + adapter" in page
    told = json.loads((tmp_path / "out" / "run-a" / "failure.json").read_text())
    assert (told["exit_code"], told["phase"]) == (70, phase)
    card = (tmp_path / "out" / "run-a" / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "base_model: unsloth/gpt-oss-20b" in card
    assert "did not finish" in card


def test_a_run_that_was_stopped_publishes_no_weights(
    publisher: Callable[..., Publisher], tmp_path: Path
) -> None:
    run = publisher(tmp_path)
    reason = failure(Stopped("stopped"), "merge")
    run.publish_failure(reason, done() | {"status": "failed", "failure": reason})
    assert stored(tmp_path) - {"claim.json"} == {"failure.json", "report"}


def test_one_destination_that_fails_does_not_touch_the_other(
    publisher: Callable[..., Publisher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = publisher(tmp_path, f"file://{tmp_path}/lost", f"file://{tmp_path}/out")

    def refuse(*_: Any) -> None:
        raise AccessRefused("the credentials have expired")

    monkeypatch.setattr(run.destinations[0], "publish", refuse)
    with pytest.raises(AccessRefused):
        run.publish({})
    receipt, problems = verify_uri(f"{run.destinations[1].uri}", Credentials())
    assert problems == []
    assert receipt["run"] == "run-a"
    assert not (tmp_path / "lost" / "run-a" / "receipt.json").exists()


def test_what_a_finished_run_has_lost_is_put_back_and_nothing_else_is_touched(
    publisher: Callable[..., Publisher], tmp_path: Path
) -> None:
    run = publisher(tmp_path)
    [uri] = run.publish({})
    there = tmp_path / "out/run-a"
    (there / "adapter/adapter_model.safetensors").unlink()
    (there / "merged/model.safetensors").write_bytes(b"cut")
    whole = (there / "report/index.html").stat().st_mtime_ns
    assert run.finished() == [uri]
    assert verify_uri(uri, Credentials())[1] == []
    assert (there / "report/index.html").stat().st_mtime_ns == whole
    said = run.log.path.read_text()
    assert "2 of the files that its receipt lists are missing or of another size" in said
    assert "merged/model.safetensors" in said


@pytest.mark.parametrize("here", ["gone", "another"])
def test_what_is_lost_here_and_there_is_a_failure_that_names_it(
    publisher: Callable[..., Publisher], tmp_path: Path, here: str
) -> None:
    run = publisher(tmp_path)
    run.publish({})
    there = tmp_path / "out/run-a"
    for name in PARTS.values():
        next(there.rglob(name)).unlink()
    kept = run.folder / "merged/model.safetensors"
    if here == "gone":
        kept.unlink()
    else:
        kept.write_bytes(bytes(kept.stat().st_size))
    with pytest.raises(DestinationTaken, match=r"Remove .*receipt\.json") as caught:
        run.finished()
    assert caught.value.problems == ["merged/model.safetensors"]
    assert not (there / "adapter/adapter_model.safetensors").exists()
    assert (there / "receipt.json").exists()


def test_a_run_of_another_spec_at_the_destination_is_left_alone(
    publisher: Callable[..., Publisher], tmp_path: Path
) -> None:
    run = publisher(tmp_path)
    run.publish({})
    receipt = tmp_path / "out" / "run-a" / "receipt.json"
    content = json.loads(receipt.read_text()) | {"spec_hash": "b" * 64}
    receipt.write_text(json.dumps(content))
    with pytest.raises(DestinationTaken, match="bbbbbbbbbbbb"):
        run.finished()

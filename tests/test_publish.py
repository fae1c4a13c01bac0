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
    assert stored(tmp_path) - {"claim.json"} == {"adapter", "failure.json"}
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
    assert stored(tmp_path) - {"claim.json"} == {"failure.json"}


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

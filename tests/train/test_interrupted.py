"""The whole program on a real model, stopped and killed while it trains: nothing is lost.

Unsloth takes half a minute to import, so one job serves all tests here: it is stopped by SIGTERM,
started again and killed by SIGKILL, started again, killed while it merges, and started once more.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from job.credentials import Credentials
from job.receipt import verify_uri
from tests.train.test_end_to_end import events, last_line, spec, start, until

pytestmark = [pytest.mark.training, pytest.mark.timeout(1800)]

STEPS = 8
OFTEN = "0.01"  # minutes


@dataclass
class Interrupted:
    """One run of many starts, and the same run undisturbed."""

    folder: Path
    codes: list[int]
    line: dict[str, Any]
    whole: list[dict[str, Any]]  # the `step` events of the undisturbed run

    def steps(self) -> list[dict[str, Any]]:
        return events(self.folder / "work", "step")


@pytest.fixture(scope="module")
def interrupted(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    folder = tmp_path_factory.mktemp("interrupted")
    keys = {"name": "run", "max_steps": str(STEPS), "eval_fraction": "0.02", "lora_dropout": "0.05"}
    keys |= {
        "max_dropped": "0.9",
        "checkpoint_minutes": OFTEN,
        "max_seq_length": "256",
        "overlength": "truncate",
    }

    def variables(place: Path) -> dict[str, str]:
        return spec(smollm2, **keys, work_dir=f"{place}/work", output=f"file://{place}/out")

    codes = []
    ours = folder / "ours"
    ours.mkdir()

    def one(what: int, kind: str, reached: Any) -> None:
        process = start(variables(ours), ours / f"{len(codes)}.log")
        until(ours, kind, reached)
        process.send_signal(what)
        process.communicate()
        codes.append(process.returncode)

    one(signal.SIGTERM, "step", lambda event: event["step"] == 2)
    one(signal.SIGKILL, "mirrored", lambda event: event["step"] >= 5)
    one(signal.SIGKILL, "phase", lambda event: event["phase"] == "merge")
    line = last_line(start(variables(ours), ours / "last.log"))
    # Not beside the others: two trainings on two cores take far longer than one after the other.
    other = folder / "undisturbed"
    other.mkdir()
    undisturbed = start(variables(other) | {"JOB_SAVE": "lora"}, other / "run.log")
    assert last_line(undisturbed)["exit_code"] == 0
    return Interrupted(ours, codes, line, events(other / "work", "step"))


def test_it_ends_well_after_all_its_starts(interrupted: Interrupted) -> None:
    assert interrupted.codes == [75, -signal.SIGKILL, -signal.SIGKILL]
    assert interrupted.line["exit_code"] == 0, (interrupted.folder / "last.log").read_text()[-3000:]
    receipt, problems = verify_uri(interrupted.line["receipt"], Credentials())
    assert problems == []
    assert receipt["training"]["steps"] == STEPS
    assert receipt["merge"]["largest_weight_error"] < 0.1
    there = {p for p in (interrupted.folder / "out/run").rglob("*") if p.is_file()}
    # The receipt, events.jsonl, status.json; no checkpoint, no claim.
    assert len(there) == len(receipt["files"]) + 3


def test_every_loss_is_that_of_the_undisturbed_run_to_the_last_digit(
    interrupted: Interrupted,
) -> None:
    whole = {event["step"]: event["loss"] for event in interrupted.whole}
    assert list(whole) == list(range(1, STEPS + 1))
    steps = interrupted.steps()
    assert {event["step"] for event in steps} == set(whole)
    for event in steps:  # also the one or two that were done twice
        assert event["loss"] == whole[event["step"]], event["step"]


def test_it_went_on_from_the_newest_checkpoint_each_time(interrupted: Interrupted) -> None:
    resumed = [event["step"] for event in events(interrupted.folder / "work", "resumed")]
    assert len(resumed) == 2
    assert resumed[0] >= 2
    assert resumed[1] >= 5


def test_the_last_start_only_merged_and_published(interrupted: Interrupted) -> None:
    (path,) = interrupted.folder.glob("work/run/events.jsonl")
    said = [json.loads(line) for line in path.read_text().splitlines()]
    last = [
        i for i, e in enumerate(said) if e.get("phase") == "preflight" and e["event"] == "phase"
    ]
    phases = [event["phase"] for event in said[last[-1] :] if event["event"] == "phase"]
    assert "load" not in phases
    assert {"merge", "verify", "publish"} <= set(phases)

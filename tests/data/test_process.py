"""The data process as the supervisor starts it: a real child, from files to prepared rows."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from job.child import Child, child_environment
from job.data.build import load_prepared
from job.errors import DataError, JobError, Stopped
from job.spec import read_spec
from job.train.data import load_rows
from tests.jobs import job

CANARY = "canary-secret-9f8e7d6c"


class Process:
    """One start of the data process; its events, and how long it took."""

    def __init__(self, folder: Path, **changes: str) -> None:
        self.folder, self.events = folder, list[dict[str, Any]]()
        self.spec = read_spec(job(folder, **changes))
        env = child_environment({"PATH": os.environ["PATH"]}, folder / "scratch", on_cpu=True)
        self.child = Child("job.data", env, folder / "log", self.events.append)

    def run(self, **request: Any) -> dict[str, Any]:
        """Do it and return the fields of all events by their kind."""
        train = [self.source(str(source.uri)) for source in self.spec.dataset]
        folders = {"cache": str(self.folder / "cache"), "out": str(self.folder / "rows")}
        self.child.run(
            {
                "spec": self.spec.public(),
                "model": self.spec.model.uri,
                "template_date": "2026-01-02",
                **{"train": train, "eval": [], **folders, "show": 0, "quote": False},
                **request,
            }
        )
        return {event["event"]: event for event in self.events}

    @staticmethod
    def source(file: str, **options: Any) -> dict[str, Any]:
        return {
            "label": file,
            "files": [file],
            "format": None,
            "kind": None,
            "weight": None,
        } | options


def write(path: Path, answers: list[str]) -> str:
    rows = [
        [{"role": "user", "content": f"Question {i}"}, {"role": "assistant", "content": answer}]
        for i, answer in enumerate(answers)
    ]
    path.write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in rows))
    return str(path)


def test_files_become_rows_in_the_order_of_the_whole_run(tmp_path):
    write(tmp_path / "other.jsonl", [f"answer {i}" for i in range(30)])
    process = Process(tmp_path, JOB_DATASET=f"{tmp_path}/other.jsonl", JOB_MAX_STEPS="4")
    told = process.run(show=2)
    rows = load_rows(tmp_path / "rows")
    assert told["prepared"]["rows"] == {f"{tmp_path}/other.jsonl": 30}
    assert told["audit"]["audit"]["train"]["rows"] == 30
    assert (rows.steps, len(rows.train), rows.rows_an_epoch) == (4, 64, 30)
    texts = ["".join(map(chr, row["input_ids"])) for row in rows.train.select(range(30))]
    assert len(set(texts)) == 30  # every row once before any comes twice
    assert all(set(row["labels"]) - {-100} for row in rows.train)
    (short, long) = told["rows"]["rows"]
    assert {short["row"], long["row"]} <= set(range(1, 31))


def test_the_second_start_is_the_same_and_reads_the_cache(tmp_path):
    process = Process(tmp_path, JOB_EVAL_FRACTION="0.2")
    write(tmp_path / "rows.jsonl", [f"answer {i}" for i in range(40)])
    process.run()
    first = load_prepared(tmp_path / "rows")
    order, held_out = np.array(first.order), np.array(first.held_out)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("rows.arrow")}
    Process(tmp_path, JOB_EVAL_FRACTION="0.2").run()
    second = load_prepared(tmp_path / "rows")
    assert np.array_equal(second.order, order)
    assert np.array_equal(second.held_out, held_out)
    assert second.audit == first.audit
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("rows.arrow")} == files


def test_weights_and_kinds_reach_the_mix(tmp_path):
    one = write(tmp_path / "one.jsonl", [f"one {i}" for i in range(30)])
    two = write(tmp_path / "two.jsonl", [f"two {i}" for i in range(30)])
    both = json.dumps([f"{one}?weight=3&kind=reasoning", f"{two}?weight=1&kind=plain"])
    process = Process(tmp_path, JOB_DATASET=both)
    sources = [process.source(one, weight=3.0, kind="reasoning")]
    sources += [process.source(two, weight=1.0, kind="plain")]
    audit = process.run(train=sources)["audit"]["audit"]
    assert [source["rows"] for source in audit["sources"]] == [30, 10]
    assert audit["kinds"]["reasoning"]["rows"] == 30


@pytest.mark.parametrize(("quote", "seen"), [(False, False), (True, True)])
def test_a_bad_row_is_quoted_only_when_asked(tmp_path, quote, seen):
    write(tmp_path / "bad.jsonl", ["fine"] * 16)
    with (tmp_path / "bad.jsonl").open("a") as file:
        file.write(json.dumps({"messages": [{"role": "user", "content": CANARY}]}) + "\n")
    process = Process(tmp_path, JOB_DATASET=f"{tmp_path}/bad.jsonl")
    with pytest.raises(DataError) as caught:
        process.run(quote=quote)
    (problem,) = caught.value.problems
    assert "row 17" in problem
    assert (CANARY in str(caught.value)) is seen
    assert (CANARY in (tmp_path / "log").read_text()) is seen


def test_preferences_are_checked_and_then_refused(tmp_path):
    pair = {"prompt": "Hello?", "chosen": "Good day.", "rejected": "Go away."}
    (tmp_path / "pairs.jsonl").write_text((json.dumps(pair) + "\n") * 3)
    process = Process(tmp_path, JOB_DATASET=f"{tmp_path}/pairs.jsonl")
    with pytest.raises(DataError, match=r"3 preference rows .* cannot train on preferences yet"):
        process.run()


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stop_ends_it_and_leaves_no_half_pool(tmp_path):
    rows = tmp_path / "many.jsonl"
    write(rows, [f"answer {i} " + "word " * 300 for i in range(20_000)])
    process = Process(tmp_path, JOB_DATASET=str(rows))
    failed: list[JobError] = []

    def work() -> None:
        try:
            process.run()
        except JobError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: list((tmp_path / "cache").glob("*.part/rows.arrow")))
    process.child.stop()
    thread.join(60)
    assert isinstance(failed[0], Stopped)
    assert not list((tmp_path / "cache").glob("*/pool.json"))
    assert not (tmp_path / "rows/prepared.json").exists()

from __future__ import annotations

from pathlib import Path

import pytest

from job.data.read.formats import read_rows
from job.errors import JobError
from job.sources import fetch_dataset, resolve_dataset
from job.spec import read_spec
from tests.data.broken import CANARY, CASES, Broken
from tests.sources.parts import NOBODY, Watch

JOB = {"JOB_MODEL": "/model", "JOB_OUTPUT": "file:///out", "JOB_DEVICE": "cpu"}
FOUND_BY_READING = [case for case in CASES if case.found_by == "reading"]


def read_datasets(environ: dict[str, str], into: Path) -> None:
    for source in read_spec(environ).dataset:
        resolved = resolve_dataset(source, NOBODY)
        fetched = fetch_dataset(resolved, into, NOBODY, Watch())
        read_rows(fetched.files, source.format, source.uri)


@pytest.mark.parametrize("case", FOUND_BY_READING, ids=lambda case: case.name.replace(" ", "-"))
def test_a_broken_input_is_refused_with_its_place_and_never_shown(case: Broken, tmp_path):
    (tmp_path / "in").mkdir()
    environ = JOB | case.write(tmp_path / "in")
    with pytest.raises(JobError) as caught:
        read_datasets(environ, tmp_path / "out")
    message = str(caught.value)
    assert caught.value.exit_code == case.exit_code, message
    assert [part for part in case.says if part not in message] == [], message
    assert CANARY not in message


def test_the_table_is_as_large_as_was_promised():
    refused_by_data = [case for case in CASES if case.exit_code in (65, 66, 77)]
    assert len(refused_by_data) >= 64
    assert len({case.name for case in CASES}) == len(CASES)

"""Broken inputs through the real `check`: its exit code, its words."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.data.broken import CANARY, CASES, Broken
from tests.jobs import entrypoint, job

EVERY = 6  # of the cases that reading the files finds; the others are in the drill below
SOME = [case for n, case in enumerate(CASES) if case.found_by == "encoding" or n % EVERY == 0]


def problems(case: Broken, folder: Path) -> list[str]:
    """What is wrong with the answer to one broken input."""
    (folder / "in").mkdir(parents=True)
    job(folder)
    ended = entrypoint("check", environ=job(folder, **case.write(folder / "in")))
    found = [part for part in case.says if part not in ended.text]
    found += [] if ended.code == case.exit_code else [f"exit code {ended.code}: {ended.text}"]
    return [f"{case.name}: {what}" for what in found + [CANARY] * (CANARY in ended.text)]


def answers(cases: list[Broken], folder: Path) -> list[str]:
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda n: problems(cases[n], folder / str(n)), range(len(cases)))
        return [problem for one in found for problem in one]


def test_check_refuses_broken_inputs_and_names_the_place(tmp_path):
    assert len(SOME) > 20
    assert answers(SOME, tmp_path) == []


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_check_refuses_every_broken_input_of_the_table(tmp_path):
    assert answers(CASES, tmp_path) == []

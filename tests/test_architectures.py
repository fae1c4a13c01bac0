"""Which cards may train, and with what; the table is torch's own where torch can be asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from job.architectures import COMPILED, MIN_CAPABILITY, TABLE, machine_code, refusal, spelled
from job.packing import FLASH_CAPABILITY

PAGE = Path(__file__).parent.parent / "docs" / "image.md"
DRIVER = "570.133.20"


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"sm_{row.capability[0]}{row.capability[1]}")
def test_every_architecture_of_the_table_may_train(row):
    assert refusal(row.cards, row.capability, DRIVER) is None
    packed = row.gpt_oss.startswith("packed")
    assert packed == (row.capability >= FLASH_CAPABILITY)
    assert ("grouped" in row.gpt_oss) == (row.capability[0] == 9)  # job/train/experts.py


@pytest.mark.parametrize(
    ("capability", "reason"),
    [
        ((6, 0), r"capability 6\.0; 7\.5 \(Turing\) or newer"),
        ((7, 0), r"capability 7\.0; 7\.5"),
        ((11, 0), r"capability 11\.0, for which torch 2\.8\.0 has no machine code"),
        ((13, 0), r"built for 7\.5, 8\.0, 8\.6, 9\.0, 10\.0, 12\.0\. Take another card"),
    ],
)
def test_a_card_without_machine_code_is_refused_before_anything_is_fetched(capability, reason):
    assert re.search(reason, refusal("The card", capability, DRIVER) or "")


def test_a_driver_that_is_too_old_is_refused_by_both_numbers():
    message = refusal("Tesla T4", (7, 5), "470.256.02")
    assert message
    assert "driver is 470.256.02; CUDA 12.8 needs 525" in message
    assert refusal("Tesla T4", (7, 5), "525.60.13") is None


def test_a_card_runs_the_newest_code_of_its_own_generation():
    assert machine_code((8, 9)) == (8, 6)
    assert machine_code((10, 3)) == (10, 0)
    assert machine_code((8, 0)) == (8, 0)
    assert machine_code((11, 0)) is None


def test_what_torch_is_built_for_is_what_torch_says():
    import torch

    flags = re.findall(r"sm_(\d+)(\d)(?!\d)", torch._C._cuda_getArchFlags())
    built = tuple((int(major), int(minor)) for major, minor in flags)
    assert tuple(capability for capability in built if capability >= MIN_CAPABILITY) == COMPILED


def test_the_page_shows_the_table():
    page = PAGE.read_text(encoding="utf-8")
    for row in TABLE:
        code = machine_code(row.capability)
        assert code
        cells = (spelled(row.capability), row.name, row.cards, row.trains_in, row.gpt_oss)
        assert f"| {' | '.join([*cells, spelled(code)])} |" in page

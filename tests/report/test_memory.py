"""The estimated memory on the page: from the plan as it is made, through the record."""

from __future__ import annotations

from typing import Any

import pytest

from job.memory import PARTS, on_card
from job.plan import make_plan
from job.preflight import Findings
from job.record import Record
from job.report import memory, words
from job.report.page import render_page
from job.settings import Gpu
from job.spec import read_spec
from tests.model_facts import LLAMA_8B, SMOLLM2, Facts
from tests.report import sample
from tests.test_plan import L4


def result(model: Facts, gpu: Gpu | None, peak: int | None) -> dict[str, Any]:
    """What a run with this plan hands to the report."""
    device = "cuda" if gpu else "cpu"
    spec = read_spec(
        {"JOB_MODEL": "a/b", "JOB_DATASET": "/rows.jsonl", "JOB_OUTPUT": "file:///out"}
        | {"JOB_DEVICE": device}
    )
    plan = make_plan(spec, *model, gpu, longest=512)
    record = Record(spec)
    record.handle({"event": "plan", "settings": plan.settings(), "estimates": plan.estimates})
    found = Findings(gpu=gpu, model=None, train=(), eval=(), plan=plan)  # type: ignore[arg-type]
    record.handle({"event": "inputs", "device": found.device()})
    record.handle({"event": "trained", "training": {"peak_memory_bytes": peak, "history": []}})
    return record.result("done")


def test_every_part_of_the_plan_is_on_the_page_with_its_size() -> None:
    run = result(LLAMA_8B, L4, peak=9_000_000_000)
    shown = {name: size for name, _, size in memory.facts(run)["parts"]}
    assert set(shown) == {
        *("weights", "adapter", "gradients", "optimizer state"),
        *("activations, logits", "reserve"),
    }
    html = render_page(run, [])
    for part in PARTS:
        size = run["estimates"][part]
        assert part == "logits" or f"{words.size(size)}</td>" in html


@pytest.mark.parametrize(("peak", "side"), [(6_000_000_000, "more"), (9_000_000_000, "less")])
def test_the_sum_is_held_against_the_card_and_the_peak(peak: int, side: str) -> None:
    run = result(LLAMA_8B, L4, peak)
    told = dict(memory.facts(run)["facts"])
    whole = on_card(run["estimates"])
    share = words.share(whole, 24.2e9)
    assert told["Together"] == f"{words.size(whole)}, {share} of the 24.2 GB of the NVIDIA L4"
    assert told["Measured peak"] == f"{words.size(peak)}, of PyTorch's tensors"
    tensors = whole - run["estimates"]["reserve"]
    off = words.share(abs(tensors - peak), peak)
    wanted = f"{words.size(tensors)} without the reserve, {off} {side}"
    assert told["Estimated for the same"] == wanted


def test_a_run_on_a_cpu_says_so() -> None:
    run = result(SMOLLM2, None, peak=None)
    html = render_page(run, [])
    assert "This run used the CPU: all of it is main memory" in html
    assert "Measured peak" not in html
    assert "Together" in html


def test_a_training_that_ran_out_of_memory_shows_how_far_it_came() -> None:
    run = sample.out_of_memory()
    assert "peak_memory_bytes" not in run["training"]
    assert dict(memory.facts(run)["facts"])["Measured peak"].startswith("38.4 GB")


@pytest.mark.parametrize("estimates", [{}, None])
def test_without_a_plan_there_is_no_such_section(estimates: Any) -> None:
    assert "Memory by part" not in render_page(sample.done() | {"estimates": estimates}, [])

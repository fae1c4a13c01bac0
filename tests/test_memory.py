"""The memory estimate against every peak that was measured, and its parts."""

from __future__ import annotations

import pytest

from bench.gptoss import Shape, config
from job import packing
from job.memory import GIB, adapter_parameters, loaded_bytes, on_card, token_bytes, trained_parts
from job.spec import JobSpec, read_spec
from tests.model_facts import GPT_OSS_20B, GPT_OSS_120B, LLAMA_8B, QWEN3_A3B, Facts

ALL = ("auto",)


def spec(**changes: str) -> JobSpec:
    good = {"JOB_MODEL": "org/name", "JOB_DATASET": "/data/rows.jsonl", "JOB_OUTPUT": "file:///out"}
    return read_spec(good | {f"JOB_{key.upper()}": value for key, value in changes.items()})


# Peaks of PyTorch's allocator on one H100 80GB, torch 2.8.0, triton 3.4.0, unsloth 2026.10.7
# (docs/benchmarks.md): layers, layout, rows in a pass, tokens of a row, packed, GiB. Unpacked rows
# are padded to the longest, packed passes are the largest of their run or of mean size. The
# constant for unpacked tokens was fitted to the first line.
TWO = 2 * 2 * (823_186_976 + 579_133_440)  # bytes of two layers, embedding and output matrix
MEASURED = [
    (24, "mxfp4", 16, 1_129, False, 45.5),
    (2, "bf16", 8, 1_129, False, 8.1),
    (24, "mxfp4", 1, 18_600, True, 72.0),
    (24, "mxfp4", 1, 17_826, True, 71.5),
    (24, "mxfp4", 1, 18_590, True, 73.7),
    (2, "bf16", 8, 785, True, 7.7),
]


@pytest.mark.parametrize(("layers", "layout", "rows", "tokens", "packed", "peak"), MEASURED)
def test_it_is_within_a_tenth_of_every_measured_peak(
    layers: int, layout: str, rows: int, tokens: int, packed: bool, peak: float
):
    facts = config(Shape(layers=layers), layout)
    size = GPT_OSS_20B[1] if layers == 24 else TWO
    parts = trained_parts(spec(), facts, "adamw_8bit")
    parts["weights"] = loaded_bytes(facts, size, "native", on_cpu=False)
    parts["reserve"] = 0  # the allocator does not count the CUDA context
    parts["activations"] = rows * tokens * token_bytes(facts, checkpointed=True)
    parts["logits"] = 0
    if packed:
        way = packing.Way("16bit", "grouped", lean=False)
        parts["activations"] = rows * tokens * packing.token_bytes(way, facts, 8)
        parts["logits"] = packing.logits_bytes(way, facts, 8, rows * tokens)
    assert on_card(parts) / GIB == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize(
    ("model", "rank", "parameters"),
    [
        (GPT_OSS_20B, 8, 92_454_912),  # as counted by PEFT when it was trained
        (GPT_OSS_120B, 8, 536_813_568),
        (LLAMA_8B, 16, 41_943_040),  # as Unsloth's notebooks print it
    ],
)
def test_the_adapter_has_as_many_parameters_as_the_libraries_count(
    model: Facts, rank: int, parameters: int
):
    assert adapter_parameters(model[0], rank, ALL) == parameters


def test_only_the_targets_that_are_asked_for_are_counted():
    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    assert adapter_parameters(GPT_OSS_20B[0], 8, attention) == 3_981_312
    assert adapter_parameters(QWEN3_A3B[0], 8, ("down_proj",)) == 48 * 8 * 128 * (768 + 2048)


def test_the_optimizer_has_two_moments_of_its_width():
    parts = trained_parts(spec(), GPT_OSS_20B[0], "adamw_8bit")
    assert parts == {
        "adapter": 4 * 92_454_912,
        "gradients": 4 * 92_454_912,
        "optimizer": 2 * 92_454_912,
    }
    assert trained_parts(spec(), GPT_OSS_20B[0], "adamw_torch")["optimizer"] == 8 * 92_454_912
    assert trained_parts(spec(), GPT_OSS_20B[0], "sgd")["optimizer"] == 0


def test_the_sizes_of_a_model_with_an_image_part_are_those_of_its_text_part():
    nested = {"text_config": LLAMA_8B[0]}
    assert adapter_parameters(nested, 8, ALL) == adapter_parameters(LLAMA_8B[0], 8, ALL)
    assert token_bytes(nested, checkpointed=True) == 72 * 4096

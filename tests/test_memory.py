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
# (docs/benchmarks.md). Packed passes are the largest of their run or of mean size.
LEAN, GROUPED = ("mxfp4", "loop", True), ("mxfp4", "grouped", False)
WHOLE = ("16bit", "grouped", False)
TWO = 2 * 2 * (823_186_976 + 579_133_440)  # bytes of two layers, embedding and output matrix
PACKED = [  # layers, bytes of the checkpoint, layout; how; tokens of a row, GiB
    (24, GPT_OSS_20B[1], "mxfp4", WHOLE, 18_600, 72.0),
    (24, GPT_OSS_20B[1], "mxfp4", WHOLE, 17_826, 71.5),
    (24, GPT_OSS_20B[1], "mxfp4", WHOLE, 18_590, 73.7),
    (24, GPT_OSS_20B[1], "mxfp4", WHOLE, 16_983, 71.5),
    (24, GPT_OSS_20B[1], "mxfp4", WHOLE, 16_384, 70.87),
    (24, GPT_OSS_20B[1], "mxfp4", WHOLE, 5_686, 51.65),
    (24, GPT_OSS_20B[1], "mxfp4", GROUPED, 16_983, 45.24),
    (24, GPT_OSS_20B[1], "mxfp4", GROUPED, 4_437, 23.27),
    (24, GPT_OSS_20B[1], "mxfp4", LEAN, 8_272, 13.02),
    (36, GPT_OSS_120B[1], "mxfp4", ("mxfp4", "grouped", True), 20_891, 69.59),
    (2, TWO, "bf16", WHOLE, 8 * 785, 7.7),
]


def peak_of(parts: dict[str, int]) -> float:
    """GiB as the allocator counts: the reserve is for the CUDA context, which it does not see."""
    return on_card({**parts, "reserve": 0}) / GIB


@pytest.mark.parametrize(("layers", "size", "layout", "how", "tokens", "peak"), PACKED)
def test_it_is_within_a_tenth_of_every_peak_of_packed_gpt_oss(
    layers: int, size: int, layout: str, how: tuple[str, str, bool], tokens: int, peak: float
):
    facts = config(Shape(layers=layers, experts=128 if layers == 36 else 32), layout)
    way = packing.Way(how[0], how[1], lean=how[2])
    parts = trained_parts(spec(), facts, "adamw_8bit")
    parts["weights"] = packing.weights(way, facts, size)
    parts["activations"] = tokens * packing.token_bytes(way, facts, 8)
    parts["logits"] = packing.logits_bytes(way, facts, 8, tokens)
    assert peak_of(parts) == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize(
    ("layers", "size", "layout", "tokens", "peak"),
    [
        (24, GPT_OSS_20B[1], "mxfp4", 16 * 1_129, 45.5),  # the constant was fitted to this one
        (24, GPT_OSS_20B[1], "mxfp4", 16 * 4_096, 58.76),
        (2, TWO, "bf16", 8 * 1_129, 8.1),
    ],
)
def test_and_of_padded_gpt_oss(layers: int, size: int, layout: str, tokens: int, peak: float):
    facts = config(Shape(layers=layers), layout)
    parts = trained_parts(spec(), facts, "adamw_8bit")
    parts["weights"] = loaded_bytes(facts, size, "native", on_cpu=False)
    parts["activations"] = tokens * token_bytes(facts, "unsloth")
    assert peak_of({**parts, "logits": 0}) == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize(("tokens", "peak"), [(20_891, 20.0), (65_536, 27.85)])
def test_and_of_packed_llama_with_the_vocabulary_of_gpt_oss(tokens: int, peak: float):
    facts = {**LLAMA_8B[0], "vocab_size": 201_088}
    parts = trained_parts(spec(), facts, "adamw_8bit")
    parts["weights"] = 2 * 8_626_900_992  # bytes of bench/arms.py's checkpoint
    parts["activations"] = tokens * token_bytes(facts, "unsloth", packed=True)
    assert peak_of({**parts, "logits": 0}) == pytest.approx(peak, rel=0.1)


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
    assert token_bytes(nested, "unsloth") == 72 * 4096


def test_what_stays_on_the_card_and_wide_layers_cost_more():
    facts = LLAMA_8B[0]
    packed = token_bytes(facts, "unsloth", packed=True)
    assert token_bytes(facts, True, packed=True) == packed + 2 * 32 * 4096  # the layers' inputs
    wide = {**facts, "intermediate_size": 2 * 14336}
    assert token_bytes(wide, "unsloth", packed=True) == 2 * packed
    assert token_bytes(facts, False) > 10 * packed

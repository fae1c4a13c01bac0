"""What is decided for which card and model, and what is refused with which advice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.cards import CARDS, IN_USE, MIB
from job.errors import SpecError, Unavailable
from job.memory import GIB, RESERVE, on_card, storage_format
from job.plan import Plan, make_plan
from job.settings import Gpu
from job.smaller import with_smaller_batch
from job.spec import JobSpec, read_spec
from tests.model_facts import (
    GPT_OSS_20B,
    GPT_OSS_120B,
    LLAMA_8B,
    LLAMA_70B,
    QWEN3_8B,
    QWEN3_A3B,
    SMOLLM2,
    Facts,
)


def card(name: str, mib: int, capability: tuple[int, int], driver: str = "570.133.20") -> Gpu:
    """As nvidia-smi tells it on a machine where nothing else runs."""
    return Gpu(name, mib * MIB, mib * MIB - IN_USE, capability, driver)


T4, L4, RTX_4090, RTX_5090, A100_40, L40S, A100_80, H100, H200, B200 = CARDS
SIXTEEN = card("NVIDIA GeForce RTX 4080", 16376, (8, 9))
MXFP4 = GPT_OSS_20B[0]
BITSANDBYTES = {"hidden_size": 4096, "quantization_config": {"quant_method": "bitsandbytes"}}


def spec(**changes: str) -> JobSpec:
    good = {"JOB_MODEL": "org/name", "JOB_DATASET": "/data/rows.jsonl", "JOB_OUTPUT": "file:///out"}
    return read_spec(good | {f"JOB_{key.upper()}": value for key, value in changes.items()})


def plan(model: Facts, gpu: Gpu | None, longest: int | None = None, **changes: str) -> Plan:
    config, weight_bytes = model
    return make_plan(spec(**changes), config, weight_bytes, gpu, longest)


# At the defaults (16 rows a step of 4096 tokens), for each card of CARDS: precision and, where rows
# are padded, micro-batch; of gpt-oss how the experts are kept; or how many GiB it would take.
TABLE: list[tuple[str, Facts, str]] = [
    (
        "gpt-oss-20b",
        GPT_OSS_20B,
        "43 mxfp4-lean mxfp4-lean mxfp4 mxfp4 mxfp4 16bit 16bit 16bit 16bit",
    ),
    ("gpt-oss-120b", GPT_OSS_120B, "193 67 67 67 67 67 mxfp4-lean mxfp4-lean mxfp4 mxfp4"),
    (
        "Llama-3-8B",
        LLAMA_8B,
        "4bit:4 4bit 4bit 16bit 16bit 16bit 16bit 16bit 16bit 16bit",
    ),
    ("Llama-3-70B", LLAMA_70B, "47 47 47 47 47 47 4bit 4bit 4bit 4bit"),
    (
        "Qwen3-8B",
        QWEN3_8B,
        "4bit:4 4bit 4bit 16bit 16bit 16bit 16bit 16bit 16bit 16bit",
    ),
    (
        "Qwen3-30B-A3B",
        QWEN3_A3B,
        "24 24 24 4bit:4 4bit:16 4bit:16 4bit:16 4bit:16 16bit:16 16bit:16",
    ),
    ("SmolLM2-135M", SMOLLM2, " ".join(["16bit:16", *["16bit"] * 9])),
]
ROWS = [
    pytest.param(model, gpu, wanted, id=f"{name} on {gpu.name}")
    for name, model, row in TABLE
    for gpu, wanted in zip(CARDS, row.split(), strict=True)
]


@pytest.mark.parametrize(("model", "gpu", "wanted"), ROWS)
def test_a_card_gets_settings_that_fit_it(model: Facts, gpu: Gpu, wanted: str):
    if wanted.isdigit():
        with pytest.raises(Unavailable, match=f"about {wanted} GiB"):
            plan(model, gpu)
        return
    decided = plan(model, gpu)
    values = decided.values()
    if values["packing"] and not values["experts"]:
        assert values["precision"] == wanted
        assert values["packing"] >= 4096
        assert values["gradient_checkpointing"] == "unsloth"
    elif values["packing"]:
        kept, lean = values["experts"], values["gradient_checkpointing"]
        assert (f"{kept}-lean" if lean else kept) == wanted
        assert values["packing"] >= 4096
        hopper = gpu.capability[0] == 9
        assert values["expert_products"] == ("grouped" if hopper else "loop")
    else:
        assert f"{values['precision']}:{values['micro_batch_size']}" == wanted
        assert values["gradient_checkpointing"] == "unsloth"
    assert values["micro_batch_size"] * values["gradient_accumulation"] == 16
    assert values["optimizer"] == "adamw_8bit"
    assert on_card(decided.estimates) <= min(0.95 * gpu.memory, gpu.free)
    for name, setting in decided.settings().items():
        assert setting["reason"], name


def test_rows_that_are_shorter_than_allowed_take_a_larger_micro_batch_or_a_smaller_card():
    assert plan(LLAMA_8B, T4).micro_batch_size.value == 4
    assert plan(LLAMA_8B, T4, longest=1000).micro_batch_size.value == 16
    assert plan(LLAMA_8B, T4, longest=9000).micro_batch_size.value == 4  # dropped or cut
    lean = [plan(GPT_OSS_20B, L4, longest).gradient_checkpointing.value for longest in (4096, 1129)]
    assert lean == [True, False]
    with pytest.raises(Unavailable):
        plan(GPT_OSS_20B, SIXTEEN, longest=16_384, max_seq_length="16384")


def test_a_high_rank_leaves_less_room_for_rows():
    assert plan(LLAMA_8B, T4, lora_r="256").micro_batch_size.value == 1
    rows = [plan(GPT_OSS_20B, H100, lora_r=r).packing.value for r in ("8", "64")]
    assert rows[0] > rows[1] > 14_000


def test_gpt_oss_is_trained_lean_on_a_card_of_16_gb():
    decided = plan(GPT_OSS_20B, SIXTEEN)
    values = decided.values()
    assert (values["experts"], values["expert_products"]) == ("mxfp4", "loop")
    assert values["gradient_checkpointing"] is True
    assert values["packing"] >= 4096
    assert on_card(decided.estimates) < 0.95 * SIXTEEN.memory
    # No memory is left over, so rows as long as the bar's take less.
    a_token = decided.estimates["activations"] / decided.packing.value
    tensors = on_card(decided.estimates) - RESERVE - (decided.packing.value - 4096) * a_token
    assert tensors < 14e9


# gpt-oss-20b: Unsloth dequantises MXFP4 to 41.8 GB; packed in the leanest way it takes less.
TOO_SMALL = [(T4, "43 GiB"), (card("NVIDIA GeForce RTX 4070", 12282, (8, 9)), "15 GiB")]


@pytest.mark.parametrize(("gpu", "needed"), TOO_SMALL, ids=lambda each: getattr(each, "name", each))
def test_a_card_that_is_too_small_is_refused_with_what_is_needed(gpu, needed):
    with pytest.raises(Unavailable) as caught:
        plan(GPT_OSS_20B, gpu)
    message = caught.value.message
    assert gpu.name in message
    assert needed in message
    assert f"{gpu.memory / GIB:.0f} GiB" in message
    assert "JOB_MAX_SEQ_LENGTH" in message
    assert "larger card" in message


def test_a_card_that_somebody_else_fills_is_refused_too():
    busy = Gpu(A100_80.name, A100_80.memory, 12 * GIB, A100_80.capability, A100_80.driver)
    with pytest.raises(Unavailable, match="80 GiB, 12 of them free"):
        plan(GPT_OSS_20B, busy)


def test_an_old_architecture_is_refused():
    with pytest.raises(Unavailable, match=r"P100-PCIE-16GB has compute capability 6\.0; 7\.5"):
        plan(SMOLLM2, card("Tesla P100-PCIE-16GB", 16384, (6, 0)))


def test_an_old_driver_is_refused():
    with pytest.raises(Unavailable, match=r"driver is 470\.256\.02; CUDA 12\.8 needs 525"):
        plan(SMOLLM2, card("Tesla T4", 15360, (7, 5), driver="470.256.02"))
    plan(SMOLLM2, card("Tesla T4", 15360, (7, 5), driver="525.60.13"))


def test_shorter_rows_allow_a_larger_micro_batch():
    assert plan(LLAMA_8B, T4, max_seq_length="4096").micro_batch_size.value == 4
    assert plan(LLAMA_8B, T4, max_seq_length="2048").micro_batch_size.value == 8
    assert plan(LLAMA_8B, T4, max_seq_length="512").micro_batch_size.value == 16
    with pytest.raises(Unavailable):
        plan(LLAMA_8B, T4, max_seq_length="65536")


def test_without_checkpointing_the_micro_batch_is_smaller():
    assert plan(LLAMA_8B, A100_40).micro_batch_size.value == 16
    kept = plan(LLAMA_8B, A100_40, gradient_checkpointing="false")
    assert kept.values()["gradient_checkpointing"] is False
    assert kept.micro_batch_size.value == 1
    assert kept.gradient_accumulation.value == 16


def test_what_was_asked_for_is_done():
    decided = plan(
        LLAMA_8B,
        A100_80,
        precision="4bit",
        micro_batch_size="2",
        gradient_checkpointing="true",
        optimizer="adamw_torch",
    )
    assert decided.values() == {
        "precision": "4bit",
        "micro_batch_size": 2,
        "gradient_accumulation": 8,
        "gradient_checkpointing": True,
        "optimizer": "adamw_torch",
        "packing": False,
        "experts": None,
        "expert_products": None,
        "merge": "unsloth",
    }
    assert decided.precision.reason == decided.micro_batch_size.reason == "as asked"


def test_a_micro_batch_that_was_asked_for_does_not_hide_that_not_even_one_row_fits():
    with pytest.raises(Unavailable, match="larger card"):
        plan(LLAMA_8B, T4, max_seq_length="65536", micro_batch_size="1")
    more = plan(LLAMA_8B, T4, micro_batch_size="16").micro_batch_size
    assert more.value == 16
    assert "more than there is" in more.reason


def test_the_cpu_trains_in_full_precision_without_a_card():
    decided = plan(SMOLLM2, None, device="cpu", batch_size="6")
    assert decided.values() == {
        "precision": "16bit",
        "micro_batch_size": 1,
        "gradient_accumulation": 6,
        "gradient_checkpointing": False,
        "optimizer": "adamw_torch",
        "packing": False,
        "experts": None,
        "expert_products": None,
        "merge": "unsloth",
    }
    assert decided.estimates["weights"] == 2 * SMOLLM2[1]
    assert decided.estimates["reserve"] == 0


CONTRADICTIONS = [
    ("4bit of MXFP4", GPT_OSS_20B, H100, {"precision": "4bit"}, "JOB_PRECISION=native"),
    ("merge of 4bit", (BITSANDBYTES, 5 * GIB), H100, {}, "JOB_SAVE=lora"),
    ("MXFP4 on cpu", GPT_OSS_20B, None, {"device": "cpu"}, "16-bit"),
    (
        "bitsandbytes on cpu",
        (BITSANDBYTES, 5 * GIB),
        None,
        {"device": "cpu", "save": "lora"},
        "16-bit",
    ),
]


@pytest.mark.parametrize(
    ("model", "gpu", "changes", "way_out"),
    [row[1:] for row in CONTRADICTIONS],
    ids=[row[0] for row in CONTRADICTIONS],
)
def test_a_precision_that_the_checkpoint_cannot_have_is_refused(model, gpu, changes, way_out):
    with pytest.raises(SpecError) as caught:
        plan(model, gpu, **changes)
    assert way_out in caught.value.message


def test_a_quantised_checkpoint_trains_when_no_merge_is_wanted():
    decided = plan((BITSANDBYTES, 5 * GIB), L4, save="lora")
    assert decided.precision.value == "native"
    assert decided.estimates["weights"] == 5 * GIB


def test_the_width_of_a_model_with_an_image_part_is_that_of_its_text_part():
    nested = ({"text_config": LLAMA_8B[0]}, LLAMA_8B[1])
    assert plan(nested, T4).estimates == plan(LLAMA_8B, T4).estimates


def test_the_storage_format_is_read_from_the_config():
    assert storage_format({}) == "16bit"
    assert storage_format({"quantization_config": None}) == "16bit"
    assert storage_format(MXFP4) == "mxfp4"
    assert storage_format(BITSANDBYTES) == "bitsandbytes"


@given(
    model=st.sampled_from([GPT_OSS_20B, LLAMA_8B, SMOLLM2]),
    gpu=st.sampled_from([None, *CARDS]),
    batch=st.integers(1, 512),
    length=st.integers(64, 131_072),
    checkpointing=st.sampled_from(["auto", "unsloth", "true", "false"]),
)
def test_micro_batches_always_make_up_the_batch(model, gpu, batch, length, checkpointing):
    changes = {
        "batch_size": str(batch),
        "max_seq_length": str(length),
        "gradient_checkpointing": checkpointing,
        "device": "cuda" if gpu else "cpu",
    }
    try:
        values = plan(model, gpu, **changes).values()
    except (Unavailable, SpecError):
        # Refused only where one row does not fit, or where there is no 16-bit checkpoint.
        assert gpu is not None or model is GPT_OSS_20B
        return
    assert values["micro_batch_size"] >= 1
    assert values["micro_batch_size"] * values["gradient_accumulation"] == batch


def test_an_mxfp4_base_is_merged_by_peft():
    assert plan(GPT_OSS_20B, H100).merge.value == "peft"


@pytest.mark.parametrize("gpu", [H100, H200, B200], ids=lambda gpu: gpu.name)
def test_gpt_oss_is_packed_where_a_row_fits(gpu):
    decided = plan(GPT_OSS_20B, gpu)
    values = decided.values()
    assert values["packing"] >= 4096
    assert (values["micro_batch_size"], values["gradient_accumulation"]) == (16, 1)
    assert values["gradient_checkpointing"] is False
    assert on_card(decided.estimates) <= gpu.free


def test_an_h100_takes_rows_of_18_600_tokens():
    assert 18_500 < plan(GPT_OSS_20B, H100).packing.value < 18_700


@pytest.mark.parametrize(
    ("model", "gpu", "changes", "reason"),
    [
        (GPT_OSS_20B, H100, {"packing": "false"}, "as asked"),
        (GPT_OSS_20B, H100, {"lora_dropout": "0.1"}, "no dropout"),
        (GPT_OSS_20B, H100, {"lora_targets": "q_proj,router"}, "no adapter on router"),
        (GPT_OSS_20B, H100, {"micro_batch_size": "4"}, "set for unpacked rows"),
        (GPT_OSS_20B, H100, {"gradient_checkpointing": "unsloth"}, "set for unpacked rows"),
        (LLAMA_8B, T4, {}, "8.0 or newer"),
        (QWEN3_A3B, H100, {}, "only these are packed: gpt_oss, llama"),
    ],
)
def test_what_is_not_packed_says_why(model, gpu, changes, reason):
    decided = plan(model, gpu, **changes)
    assert decided.packing.value is False
    assert reason in decided.packing.reason


def test_packing_that_cannot_be_is_refused():
    with pytest.raises(SpecError, match="JOB_PACKING=true: only these are packed: gpt_oss, llama"):
        plan(QWEN3_A3B, H100, packing="true")
    with pytest.raises(SpecError, match=r"JOB_PACKING=true: .* GiB hold no row of 65536 tokens"):
        plan(LLAMA_8B, L4, packing="true", max_seq_length="65536", precision="16bit")


def test_what_ran_out_of_memory_is_tried_with_half_of_it():
    packed = plan(GPT_OSS_20B, H100)
    smaller = with_smaller_batch(packed)
    assert smaller
    assert smaller.packing.value == packed.packing.value // 2
    assert "did not fit" in smaller.packing.reason
    padded = plan(LLAMA_8B, H100, micro_batch_size="16")
    unpacked = with_smaller_batch(padded)
    assert unpacked
    assert (unpacked.micro_batch_size.value, unpacked.gradient_accumulation.value) == (8, 2)
    for before, after in ((packed, smaller), (padded, unpacked)):
        whole, half = before.estimates["activations"], after.estimates["activations"]
        assert half == pytest.approx(whole / 2, rel=1e-3)
        assert after.estimates["weights"] == before.estimates["weights"]
    assert with_smaller_batch(plan(LLAMA_8B, H100, micro_batch_size="1")) is None

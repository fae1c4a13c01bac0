"""What each card would give a job, in a sentence."""

from __future__ import annotations

from job.cards import CARDS, fits, training_seconds
from job.plan import make_plan
from tests.model_facts import GPT_OSS_20B, GPT_OSS_120B, LLAMA_8B, LLAMA_70B
from tests.test_plan import spec

H100 = next(gpu for gpu in CARDS if "H100" in gpu.name)


def test_every_card_says_what_it_gives_or_what_would_be_needed():
    told = dict(fits(spec(), *GPT_OSS_20B, longest=1129))
    assert list(told) == ["CPU", *(gpu.name for gpu in CARDS)]
    assert told["CPU"] == "no: JOB_DEVICE=cpu cannot train a mxfp4 checkpoint; take a 16-bit one"
    assert told["Tesla T4"] == "no: this job needs about 42 GiB"
    assert told["NVIDIA L4"] == "native, packed rows of 2,707 tokens, 21.4 GiB of 22"
    assert told["NVIDIA L40S"] == "native, packed rows of 14,820 tokens, 42.7 GiB of 45"
    assert told[H100.name] == "native, packed rows of 18,555 tokens, 74.8 GiB of 80"
    dense = dict(fits(spec(), *LLAMA_8B))
    assert dense["CPU"].startswith("16bit, micro-batch 1, ")
    assert dense["Tesla T4"].startswith("4bit, micro-batch 4, ")


def test_time_is_estimated_only_where_a_speed_was_measured():
    config, size = GPT_OSS_20B
    plan = make_plan(spec(), config, size, H100)
    assert training_seconds(plan, config, H100, 249_210) == 10.0
    b200 = next(gpu for gpu in CARDS if "B200" in gpu.name)
    assert training_seconds(plan, config, b200, 249_210) is None
    large = make_plan(spec(), *GPT_OSS_120B, H100)
    assert training_seconds(large, GPT_OSS_120B[0], H100, 64_230) == 10.0
    dense = make_plan(spec(), *LLAMA_8B, H100)
    assert training_seconds(dense, LLAMA_8B[0], H100, 79_830) == 10.0
    small = {**LLAMA_8B[0], "hidden_size": 960}
    assert training_seconds(dense, small, H100, 79_830) is None
    assert training_seconds(plan, LLAMA_70B[0], H100, 249_210) is None
    assert training_seconds(plan, config, None, 249_210) is None

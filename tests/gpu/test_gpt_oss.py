"""The job on a real GPU, on random weights of gpt-oss's shape. `make test-gpu`; never skips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.gptoss import Shape, write_checkpoint
from bench.gptoss_job import run_job
from job.credentials import Credentials
from job.receipt import verify_uri

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]

KEYS = {"max_steps": "20", "batch_size": "8", "max_seq_length": "2048", "sample_tokens": "16"}


@pytest.mark.parametrize("layout", ["mxfp4", "bf16"])
def test_gpt_oss_trains_merges_and_verifies(layout: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    write_checkpoint(model, Shape(layers=2), layout)
    last, receipt = run_job(tmp_path, model, prompts='["x^5 + 3x^4 - 10 = 3"]', **KEYS)
    assert last["exit_code"] == 0, last
    assert verify_uri(last["receipt"], Credentials())[1] == []
    training = receipt["training"]
    assert training["steps"] == 20
    assert training["loss_last"] < training["loss_first"]
    # r=8 on q, k, v, o and on both projections of 32 experts, in two layers.
    assert training["trainable_parameters"] == 92_454_912 * 2 // 24
    assert 4 * 2**30 < training["peak_memory_bytes"] < 20 * 2**30
    assert receipt["merge"]["merged_tensors"] == 2 * (4 + 2)  # attention and fused experts
    assert receipt["merge"]["largest_weight_error"] < 0.1
    assert receipt["plan"]["merge"]["value"] == ("peft" if layout == "mxfp4" else "unsloth")
    merged = Path(last["receipt"].removeprefix("file://")).parent / "merged"
    config = json.loads((merged / "config.json").read_text())
    assert "quantization_config" not in config

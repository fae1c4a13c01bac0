"""The packed path on a real GPU: kernels and attention against plain formulas. Never skips."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.gptoss import Shape, write_checkpoint
from job.train import attention, experts, load_mxfp4, mxfp4, probe
from job.train.gptoss import PackedGptOss
from job.train.packed import pack
from tests.train.gptoss import documents, gradients, one_by_one, small_model, worst
from tests.train.test_mxfp4 import spec

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


def test_the_grouped_product_passes_its_probe() -> None:
    assert experts.probe() < 0.005


@pytest.mark.parametrize(("rank", "heads", "kv"), [(3, 8, 2), (8, 64, 8), (12, 64, 8)])
def test_kernels_give_the_losses_and_gradients_of_transformers(
    rank: int, heads: int, kv: int
) -> None:
    model = small_model("cuda", rank, num_attention_heads=heads, num_key_value_heads=kv)
    docs = documents(5, 33, 170, 2, 64)
    row = pack(docs)
    wanted = one_by_one(model, docs, len(row.at))
    wanted_gradients = gradients(model)
    loss, losses = PackedGptOss(model).loss(row, len(row.at))
    loss.backward()
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-5)
    assert worst(gradients(model), wanted_gradients) < 1e-4


def test_flash_attention_with_sinks_is_the_plain_formula() -> None:
    assert attention.probe() < 0.005


def test_what_passes_its_probe_is_used_as_planned() -> None:
    plan = {"packing": 4096, "experts": "mxfp4", "expert_products": "grouped"}
    assert probe.checked(plan, pytest.fail) == plan


def test_mxfp4_is_dequantised_to_the_last_bit() -> None:
    assert mxfp4.probe()


def test_lean_and_one_by_one_give_the_same_gradients(tmp_path: Path) -> None:
    """In bfloat16, of two layers of the real width, so up to its rounding."""
    write_checkpoint(tmp_path / "model", Shape(layers=2, experts=40), "mxfp4")
    row, found = pack(documents(300, 700, 1, 2000)), []
    for lean, alone in ((False, False), (False, True), (True, False), (True, True)):
        model = load_mxfp4.load_model(spec(), tmp_path / "model", "cuda:0", lean=lean)
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.02)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss, _ = PackedGptOss(model, grouped=not alone).loss(row, len(row.at))
        loss.backward()
        peak = torch.cuda.max_memory_allocated() - before
        found.append((lean, float(loss), gradients(model), peak))
    (_, loss, wanted, most), *others = found
    for lean, other, those, peak in others:
        assert other == pytest.approx(loss, rel=1e-3)
        assert worst(those, wanted) < 0.05
        assert not lean or peak < most

"""The packed path on a real GPU: kernels and attention against plain formulas. Never skips."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch

from job.train import attention, experts, glue
from job.train.gptoss import PackedGptOss
from job.train.packed import pack
from tests.train.gptoss import documents, gradients, one_by_one, small_model, worst

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.float() - wanted).norm() / wanted.norm())


def test_the_grouped_product_passes_its_probe() -> None:
    experts.probe()


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


@pytest.mark.parametrize("window", [None, 128])
def test_flash_attention_with_sinks_is_the_plain_formula(window: int | None) -> None:
    torch.manual_seed(0)
    lengths = [1, 5, 130, 700, 1000]
    tokens = sum(lengths)
    starts = torch.tensor([0, *accumulate(lengths)], device="cuda", dtype=torch.int32)
    docs = attention.Documents(starts, max(lengths), None, None)

    def random(heads: int) -> torch.Tensor:
        return torch.randn(tokens, heads, 64, device="cuda").bfloat16()

    q, k, v, do = random(64), random(8), random(8), random(64)
    sinks = torch.randn(64, device="cuda").bfloat16()
    found = []
    for t in (torch.bfloat16, torch.float32):
        out, lse, state = attention.attend(q.to(t), k.to(t), v.to(t), docs, window)
        lse = glue.add_sink(out, lse, sinks)
        back = attention.attend_backward(
            do.to(t), q.to(t), k.to(t), v.to(t), out, lse, docs, window, state
        )
        found.append((out, lse, *back))
    for fast, exact in zip(*found, strict=True):
        assert relative(fast, exact) < 0.01

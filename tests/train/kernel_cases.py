"""Each kernel and each formula of `job.train.glue` against PyTorch's own gradients.

Run by `test_kernels.py` in a process of its own, in which Triton interprets its kernels on the CPU.
"""

from __future__ import annotations

import pytest
import torch

from job.train import glue, kernels
from job.train.experts import make_route

T, H, INNER, EXPERTS, RANK, TOP = 37, 48, 40, 5, 3, 2


@pytest.fixture
def route() -> glue.Route:
    """Routing in which expert 3 gets no token."""
    torch.manual_seed(0)
    logits = torch.randn(T, EXPERTS)
    logits[:, 3] = -99.0
    return make_route(logits, TOP)


def test_the_norm_and_its_gradient() -> None:
    x, weight, residual = torch.randn(T, H), torch.randn(H), torch.randn(T, H)
    x.requires_grad_()
    y = torch.nn.functional.rms_norm(x, (H,), weight, 1e-5)
    dy = torch.randn(T, H)
    y.backward(dy)
    for form in (glue, kernels):
        torch.testing.assert_close(form.rms_norm(x.detach(), weight, 1e-5), y.detach())
        dx = form.rms_norm_backward(dy, x.detach(), weight, 1e-5, residual)
        torch.testing.assert_close(dx, x.grad + residual, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_come_back_to_their_tokens(route: glue.Route, weighted: bool) -> None:
    rows, first, second = torch.randn(T * TOP, H), torch.randn(T, H), torch.randn(T, H)
    scale = route.weight[:, None] if weighted else 1.0
    wanted = (first + second).index_add(0, route.token.long(), rows * scale)
    weights = route.weights if weighted else None
    for form in (glue, kernels):
        found = form.combine(rows, route.inverse, weights, first, second)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_rotating_back_undoes_rotating() -> None:
    angle = torch.randn(T, 8)
    for form in (glue, kernels):
        x = torch.randn(T, 4, 16)
        turned = x.clone()
        form.rotate(turned, angle.cos(), angle.sin(), 1.0)
        a, b = x.chunk(2, -1)
        torch.testing.assert_close(
            turned[..., :8], a * angle.cos()[:, None] - b * angle.sin()[:, None]
        )
        form.rotate(turned, angle.cos(), angle.sin(), -1.0)
        torch.testing.assert_close(turned, x)


def test_a_sink_takes_its_share() -> None:
    scores, value, sinks = torch.randn(4, T, 6), torch.randn(4, 6, 16), torch.randn(4)
    whole = torch.cat((scores, sinks[:, None, None].expand(-1, T, 1)), -1)
    wanted = (whole.softmax(-1)[..., :-1] @ value).transpose(0, 1)
    for form in (glue, kernels):
        out = (scores.softmax(-1) @ value).transpose(0, 1).contiguous()
        lse = form.add_sink(out, scores.logsumexp(-1), sinks)
        torch.testing.assert_close(out, wanted)
        torch.testing.assert_close(lse, whole.logsumexp(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gate_and_its_gradients(route: glue.Route, dtype: torch.dtype) -> None:
    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (torch.randn(*shape) * scale).to(dtype)

    rows, exact = T * TOP, dtype == torch.float32
    gu, xa = random(rows, 2 * INNER, scale=5.0), random(T, EXPERTS * RANK)
    bias, b1 = random(EXPERTS, 2 * INNER), random(EXPERTS, RANK, 2 * INNER)
    dh, da, a2 = random(rows, INNER), random(T, EXPERTS * RANK), random(EXPERTS, RANK, INNER)
    mine = gu.float().requires_grad_()
    weight = route.weight.clone().requires_grad_()
    h = glue.gate(mine, xa.float(), route, bias.float(), b1.float())
    own_da = da.view(T, EXPERTS, RANK)[route.token.long(), route.expert].float()
    down = dh.float() + torch.einsum("nr,nri->ni", own_da, a2[route.expert].float())
    (h * weight[:, None] * down).sum().backward()
    close = {"rtol": 1e-4, "atol": 1e-4} if exact else {"rtol": 0.02, "atol": 0.1}
    for form in (glue, kernels):
        torch.testing.assert_close(form.gate(gu, xa, route, bias, b1).float(), h.detach(), **close)
        again, dgu, dweight = form.gate_backward(gu, xa, route, bias, b1, dh, da, a2)
        torch.testing.assert_close(again.float(), h.detach(), **close)
        torch.testing.assert_close(dgu.float(), mine.grad, **close)
        torch.testing.assert_close(dweight, weight.grad, rtol=1e-3, atol=1e-2)


def test_the_loss_leaves_its_gradient_in_the_logits() -> None:
    logits, target = 3 * torch.randn(9, 5000), torch.randint(0, 5000, (9,))
    mine = logits.clone().requires_grad_()
    losses = torch.nn.functional.cross_entropy(mine, target, reduction="none")
    losses.sum().backward()
    for form in (glue, kernels):
        work = logits.clone()
        torch.testing.assert_close(form.cross_entropy(work, target, 0.1), losses.detach())
        torch.testing.assert_close(work, 0.1 * mine.grad, rtol=1e-4, atol=1e-7)

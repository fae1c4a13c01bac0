"""The expert block's routing, grouped product and adapter factors."""

from __future__ import annotations

import pytest
import torch

from job.train import glue
from job.train.experts import factors, looped, make_route
from tests.train.gptoss import small_model

T, H, INNER, EXPERTS, TOP = 37, 48, 40, 5, 2


@pytest.fixture
def route() -> glue.Route:
    """Routing in which expert 3 gets no token."""
    torch.manual_seed(0)
    logits = torch.randn(T, EXPERTS)
    logits[:, 3] = -99.0
    return make_route(logits, TOP)


def test_rows_are_sorted_by_expert_and_find_their_token(route: glue.Route) -> None:
    assert route.expert.tolist() == sorted(route.expert.tolist())
    sizes = route.ends.diff(prepend=torch.zeros(1, dtype=torch.int32)).tolist()
    assert sizes == [int((route.experts == e).sum()) for e in range(EXPERTS)]
    assert sizes[3] == 0
    for token in range(T):
        for k in range(TOP):
            row = route.inverse[token, k]
            assert route.token[row] == token
            assert route.expert[row] == route.experts[token, k]
            assert route.weight[row] == route.weights[token, k]


def test_the_grouped_product_is_each_experts_own(route: glue.Route) -> None:
    x, weight = torch.randn(T * TOP, H), torch.randn(EXPERTS, H, INNER)
    wanted = torch.stack([row @ weight[e] for row, e in zip(x, route.expert, strict=True)])
    torch.testing.assert_close(looped(x, weight, route.ends), wanted)


def test_factors_are_pefts_delta() -> None:
    wrapper = small_model().get_base_model().model.layers[0].mlp.experts
    a, b = (getattr(wrapper, f"lora_{n}")["default"].weight for n in "AB")
    first, second = factors(a, b, 8, wrapper.scaling["default"], torch.float32)
    delta = first.transpose(1, 2) @ second  # (experts, in, out)
    torch.testing.assert_close(delta, wrapper.get_delta_weight("default"))

"""When merged weights count as faithful to base + adapter: the decision, on small tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from job.errors import InternalError
from job.train.verify import agreement, compare, require_finite_and_changed, round_to


def logits(seed: int) -> Any:
    return torch.randn(8, 50, generator=torch.Generator().manual_seed(seed))


BASE = logits(1)
TUNED = BASE + 0.3 * logits(2)


def test_rounding_passes_and_its_size_is_reported() -> None:
    report = compare(BASE, TUNED, TUNED + 0.005 * logits(3), noise=0.0)
    assert 0.003 < report["relative_error"] < 0.007
    assert report["tolerance"] == 0.02
    assert report["relative_change_by_training"] > 0.2


def test_a_merge_that_lost_a_part_of_the_training_fails() -> None:
    with pytest.raises(InternalError, match="do not reproduce"):
        compare(BASE, TUNED, BASE + 0.24 * logits(2), noise=0.0)


def test_arithmetic_noise_of_the_model_itself_is_allowed_for() -> None:
    report = compare(BASE, TUNED, TUNED + 0.06 * logits(3), noise=0.05)
    assert report["tolerance"] == 0.1


def test_what_sixteen_bits_cannot_hold_is_rounded_and_still_computed_in_float32() -> None:
    layer = torch.nn.Linear(50, 50)
    exact = layer.weight.detach().clone()
    round_to(layer, torch.bfloat16)
    assert layer.weight.dtype == torch.float32
    assert torch.equal(layer.weight, exact.bfloat16().float())
    assert not torch.equal(layer.weight, exact)


def test_a_merge_that_kept_the_base_fails_even_where_training_changed_little() -> None:
    tuned = BASE + 0.001 * logits(2)
    with pytest.raises(InternalError, match="as near to the base"):
        compare(BASE, tuned, BASE, noise=0.0)


def test_values_that_are_not_finite_fail() -> None:
    broken = TUNED.clone()
    broken[0, 0] = float("nan")
    with pytest.raises(InternalError, match="not finite"):
        compare(BASE, TUNED, broken, noise=0.0)
    with pytest.raises(InternalError, match="not finite"):
        require_finite_and_changed(BASE, broken)


def test_an_adapter_that_changes_nothing_fails() -> None:
    with pytest.raises(InternalError, match="changes nothing"):
        require_finite_and_changed(BASE, BASE)


def test_greedy_agreement_counts_prompts() -> None:
    assert agreement([[1, 2], [3]], [[1, 2], [4]]) == {"same": 1, "of": 2, "tokens": 32}

"""What a GPU computes wrongly is not used, and said."""

from __future__ import annotations

import pytest

from job.errors import InternalError
from job.train import attention, experts, mxfp4, probe

PLAN = {"packing": 4096, "experts": "mxfp4", "expert_products": "grouped"}
WRONG = [0.02, float("nan"), float("inf")]


@pytest.fixture(autouse=True)
def right(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is right; there is none here."""
    monkeypatch.setattr(attention, "probe", lambda: 0.003)
    monkeypatch.setattr(mxfp4, "probe", lambda: True)
    monkeypatch.setattr(experts, "probe", lambda: 0.004)


def test_a_plan_whose_paths_are_right_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe.checked(PLAN, pytest.fail) == PLAN


@pytest.mark.parametrize("error", WRONG)
def test_a_wrong_grouped_product_gives_way_to_one_product_an_expert(
    monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    monkeypatch.setattr(experts, "probe", lambda: error)
    told: list[str] = []
    assert probe.checked(PLAN, told.append) == PLAN | {"expert_products": "loop"}
    assert "one product an expert is used instead" in told[0]
    loop = PLAN | {"expert_products": "loop"}
    assert probe.checked(loop, pytest.fail) == loop  # what is not used is not probed


@pytest.mark.parametrize("error", WRONG)
def test_wrong_attention_ends_the_run(monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    monkeypatch.setattr(attention, "probe", lambda: error)
    with pytest.raises(InternalError, match=r"attention is wrong .* JOB_PACKING=false"):
        probe.checked(PLAN, pytest.fail)


def test_wrong_dequantisation_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mxfp4, "probe", lambda: False)
    with pytest.raises(InternalError, match="MXFP4 is dequantised wrongly"):
        probe.checked(PLAN, pytest.fail)
    dense = PLAN | {"experts": "16bit"}
    assert probe.checked(dense, pytest.fail) == dense

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.data.choose.mix import Mix, make_mix
from job.errors import DataError

ROOT = Path(__file__).parents[2]


def mix(*sizes, weights=None, share=None, seed=3407) -> Mix:
    """Sources "a", "b", … with so many (plain, reasoning) rows."""
    source, reasoning = [], []
    for index, (plain, thought) in enumerate(sizes):
        source += [index] * (plain + thought)
        reasoning += [False] * plain + [True] * thought
    return make_mix(
        "abcdefgh"[: len(sizes)],
        np.array(source),
        np.array(reasoning),
        np.arange(len(source)),
        weights or [None] * len(sizes),
        share,
        seed,
    )


def taken(found: Mix, rows: int) -> dict[tuple[str, str], int]:
    """Rows of each stratum among the first `rows`, by the label of the stratum."""
    order = found.order(rows)
    return {s.label: int(np.isin(order, s.rows).sum()) for s in found.strata}


def test_without_wishes_an_epoch_is_every_row_once():
    found = mix((5, 3), (4, 0))
    assert found.rows_an_epoch == 12
    order = found.order(36)
    for epoch in (order[:12], order[12:24], order[24:]):
        assert sorted(epoch) == list(range(12))
    assert list(order[:12]) != list(order[12:24]) != list(range(12))


def test_the_order_is_the_same_everywhere():
    # Who changes these changes the order of every run that goes on with another version.
    assert mix((6, 0)).order(12).tolist() == [3, 2, 1, 4, 5, 0, 3, 0, 4, 2, 5, 1]
    assert mix((6, 2), (0, 8), share=0.75).order(13).tolist() == [
        *(3, 12, 8, 7, 10, 11, 6, 2, 9, 13, 1, 15, 14)
    ]


def test_the_order_does_not_depend_on_the_process():
    code = (
        "import numpy as np\n"
        "from job.data.choose.mix import make_mix\n"
        "kinds = np.arange(40) % 3 > 0\n"
        "mix = make_mix(['a', 'b'], np.arange(40) // 25, kinds, np.arange(40), [2, 1], 0.6, 7)\n"
        "print(mix.order(100).tolist())\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(printed) == 1
    assert len(printed.pop()) > 100


def test_another_seed_is_another_order():
    assert list(mix((50, 0), seed=1).order(50)) != list(mix((50, 0), seed=2).order(50))


def test_weights_are_shares_of_rows():
    found = mix((100, 0), (30, 0), weights=[3, 1])
    assert found.rows_an_epoch == 120
    assert taken(found, 120) == {"a plain": 90, "b plain": 30}


def test_a_weighted_source_keeps_its_own_kinds_as_they_are():
    found = mix((60, 20), (40, 0), weights=[1, 1])
    assert taken(found, found.rows_an_epoch) == {"a plain": 30, "a reasoning": 10, "b plain": 40}


def test_a_reasoning_share_takes_all_reasoning_rows_and_as_many_plain_ones_as_fit():
    found = mix((1000, 60), (0, 90), share=0.75)
    assert taken(found, found.rows_an_epoch) == {
        "a plain": 50,
        "a reasoning": 60,
        "b reasoning": 90,
    }
    assert mix((0, 5), (9, 0), share=1).rows_an_epoch == 5
    assert mix((0, 5), (9, 0), share=0).rows_an_epoch == 9
    assert mix((30, 70), share=0.7).rows_an_epoch == 100  # also where a float is not 0.7


def test_weights_and_a_reasoning_share_are_both_met():
    found = mix((400, 400), (400, 400), (300, 0), weights=[2, 1, 1], share=0.5)
    counts = taken(found, found.rows_an_epoch)
    rows = found.rows_an_epoch
    assert counts["a plain"] + counts["a reasoning"] == pytest.approx(rows / 2, abs=1)
    assert counts["b plain"] + counts["b reasoning"] == pytest.approx(rows / 4, abs=1)
    assert counts["a reasoning"] + counts["b reasoning"] == pytest.approx(rows / 2, abs=1)
    assert counts["a reasoning"] / counts["a plain"] == pytest.approx(
        counts["b reasoning"] / counts["b plain"], rel=0.05
    )


def test_sources_of_one_kind_each_meet_weights_that_agree_with_the_share():
    found = mix((0, 300), (100, 0), weights=[0.75, 0.25], share=0.75)
    assert taken(found, 400) == {"a reasoning": 300, "b plain": 100}


@pytest.mark.parametrize(
    ("sizes", "weights", "share", "message"),
    [
        ([(9, 0)], None, 0.75, "there are 0 reasoning rows and 9 plain rows"),
        ([(0, 9)], None, 0.75, "there are 9 reasoning rows and 0 plain rows"),
        ([(9, 0), (0, 9)], [1, 1], 0.75, "with these weights 50 % to 50 % of the rows"),
        ([(9, 9), (9, 0)], [1, 1], 0.75, "with these weights 0 % to 50 % of the rows"),
        ([(9, 0), (0, 0)], [1, 1], None, "b has a weight in the mix, and none of its rows"),
    ],
)
def test_a_share_that_cannot_be_met_names_what_is_there(sizes, weights, share, message):
    with pytest.raises(DataError, match=message):
        mix(*sizes, weights=weights, share=share)


def test_a_longer_run_draws_new_rows_of_a_large_source_before_any_comes_twice():
    found = mix((0, 20), (100, 0), weights=[1, 1])
    assert found.rows_an_epoch == 40
    order = found.order(200)
    assert Counter(Counter(order[order >= 20]).values()) == {1: 100}
    assert Counter(Counter(order[order < 20]).values()) == {5: 20}


def test_every_stretch_of_the_order_holds_about_the_mix_of_the_whole():
    order = mix((2000, 6000), share=0.75).order(8000)
    reasoning = (order >= 2000).reshape(-1, 16).sum(axis=1)  # in each batch of 16
    assert reasoning.mean() == 12
    assert reasoning.min() >= 9
    assert reasoning.max() <= 15


def test_only_the_rows_that_may_be_trained_are_drawn():
    rows = np.array([1, 3, 5, 8])
    found = make_mix(["a"], np.zeros(10, int), np.zeros(10, bool), rows, [None], None, 1)
    assert sorted(found.order(4)) == [1, 3, 5, 8]


SIZES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).filter(sum), min_size=1, max_size=4
)


@st.composite
def mixes(draw):
    """Any mix that can be met, with what was asked."""
    sizes = draw(SIZES)
    weight = st.floats(0.05, 20)
    weights = draw(st.none() | st.lists(weight, min_size=len(sizes), max_size=len(sizes)))
    both = any(plain for plain, _ in sizes) and any(thought for _, thought in sizes)
    share = draw(st.none() | st.floats(0.01, 0.99)) if both else None
    try:
        return sizes, weights, share, mix(*sizes, weights=weights, share=share)
    except DataError:
        assert weights is not None
        assert share is not None  # the only two that can exclude each other here
        return sizes, weights, None, mix(*sizes, weights=weights)


@given(mixes())
def test_an_epoch_has_the_asked_shares_within_a_row_and_no_row_twice(made):
    sizes, weights, share, found = made
    rows = found.rows_an_epoch
    order = found.order(rows)
    assert len(set(order.tolist())) == rows >= 1
    source = np.repeat(np.arange(len(sizes)), [sum(size) for size in sizes])
    kinds = np.concatenate([np.repeat([0, 1], size) for size in sizes])
    slack = len(found.strata)  # each stratum is rounded by less than one row
    for index, weight in enumerate(weights or []):
        wanted = rows * weight / sum(weights)
        assert abs((source[order] == index).sum() - wanted) < 2
    if share is not None:
        assert abs(kinds[order].sum() - rows * share) < slack
    if weights is None and share is None:
        assert rows == sum(map(sum, sizes))
    for stratum in found.strata:
        assert abs(stratum.count - rows * stratum.share) < 1
        assert np.isin(order, stratum.rows).sum() == stratum.count
    assert sum(stratum.share for stratum in found.strata) == 1


@given(mixes())
def test_an_epoch_is_the_largest_one(made):
    found = made[-1]
    rows = found.rows_an_epoch + 1
    assert any(rows * stratum.share > len(stratum.rows) for stratum in found.strata)


@given(mixes(), st.integers(0, 300), st.integers(0, 300))
def test_asking_for_more_rows_gives_the_same_beginning(made, fewer, more):
    fewer, more = sorted((fewer, more))
    found = made[-1]
    assert list(found.order(more)[:fewer]) == list(found.order(fewer))


@given(mixes(), st.integers(1, 5))
def test_a_stratum_starts_over_only_when_all_its_rows_were_taken(made, epochs):
    found = made[-1]
    times = Counter(found.order(epochs * found.rows_an_epoch).tolist())
    for stratum in found.strata:
        drawn = [times[row] for row in stratum.rows.tolist()]
        assert max(drawn) - min(drawn) <= 1

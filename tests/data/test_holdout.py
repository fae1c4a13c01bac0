from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.data.choose.holdout import by_sameness, hold_out, same_as
from job.errors import DataError
from tests.data.pools import digests, facts


def held(names, fraction, seed=3407):
    """The names of what is held out."""
    mask = hold_out(digests(names), fraction, seed)
    return {name for name, out in zip(names, mask, strict=True) if out}


def test_the_held_out_share_is_seeded():
    names = list(range(400))
    assert len(held(names, 0.25)) == 100
    assert held(names, 0.25, seed=1) != held(names, 0.25, seed=2)
    assert len(held(names, 0.25, seed=1) & held(names, 0.25, seed=2)) == pytest.approx(25, abs=15)


def test_what_is_held_out_is_the_same_everywhere():
    # Who changes this changes what runs that go on with another version train on.
    assert sorted(held(list(range(20)), 0.2)) == [10, 11, 13, 14]


def test_a_small_share_still_holds_one_out_and_a_large_one_leaves_one():
    assert len(held(list(range(5)), 0.01)) == 1
    assert len(held(["a", "b"], 0.5)) == 1
    assert len(held(["a", "b", "b", "b"], 0.99)) == 1


def test_rows_of_one_conversation_cannot_be_split():
    with pytest.raises(DataError, match="at least two different rows to split: all 4 begin"):
        hold_out(digests(["a"] * 4), 0.5, 1)


def test_one_huge_conversation_is_not_held_out_for_a_small_share():
    names = ["huge"] * 500 + list(range(500))
    for seed in range(20):
        out = held(names, 0.1, seed)
        assert "huge" not in out
        assert len(out) == 100


NAMES = st.lists(st.integers(0, 30), min_size=2, max_size=120).filter(lambda n: len(set(n)) > 1)


@given(NAMES, st.floats(0.01, 0.5), st.integers(0, 2**32 - 1), st.randoms())
def test_whole_conversations_are_held_out_whatever_the_order_of_the_rows(
    names, fraction, seed, random
):
    mask = hold_out(digests(names), fraction, seed)
    out = {name for name, taken in zip(names, mask, strict=True) if taken}
    left = {name for name, taken in zip(names, mask, strict=True) if not taken}
    assert out
    assert left
    assert not out & left
    shuffled = random.sample(names, len(names))
    assert held(shuffled, fraction, seed) == out


@given(st.integers(20, 300), st.floats(0.05, 0.5), st.integers(0, 2**32 - 1))
def test_the_share_is_met_within_a_row_where_no_two_are_of_one_conversation(rows, fraction, seed):
    assert abs(len(held(list(range(rows)), fraction, seed)) - fraction * rows) <= 1


def test_training_rows_that_are_evaluated_are_counted_by_what_they_share():
    train = facts(
        5,
        exact=["a", "b", "c", "d", "e"],
        normalized=["A", "B", "C", "D", "E"],
        conversation=["1", "2", "3", "4", "5"],
    )
    evaluated = facts(
        3, exact=["a", "x", "y"], normalized=["A", "B", "Y"], conversation=["1", "2", "3"]
    )
    same = same_as(train, evaluated)
    assert same.tolist() == [0, 1, 2, -1, -1]
    assert by_sameness(same) == {"exact": 1, "normalized": 1, "conversation": 1}


def test_digests_are_compared_to_their_last_byte():
    train = facts(3)
    train.exact[:] = np.array([b"\0" * 16, b"a" + b"\0" * 15, b"\0" * 15 + b"a"], dtype="V16")
    evaluated = facts(1)
    evaluated.exact[:] = np.array([b"\0" * 16], dtype="V16")
    assert same_as(train, evaluated).tolist() == [0, -1, -1]


def test_nothing_is_the_same_as_a_row_of_no_evaluation_rows():
    assert same_as(facts(3), facts(0)).tolist() == [-1] * 3

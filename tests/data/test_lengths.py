from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.data.mask.encode import IGNORED, Encoded
from job.data.pools.lengths import (
    Lost,
    check_lost,
    fit_row,
    histogram,
    percentiles,
    truncate,
    unstopped,
)
from job.errors import DataError
from tests.data.examples import assistant, options, row, user

QUESTION, ANSWER, STOP = 1, 2, 3


def encoded(*tokens):
    """An example of these tokens, in which answers and their stops are trained."""
    return Encoded(
        row=row(user("Hi"), assistant("Hello")),
        turn=0,
        input_ids=list(tokens),
        labels=[token if token in (ANSWER, STOP) else IGNORED for token in tokens],
        stops=[index for index, token in enumerate(tokens) if token == STOP],
        dropped_thinking=0,
        escaped=0,
        folded=False,
        reasoning=False,
    )


Q, A, S = [QUESTION], [ANSWER], [STOP]
TWO_TURNS = [*Q * 4, *A * 3, *S, *Q * 4, *A * 3, *S]


def test_what_fits_is_left_alone():
    example = encoded(*TWO_TURNS)
    assert fit_row(example, options(max_seq_length=16)) is example


def test_what_is_too_long_is_lost_unless_it_is_to_be_cut():
    example = encoded(*TWO_TURNS)
    assert fit_row(example, options(max_seq_length=15)) == "overlength"
    assert fit_row(example, options(max_seq_length=15, overlength="error")) == "overlength"


def test_a_row_without_a_trained_token_is_lost_whether_it_fits_or_not():
    for limit, overlength in ((4, "drop"), (8, "drop"), (4, "truncate")):
        chosen = options(max_seq_length=limit, overlength=overlength)
        fitting = fit_row(encoded(*Q * 4), chosen)
        assert fitting == "no_trained_token"
    # Nothing predicts the first token, so it does not count.
    assert fit_row(encoded(*A, *Q * 3), options()) == "no_trained_token"


def test_cutting_takes_the_end_and_the_stop_tokens_there():
    whole = encoded(*TWO_TURNS)
    cut = truncate(whole, 14)
    assert cut.input_ids == TWO_TURNS[:14]
    assert cut.labels == whole.labels[:14]
    assert cut.stops == [7]
    assert unstopped(whole, cut)


@pytest.mark.parametrize("limit", [8, 9, 12])
def test_a_question_whose_answer_was_cut_away_goes_with_it(limit):
    whole = encoded(*TWO_TURNS)
    cut = truncate(whole, limit)
    assert cut.input_ids == TWO_TURNS[:8]
    assert cut.stops == [7]
    assert not unstopped(whole, cut)


def test_a_row_whose_first_answer_begins_after_the_limit_is_lost():
    example = encoded(*TWO_TURNS)
    chosen = {"overlength": "truncate"}
    assert fit_row(example, options(max_seq_length=4, **chosen)) == "cut_before_the_answer"
    assert fit_row(example, options(max_seq_length=5, **chosen)).input_ids == TWO_TURNS[:5]


@given(st.lists(st.sampled_from([QUESTION, ANSWER, STOP]), min_size=1), st.integers(1, 60))
def test_a_cut_row_is_a_beginning_that_ends_in_a_trained_token(tokens, limit):
    whole = encoded(*tokens)
    fitting = fit_row(whole, options(max_seq_length=limit, overlength="truncate"))
    if isinstance(fitting, str):
        assert not any(label != IGNORED for label in whole.labels[1:limit])
        return
    end = len(fitting.input_ids)
    assert end <= limit
    assert fitting.trained > 0
    assert fitting.input_ids == tokens[:end]
    assert fitting.labels == whole.labels[:end]
    assert fitting.stops == [stop for stop in whole.stops if stop < end]
    if len(tokens) > limit:
        assert fitting.labels[-1] != IGNORED
        assert not any(label != IGNORED for label in whole.labels[end:limit])


def lost(rows, source="a", **dropped):
    """What became of so many rows; `dropped`: reason -> the lengths of those that are lost."""
    found = Lost()
    for _ in range(rows - sum(map(len, dropped.values()))):
        found.see(10)
    for reason, lengths in dropped.items():
        for number, tokens in enumerate(lengths, 1):
            found.see(tokens)
            found.drop(reason, row(user("x"), assistant("y"), number=number, source=source), tokens)
    return found


def test_the_longest_twenty_lost_rows_are_remembered_and_all_are_counted():
    found = lost(100, overlength=[5000 + n for n in range(30)])
    assert found.dropped == {"overlength": 30}
    assert [entry["tokens"] for entry in found.worst["overlength"]] == list(range(5029, 5009, -1))
    assert found.worst["overlength"][0] == {"source": "a", "row": 30, "tokens": 5029}
    assert found.longest == 5029
    assert sorted(found.tokens()) == [5000 + n for n in range(30)]


def test_what_several_pools_lost_adds_up():
    total = lost(10, overlength=[70, 90])
    total.add(lost(20, source="b", overlength=[80], no_trained_token=[5]))
    assert total.rows == 30
    assert total.dropped == {"overlength": 3, "no_trained_token": 1}
    worst = [(entry["source"], entry["tokens"]) for entry in total.worst["overlength"]]
    assert worst == [("a", 90), ("b", 80), ("a", 70)]
    assert sorted(total.tokens()) == [5, 70, 80, 90]


def test_what_was_lost_is_remembered_under_the_name_that_the_source_has_now():
    found = lost(10, overlength=[70, 90])
    again = Lost.from_dict(json.loads(json.dumps(found.to_dict())), "renamed")
    assert again.worst["overlength"][0] == {"source": "renamed", "row": 2, "tokens": 90}
    assert (again.rows, again.dropped, again.lengths) == (10, found.dropped, found.lengths)


def test_losses_within_max_dropped_are_allowed_over_all_pools_together():
    check_lost([lost(10, overlength=[5000]), lost(10)], options(), "The training data")
    with pytest.raises(DataError, match=r"JOB_MAX_DROPPED=0.05 allows 0") as caught:
        check_lost([lost(10, overlength=[5000])], options(), "The training data")
    assert caught.value.message.startswith(
        "The training data: 1 of 10 rows would be lost (1 overlength; the limit is 4096 tokens, "
        "the longest row has 5000)"
    )
    assert caught.value.problems == ["a, row 1: 5000 tokens, overlength"]


def test_overlength_error_allows_no_long_row_but_rows_lost_for_other_reasons():
    chosen = options(overlength="error")
    with pytest.raises(DataError, match="JOB_OVERLENGTH=error allows none"):
        check_lost([lost(100, overlength=[5000])], chosen, "The training data")
    check_lost([lost(100, no_trained_token=[50])], chosen, "The training data")


def test_losing_every_row_is_an_error_whatever_is_allowed():
    with pytest.raises(DataError, match="2 of 2 rows would be lost"):
        check_lost([lost(2, overlength=[5000, 6000])], options(max_dropped=1), "The data")


def test_at_most_twenty_lost_rows_are_listed():
    many = lost(100, overlength=[5000] * 15, no_trained_token=[40] * 15)
    with pytest.raises(DataError, match="30 of 100") as caught:
        check_lost([many], options(), "The training data")
    assert len(caught.value.problems) == 20


def test_percentiles_are_lengths_that_occur():
    assert percentiles(np.arange(1, 101)) == {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    assert percentiles(np.array([7])) == {"p50": 7, "p90": 7, "p99": 7, "max": 7}


def test_the_histogram_counts_every_row_once_with_bounds_included():
    assert histogram(np.array([65, 128, 129, 300])) == [
        {"from": 65, "to": 128, "rows": 2},
        {"from": 129, "to": 256, "rows": 1},
        {"from": 257, "to": 300, "rows": 1},
    ]


@given(st.lists(st.integers(1, 200_000), min_size=1))
def test_the_histogram_loses_no_row(lengths):
    bins = histogram(np.array(lengths, np.int32))
    for one in bins:
        assert one["rows"] == sum(one["from"] <= tokens <= one["to"] for tokens in lengths)
    assert sum(one["rows"] for one in bins) == len(lengths)
    assert bins[0]["rows"] > 0
    assert bins[-1]["to"] == max(lengths)

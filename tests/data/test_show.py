from __future__ import annotations

import numpy as np
import pytest

from job.data.choose.show import sample_rows
from job.data.mask.encode import IGNORED
from tests.data.pools import pool, store


@pytest.fixture
def shown(tmp_path, smollm2):
    """Sample rows of pools in which row n of a source has n + 1 sentences."""

    def show(*sizes, count, order=None):
        pools = []
        for label, size in zip("abcd", sizes, strict=False):
            examples = [example(smollm2, f"{label}{n}." * (n + 1)) for n in range(size)]
            tokens = [len(ids) for ids, _ in examples]
            trained = [sum(label != IGNORED for label in labels) for _, labels in examples]
            made = pool(label, size, tokens=tokens, trained=trained)
            pools.append(store(tmp_path, made, examples))
        return sample_rows(
            pools, np.arange(sum(sizes)) if order is None else np.array(order), smollm2, count
        )

    return show


def example(tokenizer, answer):
    """A question that is masked and an answer that is trained, with its stop token."""
    ids = tokenizer("<|im_start|>user\nSay é🙂<|im_end|>\n").input_ids
    trained = tokenizer(f"{answer}<|im_end|>").input_ids
    return ids + trained, [IGNORED] * len(ids) + trained


def places(rows):
    return [f"{row['source']}{row['row']}" for row in rows]


def test_pieces_are_the_text_of_trained_and_of_masked_tokens(shown):
    row = shown(1, count=1)[0]
    assert row["pieces"] == [
        ["<|im_start|>user\nSay é🙂<|im_end|>\n", False],
        ["a0.<|im_end|>", True],
    ]
    assert (row["source"], row["row"]) == ("a", 1)
    assert 0 < row["trained_tokens"] < row["tokens"]


def test_a_short_row_comes_first_then_a_long_one_then_one_between(shown):
    assert places(shown(9, count=1)) == ["a1"]
    assert places(shown(9, count=2)) == ["a1", "a9"]
    assert places(shown(9, count=3)) == ["a1", "a9", "a5"]


def test_every_source_has_its_turn_before_one_has_a_second(shown):
    assert places(shown(9, 7, 5, count=3)) == ["a1", "b7", "c1"]
    assert places(shown(9, 7, count=4)) == ["a1", "b7", "a9", "b1"]


def test_no_row_comes_twice_and_only_rows_that_are_trained(shown):
    assert places(shown(2, 1, count=9)) == ["a1", "b1", "a2"]
    assert places(shown(5, 5, count=9, order=[3, 1, 1, 3, 7])) == ["a2", "b3", "a4"]

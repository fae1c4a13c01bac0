from __future__ import annotations

import pytest

from job.data.build import build
from job.data.encode import IGNORED
from job.errors import DataError
from tests.data.examples import assistant, options, row, user


def numbered(count, answer="Answer", source="rows.jsonl"):
    return [
        row(user(f"Question {n}"), assistant(f"{answer} {n}"), number=n + 1, source=source)
        for n in range(count)
    ]


def texts(tokenizer, examples):
    return {tokenizer.decode(example["input_ids"]) for example in examples}


def test_examples_are_ids_and_labels_in_the_order_of_the_rows(smollm2):
    built = build(numbered(3), [], 0, 3407, smollm2, options())
    assert [sorted(example) for example in built.train] == [["input_ids", "labels"]] * 3
    assert [
        smollm2.decode([i for i in example["labels"] if i != IGNORED]) for example in built.train
    ] == [f"Answer {n}<|im_end|>" for n in range(3)]
    assert built.eval == []


def test_the_held_out_share_is_seeded_and_does_not_depend_on_the_order(smollm2):
    rows = numbered(40)
    first = build(rows, [], 0.25, 1, smollm2, options())
    assert (len(first.train), len(first.eval)) == (30, 10)
    again = build(rows[::-1], [], 0.25, 1, smollm2, options())
    other = build(rows, [], 0.25, 2, smollm2, options())
    assert texts(smollm2, again.eval) == texts(smollm2, first.eval)
    assert texts(smollm2, other.eval) != texts(smollm2, first.eval)


def test_equal_rows_never_stand_on_both_sides(smollm2):
    rows = numbered(10) + numbered(10) + numbered(10)
    built = build(rows, [], 0.3, 3407, smollm2, options())
    assert len(built.eval) == 9
    assert not texts(smollm2, built.train) & texts(smollm2, built.eval)
    assert built.audit["duplicates"] == 20


def test_a_small_share_still_holds_one_row_out_and_leaves_one(smollm2):
    assert len(build(numbered(5), [], 0.01, 1, smollm2, options()).eval) == 1
    assert len(build(numbered(2), [], 0.99, 1, smollm2, options()).train) == 1
    with pytest.raises(DataError, match="at least two different rows"):
        build(numbered(1) * 4, [], 0.5, 1, smollm2, options())


def test_training_rows_that_are_evaluation_rows_are_left_out_and_counted(smollm2):
    built = build(numbered(10), numbered(2), 0, 1, smollm2, options())
    assert (len(built.train), len(built.eval)) == (8, 2)
    assert built.audit["dropped"] == {"also_in_evaluation": 2}
    with pytest.raises(DataError, match="No training row is left"):
        build(numbered(2), numbered(2), 0, 1, smollm2, options())


def test_the_audit_adds_up(smollm2):
    rows = numbered(30, source="a") + numbered(10, "Reply", source="b")
    rows.append(row(user("x"), assistant("long " * 200), number=11, source="b"))
    built = build(rows, [], 0.1, 1, smollm2, options(max_seq_length=128))
    audit = built.audit
    assert audit["train"]["rows"] + audit["eval"]["rows"] == 40
    assert audit["train"]["tokens"] == sum(len(e["input_ids"]) for e in built.train)
    assert audit["train"]["trained_tokens"] == sum(
        label != IGNORED for e in built.train for label in e["labels"]
    )
    assert [s["source"] for s in audit["sources"]] == ["a", "b"]
    for key in ("rows", "tokens", "trained_tokens"):
        assert sum(s[key] for s in audit["sources"]) == audit["train"][key]
    assert audit["dropped"] == {"overlength": 1}
    assert audit["worst_rows"]["overlength"][0] | {"tokens": 0} == {
        "source": "b",
        "row": 11,
        "tokens": 0,
    }
    assert sum(bin_["rows"] for bin_ in audit["lengths"]) == 41
    assert audit["percentiles"]["p50"] <= audit["percentiles"]["p99"] <= audit["percentiles"]["max"]
    assert audit["stop_tokens"] == {"<|im_end|>": audit["train"]["rows"]}
    assert audit["reasoning_effort"] == {"medium": audit["train"]["rows"]}
    assert audit["reasoning_mode"] == built.reasoning_mode == "think-tags"
    assert audit["template_date"] == "2026-01-31"

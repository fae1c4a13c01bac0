from __future__ import annotations

import json

import pytest

from job.data.build import prepare
from tests.data.examples import options
from tests.data.pools import lost, pool, spec

MODEL = {"added_tokens": [{"id": 2, "content": "<|im_end|>"}, {"id": 3, "content": "<|call|>"}]}


@pytest.fixture
def audit(tmp_path):
    """The audit of pools for a job, of a checkpoint whose template can be given."""

    def make(train, held_out=(), *, template="{{ messages }}", **changed):
        (tmp_path / "tokenizer.json").write_text(json.dumps(MODEL))
        (tmp_path / "chat_template.jinja").write_text(template)
        given = {key: changed[key] for key in ("train_on", "max_dropped") if key in changed}
        return prepare(spec(**changed), options(**given), train, held_out, tmp_path).audit

    return make


def test_rows_tokens_and_trained_tokens_add_up_by_source(audit):
    found = audit([pool("a", 30), pool("b", 10, tokens=50, trained=20)], eval_fraction=0.1)
    assert found["train"] == found["available"]
    assert found["train"]["rows"] + found["eval"]["rows"] == 40
    for key in ("rows", "tokens", "trained_tokens"):
        assert sum(source[key] for source in found["sources"]) == found["train"][key]
        assert sum(kind[key] for kind in found["kinds"].values()) == found["train"][key]
    both = {key: found["train"][key] + found["eval"][key] for key in ("tokens", "trained_tokens")}
    assert both == {"tokens": 30 * 100 + 10 * 50, "trained_tokens": 30 * 60 + 10 * 20}


def test_a_source_has_its_name_format_and_all_its_rows(audit):
    found = audit([pool("a", 30, lost=lost("a", [5000]))], max_dropped=0.5)
    assert found["sources"] == [
        {
            "source": "a",
            "format": "messages",
            "read": 31,
            "available": 30,
            "asked": None,
            "rows": 30,
            "tokens": 3000,
            "trained_tokens": 1800,
        }
    ]


def test_the_run_is_counted_row_by_row(audit):
    found = audit([pool("a", 4, tokens=[10, 20, 30, 40], trained=5)], epochs=2, batch_size=3)
    assert found["run"] == {
        "rows": 8,
        "tokens": 200,
        "trained_tokens": 40,
        "times": 2,
        "steps": 3,
        "batch_size": 3,
    }


def test_lengths_are_those_before_anything_was_cut_or_dropped(audit):
    train = pool("a", 3, tokens=[50, 60, 128], cut=[0, 0, 200], lost=lost("a", [700]))
    found = audit([train], max_dropped=0.5)
    assert found["percentiles"] == {"p50": 60, "p90": 700, "p99": 700, "max": 700}
    assert [(bin_["from"], bin_["to"], bin_["rows"]) for bin_ in found["lengths"]] == [
        (1, 64, 2),
        (65, 128, 0),
        (129, 256, 0),
        (257, 512, 1),
        (513, 700, 1),
    ]


def test_lost_rows_are_named_by_their_source(audit):
    train = [
        pool("a", 90, lost=lost("a", [5000, 6000])),
        pool("b", 90, lost=lost("b", [7000], "no_trained_token"), cut=[9] + [0] * 89, unstopped=0),
    ]
    found = audit(train)
    assert found["dropped"] == {"overlength": 2, "no_trained_token": 1}
    assert found["worst_rows"]["overlength"] == [
        {"source": "a", "row": 2, "tokens": 6000},
        {"source": "a", "row": 1, "tokens": 5000},
    ]
    assert found["worst_rows"]["no_trained_token"][0]["source"] == "b"
    assert found["cut"] == 1


def test_lost_evaluation_rows_are_told_apart(audit):
    held = pool("e", 90, lost=lost("e", [5000]))
    found = audit([pool("a", 10)], [held])
    assert found["dropped"] == {}
    assert found["eval"]["dropped"] == {"overlength": 1}
    assert found["eval"]["worst_rows"]["overlength"][0]["source"] == "e"


def test_the_realised_mix_stands_beside_what_was_asked(audit):
    train = [pool("a", 100, reasoning=True, tokens=300), pool("b", 100)]
    kinds = audit(train, reasoning_share=0.75)["kinds"]
    assert (kinds["reasoning"]["rows"], kinds["plain"]["rows"]) == (100, 33)
    assert (kinds["reasoning"]["tokens"], kinds["plain"]["tokens"]) == (30_000, 3300)
    assert (kinds["reasoning"]["asked"], kinds["plain"]["asked"]) == (0.75, 0.25)
    assert audit(train)["kinds"]["reasoning"]["asked"] is None
    weighted = audit([pool("a", 100, weight=3), pool("b", 100, weight=1)])
    assert [(s["rows"], s["asked"]) for s in weighted["sources"]] == [(100, 0.75), (33, 0.25)]


def test_the_kind_of_a_source_wins_over_what_its_rows_hold(audit):
    train = [pool("a", 3, kind="plain", reasoning=True), pool("b", 2, kind="reasoning")]
    kinds = audit(train)["kinds"]
    assert (kinds["plain"]["rows"], kinds["reasoning"]["rows"]) == (3, 2)


def test_equal_rows_are_counted_across_sources_and_turns_of_a_row_are_not_equal(audit):
    train = [
        pool("a", 4, same=["w", "x", "x", "y"]),
        pool("b", 3, same=["y", "z", "z"], turn=[0, 2, 4]),
    ]
    found = audit(train)
    assert (found["duplicates"], found["near_duplicates"]) == (2, 0)
    near = audit([pool("a", 4, exact=["1", "2", "3", "3"], normalized=["1", "1", "3", "3"])])
    assert (near["duplicates"], near["near_duplicates"]) == (1, 1)


def test_leakage_is_measured_and_not_only_avoided(audit):
    train = pool(
        "a",
        4,
        exact=["1", "2", "3", "4"],
        normalized=["1", "2", "3", "4"],
        conversation=["1", "2", "3", "4"],
    )
    held = pool("e", 3, exact=["1", "x", "y"], normalized=["1", "2", "y"], conversation=list("123"))
    found = audit([train], [held])["leakage"]
    assert found["left_out"] == {"exact": 1, "normalized": 1, "conversation": 1}
    assert found["remaining"] == {"exact": 0, "normalized": 0, "conversation": 0}
    # A split by conversations that parts rows which are equal would be told.
    torn = pool("a", 40, exact=["same"] * 40)
    found = audit([torn], eval_fraction=0.5)
    assert found["leakage"]["remaining"]["exact"] == 20
    assert any("20 rows are trained and evaluated as well" in text for text in found["warnings"])


def test_what_the_rows_hold_is_told(audit):
    train = [
        pool(
            "a",
            5,
            stop_token=[2, 2, 2, 3, -1],
            effort=[0, 1, 1, 1, 2],
            language=[0, 1, 1, -1, -1],
            languages=("French", "Thai"),
            dropped_thinking=[2, 0, 0, 0, 1],
            escaped=[0, 0, 0, 4, 0],
            folded=[True, False, False, True, False],
        ),
        pool("b", 1, language=[0], languages=("Thai",), stop_token=9),
    ]
    found = audit(train)
    assert found["stop_tokens"] == {"<|im_end|>": 3, "<|call|>": 1, "token 9": 1}
    assert found["without_stop_token"] == 1
    assert found["reasoning_effort"] == {"medium": 4, "low": 1, "high": 1}
    assert found["languages"] == {"Thai": 3, "French": 1}
    assert (found["dropped_thinking"], found["escaped"], found["folded"]) == (3, 4, 2)


def test_the_options_that_explain_the_figures_are_told(audit):
    found = audit([pool("a", 5)], train_on="all")
    assert (found["train_on"], found["max_seq_length"]) == ("all", 4096)
    assert found["template_date"] == "2026-01-31"


def test_the_audit_is_json_and_the_order_of_the_job_does_not_change_it(audit):
    found = audit([pool("a", 50, reasoning=[True, False] * 25)], reasoning_share=0.5)
    assert json.loads(json.dumps(found)) == found


THINKS = "{{ message.thinking }}"


@pytest.mark.parametrize(
    ("train", "changed", "warning"),
    [
        (
            [pool("a", 60, reasoning=True), pool("b", 40)],
            {},
            "60 % of the rows hold reasoning. Less than 75 % may cost the model its ability to "
            "reason; JOB_REASONING_SHARE=0.75 mixes so.",
        ),
        (
            [pool("a", 60)],
            {"template": THINKS},
            "0 % of the rows hold reasoning. Less than 75 % may cost the model its ability to "
            "reason; there are none here to mix in.",
        ),
        ([pool("a", 60)], {}, None),
        ([pool("a", 5, reasoning=True), pool("b", 5)], {"reasoning_share": 0.75}, None),
        ([pool("a", 75, reasoning=True), pool("b", 25)], {"template": THINKS}, None),
        (
            [pool("a", 20, reasoning=True)],
            {"train_on": "final"},
            "JOB_TRAIN_ON=final does not train the reasoning of 20 rows; JOB_TRAIN_ON=assistant "
            "does.",
        ),
        (
            [pool("a", 20, dropped_thinking=2)],
            {},
            "The chat template leaves out the reasoning of 40 earlier turns, which is not trained. "
            "JOB_EXPAND_TURNS=true makes a training row of each turn, with its reasoning.",
        ),
        ([pool("a", 20, dropped_thinking=2)], {"expand_turns": True}, None),
        (
            [pool("a", 20, unstopped=[1] * 3 + [0] * 17)],
            {},
            "JOB_OVERLENGTH=truncate cut 3 answers before their end; they do not teach the model "
            "to stop. A larger JOB_MAX_SEQ_LENGTH or JOB_OVERLENGTH=drop would not.",
        ),
        (
            [pool("a", 20, stop_token=[-1] + [2] * 19)],
            {},
            "1 row without a trained stop token: nothing tells the model to stop there.",
        ),
        (
            [pool("a", 100, weight=1), pool("b", 10, weight=1)],
            {},
            "The mix that was asked for leaves out 90 of 110 rows in an epoch (a longer run draws "
            "on them). More rows of the kind or source that is scarce, or other shares, would use "
            "more.",
        ),
        (
            [pool("a", 100, weight=100), pool("b", 100, weight=0.1)],
            {},
            "b: its share is too small for a single row in an epoch of 100, so none of its 100 "
            "rows is trained.",
        ),
        (
            [pool("a", 100)],
            {"max_steps": 20},
            "JOB_MAX_STEPS=20 needs 320 rows, which is 3.2 epochs: some rows are trained 4 times.",
        ),
        ([pool("a", 100)], {"epochs": 3}, None),
        (
            [pool("a", 100, same=["x"] * 3 + list(range(97)))],
            {},
            "2 % of the rows say the same as another one. They weigh more in training than those "
            "that come once.",
        ),
        ([pool("a", 200, same=["x"] * 3 + list(range(197)))], {}, None),
    ],
)
def test_a_warning_says_what_to_do_and_only_when_there_is_something(audit, train, changed, warning):
    assert audit(train, **changed)["warnings"] == ([warning] if warning else [])

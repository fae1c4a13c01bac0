from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from job.data.build import load_prepared, prepare, run_length
from job.data.pools.pool import DataSource, make_pool
from job.errors import DataError
from tests.data.examples import assistant, options, user
from tests.data.pools import lost, pool, spec


def prepared(train, held_out=(), **changed):
    """Prepared for a checkpoint of which nothing is known."""
    return prepare(spec(**changed), options(), train, held_out, Path("/no/model"))


def test_every_row_is_trained_once_in_an_epoch_and_nothing_is_held_out_unasked():
    found = prepared([pool("a", 30), pool("b", 10)])
    assert sorted(found.order) == list(range(40))
    assert (found.steps, found.rows_an_epoch) == (3, 40)
    assert [folder.name for folder in found.train] == ["a", "b"]
    assert found.eval == []
    assert len(found.held_out) == 0


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, (7, 100)),
        ({"epochs": 3}, (19, 300)),
        ({"epochs": 0.25}, (2, 25)),
        ({"epochs": 1.1}, (7, 110)),
        ({"epochs": 0.001}, (1, 1)),
        ({"max_steps": 60}, (60, 960)),
        ({"max_steps": 2, "epochs": 9}, (2, 32)),
    ],
)
def test_the_length_of_the_run_is_in_rows_and_steps(changed, expected):
    assert run_length(spec(**changed), 100) == expected


def test_a_longer_run_begins_as_a_shorter_one():
    short, long = (prepared([pool("a", 50)], epochs=n) for n in (1, 2.5))
    assert list(long.order[:50]) == list(short.order)
    assert len(long.order) == 125


def test_a_share_is_held_out_of_all_sources_and_never_trained():
    train = [pool("a", 60), pool("b", 40)]
    found = prepared(train, eval_fraction=0.2, epochs=2)
    assert found.eval == found.train
    assert len(found.held_out) == 20
    assert not set(found.held_out) & set(found.order)
    assert set(found.held_out) | set(found.order) == set(range(100))


def test_rows_of_an_evaluation_set_are_all_used_and_left_out_of_training():
    train = pool("a", 10, same=[f"row {n}" for n in range(10)])
    held = pool("e", 3, same=["row 2", "row 5", "elsewhere"])
    found = prepared([train], [held])
    assert sorted(found.order) == [0, 1, 3, 4, 6, 7, 8, 9]
    assert [folder.name for folder in found.eval] == ["e"]
    assert list(found.held_out) == [0, 1, 2]
    assert found.audit["dropped"] == {"also_in_evaluation": 2}


def test_without_a_training_row_left_there_is_nothing_to_do():
    with pytest.raises(DataError, match="No training row is left"):
        prepared([pool("a", 2, same=["x", "y"])], [pool("e", 2, same=["y", "x"])])


def test_the_mix_is_what_the_spec_asks_for():
    train = [pool("a", 100, kind="reasoning"), pool("b", 100)]
    found = prepared(train, reasoning_share=0.75)
    assert found.rows_an_epoch == 133
    assert sum(row < 100 for row in found.order) == 100
    weighted = [pool("a", 100, weight=3), pool("b", 100, weight=1)]
    assert prepared(weighted).rows_an_epoch == 133


def test_rows_of_real_files_stay_together_by_conversation(smollm2, tmp_path, write_rows):
    smollm2.save_pretrained(tmp_path / "model")
    talks = []
    for n in range(30):
        asked = [user(f"What is {n} + 1?"), assistant(f"It is {n + 1}.", f"{n} and 1 …")]
        longer = [*asked, user("Sure?"), assistant("Yes.")]
        shouted = [user(f"WHAT  is {n} + 1?"), assistant(f"it is {n + 1}.")]
        talks += [{"messages": turns} for turns in (asked, longer, shouted, asked)]
    source = DataSource("talks", (write_rows(talks),), None, None, None)
    made = make_pool(source, tmp_path / "model", options(), tmp_path / "cache", 1, lambda *_: None)
    found = prepare(spec(eval_fraction=0.2), options(), [made], [], tmp_path / "model")
    assert len(found.held_out) == 24
    assert {row // 4 for row in found.held_out}.isdisjoint(row // 4 for row in found.order)
    assert found.audit["duplicates"] == 24  # one of each talk that is trained
    assert found.audit["near_duplicates"] == 0  # the shouted ones lack the reasoning
    assert not any(found.audit["leakage"]["remaining"].values())
    assert found.audit["kinds"]["reasoning"]["rows"] == 72
    assert found.audit["stop_tokens"] == {"<|im_end|>": 96}


@pytest.mark.parametrize("side", ["training", "evaluation"])
def test_too_many_lost_rows_are_refused_by_side(side):
    sound, broken = pool("b", 100), pool("a", 100, lost=lost("a", [9000] * 20))
    sides = ([broken], []) if side == "training" else ([sound], [broken])
    with pytest.raises(DataError, match=f"The {side} data: 20 of 120 rows would be lost"):
        prepared(*sides)


def test_what_was_prepared_is_read_back_and_mapped(tmp_path):
    found = prepared([pool("a", 30), pool("b", 10)], eval_fraction=0.1, epochs=2)
    found.save(tmp_path / "rows")
    again = load_prepared(tmp_path / "rows")
    assert (again.train, again.eval) == (found.train, found.eval)
    assert np.array_equal(again.order, found.order)
    assert np.array_equal(again.held_out, found.held_out)
    assert (again.steps, again.rows_an_epoch, again.audit) == (
        found.steps,
        found.rows_an_epoch,
        json.loads(json.dumps(found.audit)),
    )
    assert isinstance(again.order, np.memmap)
    assert {path.name for path in (tmp_path / "rows").iterdir()} == {
        "order.npy",
        "eval.npy",
        "prepared.json",
    }


def test_what_was_not_written_to_its_end_is_not_there(tmp_path, monkeypatch):
    found = prepared([pool("a", 30)])
    found.save(tmp_path)
    monkeypatch.setattr("job.data.build.np.save", _killed)
    with pytest.raises(KeyboardInterrupt):
        found.save(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_prepared(tmp_path)


def _killed(*_, **__):
    raise KeyboardInterrupt

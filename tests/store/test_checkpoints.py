"""Checkpoints at a destination: whole for whoever reads, and only as many as are needed."""

from __future__ import annotations

import pytest

from job.checkpoints import read, writing
from job.errors import DestinationTaken
from tests.store.conftest import OURS, claim


def checkpoint(folder, step):
    with writing(folder / "checkpoints", step, {"spec_hash": OURS}) as aside:
        (aside / "optimizer.pt").write_bytes(b"state" * step)
        (aside / "empty").touch()
    return read(folder / f"checkpoints/step-{step:06d}")


def test_the_two_newest_are_kept_and_come_back_as_they_were(place, tmp_path):
    destination = place.open()
    destination.acquire(claim("me"))
    for step in (1, 2, 30):
        destination.put_checkpoint(checkpoint(tmp_path, step))
    assert destination.checkpoints() == ["step-000002", "step-000030"]
    into = tmp_path / "into"
    into.mkdir()
    destination.get_checkpoint("step-000030", into)
    assert read(into).files == read(tmp_path / "checkpoints/step-000030").files
    destination.drop_checkpoints()
    assert destination.checkpoints() == []
    assert not [key for key in place.files() if "checkpoints/" in key]
    destination.release()


def test_one_that_was_cut_off_does_not_count_and_goes_with_the_others(place, tmp_path):
    destination = place.open()
    destination.acquire(claim("me"))
    place.write("run-a/checkpoints/step-000001/optimizer.pt", b"half")
    assert destination.checkpoints() == []
    for step in (2, 3):
        destination.put_checkpoint(checkpoint(tmp_path, step))
    assert not [key for key in place.files() if "step-000001/" in key]
    destination.release()


def test_without_the_claim_nothing_is_written(place, tmp_path):
    with pytest.raises(DestinationTaken):
        place.open().put_checkpoint(checkpoint(tmp_path, 1))
    assert place.files() == []


def test_a_run_that_left_checkpoints_keeps_other_specs_out(place, tmp_path):
    destination = place.open()
    destination.acquire(claim("me"))
    destination.put_checkpoint(checkpoint(tmp_path, 1))
    destination.release()
    with pytest.raises(DestinationTaken):
        place.open().acquire(claim("another", "b" * 64))
    later = place.open()
    later.acquire(claim("a later start"))
    later.release()


def test_tidying_removes_what_killed_processes_left(place):
    destination = place.open()
    destination.acquire(claim("me"))
    place.write("run-a/.check-0123-a", b"first")
    place.write("run-a/adapter/weights", b"published")
    destination.tidy()
    left = [key for key in place.files() if "claim" not in key]
    assert left == ["run-a/adapter/weights"]
    destination.release()

"""Checkpoints on disk: complete or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.checkpoints import Damaged, names, newest, read, superfluous, writing

RUN = {"spec_hash": "a" * 64}


def write(parent: Path, step: int, run: dict[str, str] | None = None) -> Path:
    with writing(parent, step, run or RUN) as aside:
        (aside / "more").mkdir()
        (aside / "more/weights").write_bytes(b"w" * step)
        (aside / "state").write_text(str(step))
    return parent / names(parent)[-1]


def test_what_was_written_is_read_again(tmp_path):
    checkpoint = read(write(tmp_path, 120))
    assert (checkpoint.folder.name, checkpoint.step, checkpoint.run) == ("step-000120", 120, RUN)
    assert [(file.path, file.size) for file in checkpoint.files] == [
        ("more/weights", 120),
        ("state", 3),
    ]


def test_a_write_that_fails_leaves_no_checkpoint(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(OSError), writing(tmp_path, 2, RUN) as aside:  # noqa: PT011, PT012
        (aside / "state").write_text("2")
        raise OSError
    assert names(tmp_path) == ["step-000001"]
    assert read(write(tmp_path, 2)).step == 2  # what was left aside is not in the way


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("state", b"3", "state is damaged"),
        ("state", None, "state is missing"),
        ("COMPLETE", b'{"step": 2, "fi', "COMPLETE is damaged"),
        ("COMPLETE", None, "not complete"),
    ],
)
def test_the_newest_whole_one_is_taken_and_the_others_are_told(tmp_path, file, content, words):
    write(tmp_path, 1)
    path = write(tmp_path, 2) / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(Damaged, match=words):
        read(path.parent)
    told: list[str] = []
    found = newest(tmp_path, RUN["spec_hash"], told.append)
    assert found is not None
    assert found.step == 1
    (line,) = told
    assert "step-000002 is passed over" in line


def test_a_checkpoint_of_another_spec_is_passed_over(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2, {"spec_hash": "b" * 64})
    found = newest(tmp_path, RUN["spec_hash"], lambda _: None)
    assert found is not None
    assert found.step == 1


def test_where_there_is_none_there_is_none(tmp_path):
    assert newest(tmp_path / "missing", RUN["spec_hash"], print) is None


def test_the_newest_and_the_one_before_are_kept_and_what_was_written_meanwhile():
    there = [f"step-{step:06d}" for step in (5, 10, 20, 30, 40)]
    assert superfluous(there, "step-000030") == ["step-000005", "step-000010"]
    assert superfluous(there[:1], "step-000010") == []


def test_steps_are_ordered_as_numbers():
    there = ["step-999999", "step-1000000", "step-000002"]
    assert superfluous(there, "step-1000000") == ["step-000002"]

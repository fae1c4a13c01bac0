"""Checkpoints on disk: complete or not there. What is in one is the trainer's business.

A checkpoint is the folder `step-000120`. It is written beside its place, flushed to the disk and
renamed; its last file, `COMPLETE`, holds the step, whose run it is, and size and SHA-256 of every
other file. A folder without a `COMPLETE` that holds in full is no checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job.disk import sync
from job.hashing import FileRecord, hash_folder

COMPLETE = "COMPLETE"
FOLDER = "checkpoints"  # in the run's folder and at a destination
_KEPT = 2  # the newest may turn out to be damaged


class Damaged(Exception):
    """A folder that is no whole checkpoint, and why."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        folder: where it lies.
        step: optimizer steps done.
        run: whose it is: `spec_hash`, and what else must be the same to go on from it.
        files: everything in it but `COMPLETE`.
    """

    folder: Path
    step: int
    run: dict[str, Any]
    files: list[FileRecord]


def name_of(step: int) -> str:
    """`step-000120`: names sort as their steps do."""
    return f"step-{step:06d}"


def step_of(name: str) -> int:
    """The step in a checkpoint's name."""
    return int(name.removeprefix("step-"))


@contextlib.contextmanager
def writing(parent: Path, step: int, run: dict[str, Any]) -> Iterator[Path]:
    """Hand out an empty folder; once the block has filled it, make it the checkpoint of `step`.

    Args:
        parent: the folder of all checkpoints, made if missing.
        run: kept in `COMPLETE`, JSON-able.
    """
    aside, place = parent / f".{name_of(step)}", parent / name_of(step)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    files = [asdict(record) for record in hash_folder(aside)]
    text = json.dumps({"step": step, "run": run, "files": files}, indent=1)
    (aside / COMPLETE).write_text(text, encoding="utf-8")
    flush(aside)
    shutil.rmtree(place, ignore_errors=True)  # a damaged one of the same step
    aside.rename(place)
    sync(parent)


def listed(folder: Path) -> Checkpoint:
    """The checkpoint in a folder as its `COMPLETE` describes it; no file is looked at.

    Raises:
        Damaged: there is no such file, or it is not whole.
    """
    try:
        content = json.loads((folder / COMPLETE).read_bytes())
    except FileNotFoundError:
        raise Damaged("it is not complete") from None
    except ValueError:
        raise Damaged(f"{COMPLETE} is damaged") from None
    files = [FileRecord(**file) for file in content["files"]]
    return Checkpoint(folder, content["step"], content["run"], files)


def read(folder: Path) -> Checkpoint:
    """The checkpoint in a folder, every file of it hashed.

    Raises:
        Damaged: with what is wrong.
    """
    checkpoint = listed(folder)
    there = {record.path: record for record in hash_folder(folder)}
    for record in checkpoint.files:
        if there.get(record.path) != record:
            state = "damaged" if record.path in there else "missing"
            raise Damaged(f"{record.path} is {state}")
    return checkpoint


def newest(parent: Path, spec_hash: str, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint of this spec; `say` hears of each that is passed over."""
    for name in reversed(names(parent)):
        try:
            found = read(parent / name)
        except Damaged as damage:
            say(f"checkpoint {name} is passed over: {damage}")
            continue
        if found.run["spec_hash"] == spec_hash:
            return found
        say(f"checkpoint {name} is passed over: it is of another spec's run")
    return None


def names(parent: Path) -> list[str]:
    """The names of the checkpoints in a folder, whole or damaged, oldest first."""
    return sorted((path.name for path in parent.glob("step-*")), key=step_of)


def superfluous(there: list[str], newest: str) -> list[str]:
    """Which of these names can go now that `newest` is written: all but it and the one before it.

    What is newer stays: the trainer may have written it meanwhile.
    """
    older = sorted((name for name in there if step_of(name) < step_of(newest)), key=step_of)
    return older[: 1 - _KEPT]


def flush(folder: Path) -> None:
    """Make a folder's files, and the names in it, survive a power cut."""
    for path in [*(path for path in folder.rglob("*") if not path.is_symlink()), folder]:
        sync(path)

"""Prepared data on disk: under a key of all it is made of, written aside, whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from job.data.mask.template import EncodeOptions
from job.data.mask.tokenizer import prints_date, tokenizer_files
from job.disk import sync
from job.errors import OutOfResources
from job.hashing import hash_file

T = TypeVar("T")

_ROOM = Path(__file__).parent.parent
_LIBRARIES = ("jinja2", "pyarrow", "tokenizers", "transformers")


def ingredients(
    files: Sequence[Path], format: str | None, tokenizer: Path, options: EncodeOptions, threads: int
) -> dict[str, Any]:
    """Everything that decides what a source's rows become; equal ingredients, equal rows.

    Neither names nor places of the data files count, but their suffixes do, by which their kind may
    be told. Nothing heavy is imported.

    Args:
        tokenizer: folder of the checkpoint.
        threads: files that are hashed at once.
    """
    own = tokenizer_files(tokenizer)
    chosen = asdict(options)
    del chosen["max_dropped"]  # judged later, over all sources
    chosen["overlength"] = "truncate" if options.overlength == "truncate" else "drop"
    if not prints_date(own):
        del chosen["template_date"]
    with ThreadPoolExecutor(threads) as pool:
        hashes = list(pool.map(hash_file, files))
    return {
        "files": [
            ["".join(path.suffixes), hash_] for path, hash_ in zip(files, hashes, strict=True)
        ],
        "format": format,
        "tokenizer": {path.relative_to(tokenizer).as_posix(): hash_file(path) for path in own},
        "options": chosen,
        "code": {
            path.relative_to(_ROOM).as_posix(): hash_file(path)
            for path in sorted(_ROOM.rglob("*.py"))
        },
        "versions": {name: version(name) for name in _LIBRARIES},
    }


def key_of(made_of: dict[str, Any]) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def load_or_make(folder: Path, load: Callable[[Path], T | None], make: Callable[[Path], None]) -> T:
    """What `folder` of the cache holds, made first where it is not there or not whole.

    Two processes that need the same make it once: the second waits for the first.

    Args:
        folder: the entry; its parent is the cache and need not exist.
        load: reads an entry; None when it is not there or not whole.
        make: writes an entry into the empty folder that it gets.

    Raises:
        OutOfResources: the entry has to be made and the cache cannot be written.
    """
    if (found := load(folder)) is not None:
        return found
    with _alone(folder):
        if (found := load(folder)) is not None:
            return found
        part = folder.with_name(folder.name + ".part")
        for old in (part, folder):  # half-written by one that was killed; or damaged
            if old.exists():
                shutil.rmtree(old)
        part.mkdir()
        try:
            make(part)
            for path in (*part.iterdir(), part):
                sync(path)
            part.rename(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        sync(folder.parent)
        found = load(folder)
    assert found is not None, f"{folder} was written and cannot be read"  # noqa: S101
    return found


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the entry for this process; the kernel lets go when it ends, however it ends."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(folder.name + ".lock").open("w")
    except OSError as error:
        raise OutOfResources(
            f"Prepared data cannot be kept in {folder.parent} ({error.strerror}). Let JOB_WORK_DIR "
            "name a folder that belongs to the container's user."
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

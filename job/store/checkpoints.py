"""Checkpoints in a key-value store: `checkpoints/step-000120/…`, each with `COMPLETE` last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from job.checkpoints import COMPLETE, FOLDER, Checkpoint, step_of, superfluous
from job.store.keys import Sent, safe_key

if TYPE_CHECKING:
    from job.store.keys import Store


def put(store: Store, checkpoint: Checkpoint, confirm: Callable[[], None]) -> None:
    """Copy a checkpoint there; then remove all but this and the one before it.

    Args:
        confirm: called before each file; raises when nothing may be written any more.
    """
    name = checkpoint.folder.name
    for record in checkpoint.files:
        confirm()
        key, path = f"{FOLDER}/{name}/{record.path}", checkpoint.folder / record.path
        store.put_file(key, path, record, Sent(key, record.size, lambda *_: None))
    confirm()
    store.put(f"{FOLDER}/{name}/{COMPLETE}", (checkpoint.folder / COMPLETE).read_bytes())
    for old in superfluous(_begun(store), name):
        _drop(store, old)


def names(store: Store) -> list[str]:
    """The names of the complete ones, oldest first."""
    keys = store.list(f"{FOLDER}/")
    return sorted((k.split("/")[1] for k in keys if k.endswith(f"/{COMPLETE}")), key=step_of)


def get(store: Store, name: str, into: Path) -> None:
    """Download a checkpoint into an empty folder, `COMPLETE` included; nothing is verified."""
    prefix = f"{FOLDER}/{name}/"
    for key in store.list(prefix):
        path = into / safe_key(key.removeprefix(prefix))
        path.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(key, path)


def drop(store: Store) -> None:
    """Remove all of them."""
    for name in _begun(store):
        _drop(store, name)


def _begun(store: Store) -> list[str]:
    """The names of all, also of those that were cut off."""
    return sorted({key.split("/")[1] for key in store.list(f"{FOLDER}/")}, key=step_of)


def _drop(store: Store, name: str) -> None:
    prefix = f"{FOLDER}/{name}/"
    store.delete(prefix + COMPLETE)  # first, so that the rest is never taken for whole
    for key in store.list(prefix):
        store.delete(key)

"""What a folder and a bucket have in common: bytes by key."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from job.errors import InternalError
from job.hashing import FileRecord
from job.receipt import is_inside

if TYPE_CHECKING:
    from job.store import Progress


STARTS = ".starts.json"  # a run that is done removes what begins with a dot


@dataclass(frozen=True)
class Stored:
    """A small object: its bytes, and an etag that changes whenever they do."""

    content: bytes
    etag: str


class Store(Protocol):
    """Bytes by key, where a key is a relative POSIX path (`safe_key`).

    Every method raises AccessRefused, NotFound (no bucket), Unavailable, UploadFailed or
    OutOfResources when the store does not do it within its budget.
    """

    uri: str

    def within(self, seconds: float) -> Store:
        """The same store with another patience: seconds of trouble after which it is given up."""

    def get(self, key: str) -> Stored | None: ...

    def put(self, key: str, content: bytes) -> None: ...

    def put_if_absent(self, key: str, content: bytes) -> str | None:
        """The new etag; None when another content is there already."""

    def put_if_match(self, key: str, content: bytes, etag: str) -> str | None:
        """The new etag; None when the object is gone or no longer has `etag`."""

    def put_file(self, key: str, path: Path, record: FileRecord, sent: Sent) -> int:
        """Make `key` hold the file, and verify that it does; the bytes that had to be sent.

        What is there already, be it of an upload that was cut off, is not sent again.

        Args:
            sent: of this file; hears of all its bytes.
        """

    def get_file(self, key: str, path: Path) -> None:
        """Download an object that is there."""

    def digest(self, key: str) -> tuple[int, str] | None:
        """Size and SHA-256 of the content, read back in full; None when there is no object."""

    def list(self, prefix: str = "") -> list[str]:
        """All keys that start with `prefix`, sorted."""

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """The same keys with the bytes of each, for the price of a listing."""

    def delete(self, key: str) -> None:
        """Remove the object; it need not be there."""

    def drop_unfinished(self, prefix: str = "") -> None:
        """Give up the uploads under this prefix that were cut off and take up room unseen."""


class Sent:
    """Counts the bytes of one file and tells a progress callback; safe to use from any thread."""

    def __init__(self, what: str, total: int, progress: Progress) -> None:
        self._what, self._total, self._progress = what, total, progress
        self.done = 0
        self._lock = threading.Lock()

    def __call__(self, size: int) -> None:
        with self._lock:
            self.done += size
            self._progress(self._what, self.done, self._total)

    def back_to(self, done: int) -> None:
        """An attempt failed: forget what it sent."""
        self(done - self.done)


def safe_key(key: str) -> str:
    """The key itself, if it stays inside its store.

    Raises:
        InternalError: it is empty, absolute, or climbs out with `..`.
    """
    if not is_inside(key):
        raise InternalError(f"not a path inside the destination: {key!r}")
    return key

"""A destination made of objects by key: a folder and an S3 prefix differ only in their `Store`."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from job.errors import DestinationTaken, InternalError, JobError, Unavailable, UploadFailed
from job.hashing import FileRecord
from job.receipt import another_run, is_inside, parse_receipt
from job.store import is_finished
from job.store.claim import KEY as CLAIM
from job.store.claim import Claim, Found, Heartbeat, read_claim

if TYPE_CHECKING:
    from job.store import Part, Progress

RECEIPT, FAILURE = "receipt.json", "failure.json"


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

    def quick(self) -> Store:
        """The same store with little patience."""

    def get(self, key: str) -> Stored | None: ...

    def put(self, key: str, content: bytes) -> None: ...

    def put_if_absent(self, key: str, content: bytes) -> str | None:
        """The new etag; None when another content is there already."""

    def put_if_match(self, key: str, content: bytes, etag: str) -> str | None:
        """The new etag; None when the object is gone or no longer has `etag`."""

    def put_file(self, key: str, path: Path, record: FileRecord, sent: Sent) -> None:
        """Make `key` hold the file, and verify that it does; `sent` hears of the bytes."""

    def digest(self, key: str) -> tuple[int, str] | None:
        """Size and SHA-256 of the content, read back in full; None when there is no object."""

    def list(self, prefix: str = "") -> list[str]:
        """All keys that start with `prefix`, sorted."""

    def delete(self, key: str) -> None:
        """Remove the object; it need not be there."""


class Sent:
    """Counts the bytes of one part from many threads and tells a progress callback."""

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


class ObjectDestination:
    """One run in a store; see `job.store.Destination` for the meaning of each method."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.uri = store.uri
        self._heartbeat: Heartbeat | None = None
        self._unfinished = False  # parts are there, the receipt is not

    def check(self) -> None:
        """Try what a run will do, on two objects of a random name that are removed again."""
        store = self.store.quick()
        key, once = (f".check-{secrets.token_hex(6)}-{n}" for n in ("a", "b"))
        try:
            store.list(key)  # first, since some stores make a missing bucket when written to
            _try_writes(store, key, once)
        except UploadFailed as error:
            raise Unavailable(error.message) from error
        finally:
            with contextlib.suppress(JobError):
                store.delete(key)
                store.delete(once)

    def read_receipt(self) -> dict[str, Any] | None:
        """Raises DestinationTaken when `receipt.json` is not a receipt of this program."""
        found = self.store.get(RECEIPT)
        return None if found is None else parse_receipt(found.content, f"{self.uri}/{RECEIPT}")

    def acquire(self, claim: Claim) -> None:
        heartbeat = Heartbeat(self.store, claim)
        waiting_for: Found | None = None
        deadline = 0.0
        while not self._finished(claim):
            found = read_claim(self.store)
            if found is None:
                if heartbeat.create():
                    break
                continue
            if found.spec_hash != claim.spec_hash:
                raise DestinationTaken(another_run(self.uri, found.spec_hash, claim.spec_hash))
            if waiting_for is not None and found.owner != claim.owner and found != waiting_for:
                raise DestinationTaken(f"{self.uri}: another process is working on this run")
            dead = waiting_for is not None and time.monotonic() >= deadline
            free = found.released or found.owner == claim.owner or dead
            if free and heartbeat.take_over(found.etag):
                break
            if waiting_for is None:
                waiting_for, deadline = found, time.monotonic() + claim.lease_seconds
            time.sleep(min(claim.beat_seconds, max(0.0, deadline - time.monotonic())))
        else:
            return
        self._heartbeat = heartbeat
        heartbeat.start()

    def _finished(self, claim: Claim) -> bool:
        return is_finished(self, claim.spec_hash)

    def _confirm(self) -> None:
        if self._heartbeat is None:
            raise DestinationTaken(f"{self.uri}: this process does not hold the run's claim")
        self._heartbeat.confirm()

    def publish(
        self, part: Part, folder: Path, files: Sequence[FileRecord], progress: Progress
    ) -> None:
        keys = {f"{part}/{safe_key(record.path)}": record for record in files}
        sent = Sent(f"{part} to {self.uri}", sum(record.size for record in files), progress)
        for key, record in keys.items():
            self._confirm()
            self._unfinished = True
            self.store.put_file(key, folder / record.path, record, sent)
        self._confirm()
        for key in self.store.list(f"{part}/"):
            if key not in keys:  # of an earlier attempt that was cut off
                self.store.delete(key)

    def publish_receipt(self, receipt: dict[str, Any]) -> None:
        self._confirm()
        self.store.delete(FAILURE)
        content = json.dumps(receipt, indent=1, ensure_ascii=False).encode()
        if self.store.put_if_absent(RECEIPT, content) is None:
            raise DestinationTaken(f"{self.uri} has a receipt already; it was left as it is")
        self._unfinished = False

    def publish_failure(self, failure: Mapping[str, Any]) -> None:
        try:
            if self._heartbeat is not None:
                self._heartbeat.confirm()
        except DestinationTaken:
            return
        if self.store.get(RECEIPT) or (self._heartbeat is None and self.store.get(CLAIM)):
            return
        self.store.put(FAILURE, json.dumps(failure, indent=1, ensure_ascii=False).encode())

    def release(self) -> None:
        if self._heartbeat is not None:
            with contextlib.suppress(JobError):
                self._heartbeat.stop(unfinished=self._unfinished)
            self._heartbeat = None

    def verify(self, receipt: dict[str, Any]) -> list[str]:
        problems: list[str] = []
        for file in receipt["files"]:
            found = self.store.digest(safe_key(file["path"]))
            if found is None:
                problems.append(f"{file['path']}: missing")
            elif found != (file["size"], file["sha256"]):
                problems.append(f"{file['path']}: not the bytes that the receipt lists")
        return problems


def _try_writes(store: Store, key: str, once: str) -> None:
    """Write, read, create exclusively, compare and swap, delete.

    Raises:
        Unavailable: the store does not keep what it is given, or ignores conditions.
    """
    store.put(key, b"first")
    found = store.get(key)
    if found is None or found.content != b"first":
        raise Unavailable(f"{store.uri} does not give back what was written a moment ago")
    created = store.put_if_absent(once, b"only")
    again = store.put_if_absent(once, b"again")
    swapped = store.put_if_match(key, b"second", found.etag)
    stale = store.put_if_match(key, b"third", found.etag)
    if (created and swapped) is None or (again or stale) is not None:
        message = f"{store.uri} does not honour If-None-Match and If-Match on writes"
        raise Unavailable(f"{message}; a receipt could be overwritten: use another store")
    store.delete(key)
    store.delete(once)

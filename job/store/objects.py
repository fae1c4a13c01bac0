"""A destination made of objects by key: a folder and an S3 prefix differ only in their `Store`."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.checkpoints import FOLDER
from job.errors import DestinationTaken, InUse, JobError, Unavailable, UploadFailed
from job.hashing import FileRecord
from job.receipt import another_run, parse_failure, parse_receipt
from job.store import checkpoints, is_finished, retry
from job.store.claim import KEY as CLAIM
from job.store.claim import Claim, Found, Heartbeat, read_claim
from job.store.keys import STARTS, Sent, Store, safe_key
from job.store.retry import QUICK_SECONDS, Emit, to_logging

if TYPE_CHECKING:
    from job.checkpoints import Checkpoint
    from job.store import Part, Progress

RECEIPT, FAILURE, STATUS = "receipt.json", "failure.json", "status.json"
PAGE = "report/index.html"


class ObjectDestination:
    """One run in a store; see `job.store.Destination` for the meaning of each method.

    Results are sent with more patience than the store comes with: by then they were paid for.
    """

    def __init__(self, store: Store, emit: Emit = to_logging) -> None:
        self.store, self._patient = store, store.within(retry.UPLOAD_SECONDS)
        self.uri, self.emit = store.uri, emit
        self._heartbeat: Heartbeat | None = None
        self._unfinished = False  # parts are there, the receipt is not

    def check(self) -> None:
        """Try what a run will do, on two objects of a random name that are removed again."""
        store = self.store.within(QUICK_SECONDS)
        key, once = (f".check-{secrets.token_hex(6)}-{n}" for n in ("a", "b"))
        store.list(key)  # first, since some stores make a missing bucket when written to
        try:
            _try_writes(store, key, once)
        except UploadFailed as error:
            raise Unavailable(error.message) from error
        finally:
            with contextlib.suppress(JobError):
                store.delete(key)
                store.delete(once)

    def read_receipt(self) -> dict[str, Any] | None:
        """Raises DestinationTaken when `receipt.json` is not a receipt of this program."""
        store = self._patient if self._heartbeat else self.store
        found = store.get(RECEIPT)
        return None if found is None else parse_receipt(found.content, f"{self.uri}/{RECEIPT}")

    def acquire(self, claim: Claim) -> None:
        heartbeat = Heartbeat(self._patient, claim)
        waiting_for: Found | None = None
        deadline = 0.0
        while not self._finished(claim):
            found = read_claim(self.store)
            if found is None:
                if heartbeat.create():
                    self.store.drop_unfinished()  # nobody's, or of a spec whose claim is gone
                    break
                continue
            if found.spec_hash != claim.spec_hash:
                raise DestinationTaken(another_run(self.uri, found.spec_hash, claim.spec_hash))
            if waiting_for is not None and found.owner != claim.owner and found != waiting_for:
                raise InUse(f"{self.uri}: another process is working on this run")
            dead = waiting_for is not None and time.monotonic() >= deadline
            free = found.released or found.owner == claim.owner or dead
            if free and heartbeat.take_over(found.etag):
                self.store.drop_unfinished(f"{FOLDER}/")  # the trainer writes others
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
        for key, record in keys.items():
            self._confirm()
            self._unfinished = True
            self._put(key, folder / record.path, record, progress)
        self._confirm()
        for key in self._patient.list(f"{part}/"):
            if key not in keys:  # of an earlier attempt that was cut off
                self._patient.delete(key)

    def _put(self, key: str, path: Path, record: FileRecord, progress: Progress) -> None:
        started, uri = time.monotonic(), f"{self.uri}/{key}"
        sent = Sent(f"{key} to {self.uri}", record.size, progress)
        size = self._patient.put_file(key, path, record, sent)
        seconds = round(time.monotonic() - started, 2)
        self.emit("uploaded", uri=uri, bytes=record.size, sent=size, seconds=seconds)

    def publish_receipt(self, receipt: dict[str, Any]) -> None:
        self._confirm()
        self._patient.delete(FAILURE)
        content = json.dumps(receipt, indent=1, ensure_ascii=False).encode()
        if self._patient.put_if_absent(RECEIPT, content) is None:
            raise DestinationTaken(f"{self.uri} has a receipt already; it was left as it is")
        self._unfinished = False

    def read_failure(self) -> dict[str, Any] | None:
        found = self.store.get(FAILURE)
        return None if found is None else parse_failure(found.content)

    def publish_failure(self, failure: Mapping[str, Any]) -> bool:
        store = self.store.within(QUICK_SECONDS)
        try:
            if self._heartbeat is not None:
                self._heartbeat.confirm(quick=True)
        except DestinationTaken:
            return False
        if not self._is_free(store):
            return False
        store.put(FAILURE, json.dumps(failure, indent=1, ensure_ascii=False).encode())
        return True

    def publish_page(self, page: bytes) -> None:
        once = self.store.within(0)
        if self._is_free(once):  # another process may have begun, and finished, meanwhile
            once.put(PAGE, page)

    def _is_free(self, store: Store) -> bool:
        """Whether no receipt is here and, where we hold no claim, nobody else's is."""
        return not (store.get(RECEIPT) or (self._heartbeat is None and store.get(CLAIM)))

    def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._unfinished = True
        checkpoints.put(self.store, checkpoint, self._confirm)

    def checkpoints(self) -> list[str]:
        return checkpoints.names(self.store)

    def get_checkpoint(self, name: str, into: Path) -> None:
        checkpoints.get(self.store, name, into)

    def drop_checkpoints(self) -> None:
        checkpoints.drop(self.store)

    def read_log(self, name: str) -> bytes | None:
        found = self.store.within(0).get(name)
        return found.content if found else None

    def put_log(self, files: Mapping[str, bytes]) -> None:
        if self._heartbeat is None:
            return
        once = self.store.within(0)
        if not self._heartbeat.is_held(once):
            raise DestinationTaken(f"{self.uri}: this process does not hold the run's claim")
        for name, content in files.items():
            once.put(name, content)

    def read_starts(self) -> bytes | None:
        found = self.store.get(STARTS)
        return found.content if found else None

    def write_starts(self, content: bytes | None) -> None:
        if content is None:
            self.store.delete(STARTS)
        else:
            self.store.put(STARTS, content)

    def tidy(self) -> None:
        self.drop_checkpoints()
        self.store.drop_unfinished()
        for key in self.store.list("."):  # of a check, or of a file that was being written
            self.store.delete(key)
        # An earlier start has written the receipt, and was killed before it gave its claim up.
        if self._heartbeat is None and self.store.get(CLAIM) is not None:
            status = self.store.get(STATUS)
            if status is not None:
                ended = {**json.loads(status.content), "state": "done"}
                self.store.put(STATUS, json.dumps(ended).encode())
            self.store.delete(CLAIM)

    def release(self) -> None:
        if self._heartbeat is not None:
            with contextlib.suppress(JobError):
                self._heartbeat.stop(unfinished=self._unfinished)
            self._heartbeat = None

    def sizes(self, receipt: dict[str, Any]) -> dict[str, int]:
        return self.store.sizes()

    def restore(self, file: FileRecord, path: Path, progress: Progress) -> None:
        self._put(safe_key(file.path), path, file, progress)

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

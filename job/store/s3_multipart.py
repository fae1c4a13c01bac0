"""A large file goes up in parts, and after a kill only the parts that the store does not have.

What was sent is learnt from the store (ListMultipartUploads, ListParts), not from notes of ours: it
holds on another machine as well. boto3's own transfers (s3transfer 0.19) cannot go on with an
upload.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from s3transfer.utils import ReadFileChunk

from job.errors import JobError
from job.store.keys import Sent
from job.store.retry import Budget
from job.store.s3_client import code_of
from job.store.s3_parts import Part
from job.store.s3_session import Session

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_THREADS = 8
_GONE = "NoSuchUpload"
_REFUSES_PARTS = ("InvalidPart", "InvalidPartOrder", "EntityTooSmall")
# A key that may not list uploads, or a store that cannot: then all is sent, as it would be anyway.
_NOT_LISTED = ("AccessDenied", "MethodNotAllowed", "NotImplemented", _GONE)


class Dropped(Exception):
    """The store no longer has the upload, or lost a part of it: all is to be sent again."""


class MultipartUpload:
    """One file on its way to one key. No other process may be sending to that key.

    Args:
        uri: of the object, for messages.
        at: its Bucket and Key.
        parts: of the file, all of them.
        budget: of the object.
    """

    def __init__(
        self,
        session: Session,
        uri: str,
        at: dict[str, Any],
        path: Path,
        parts: list[Part],
        budget: Budget,
    ) -> None:
        self._session, self._uri, self._at, self._path = session, uri, at, path
        self._parts, self._budget = parts, budget

    def send(self, metadata: dict[str, str], sent: Sent) -> int:
        """Send what is missing and put the object together; the bytes that were sent.

        Raises:
            Dropped.
            JobError: as `Session.do`.
        """
        upload, stored = self._resume()
        if upload is None:
            upload = self._begin(metadata)
        missing = [part for part in self._parts if part.number not in stored]
        sent(sum(part.size for part in self._parts) - sum(part.size for part in missing))
        stored |= self._send_all(upload, missing, sent)
        self._complete(upload, [stored[part.number] for part in self._parts])
        return sum(part.size for part in missing)

    def _resume(self) -> tuple[str | None, dict[int, dict[str, Any]]]:
        """The upload that has most of this file, and its parts; the others are aborted."""
        best: str | None = None
        stored: dict[int, dict[str, Any]] = {}
        found = open_uploads(self._session, self._uri, self._at["Bucket"], self._at["Key"])
        for at in found:
            if at["Key"] != self._at["Key"]:
                continue  # a longer key that begins alike
            parts, stale = self._stored(at), at["UploadId"]
            if len(parts) > len(stored):
                stale, best, stored = best or "", at["UploadId"], parts
            if stale:
                abort(self._session, self._uri, {**at, "UploadId": stale})
        return best, stored

    def _stored(self, upload: dict[str, Any]) -> dict[int, dict[str, Any]]:
        """The parts that an upload has; none when one of them is not of this file."""

        def read(client: S3Client) -> list[Any]:
            try:
                pages = client.get_paginator("list_parts").paginate(**upload)
                return [entry for page in pages for entry in page.get("Parts", [])]
            except ClientError as error:
                if code_of(error) in _NOT_LISTED:
                    return []
                raise

        entries = self._session.do(self._uri, read, self._budget)
        parts = {part.number: part for part in self._parts}
        for entry in entries:
            part = parts.get(entry["PartNumber"])
            if part is None or not part.is_stored_as(entry):
                return {}
        return {entry["PartNumber"]: _named(entry["PartNumber"], entry) for entry in entries}

    def _begin(self, metadata: dict[str, str]) -> str:
        def create(client: S3Client) -> str:
            more: dict[str, Any] = {"ChecksumAlgorithm": "CRC32"} if _checks(client) else {}
            made = client.create_multipart_upload(**self._at, Metadata=metadata, **more)
            return made["UploadId"]

        return self._session.do(self._uri, create, self._budget)

    def _send_all(self, upload: str, parts: list[Part], sent: Sent) -> dict[int, dict[str, Any]]:
        """Several at a time, each read from the disk as it is sent."""
        pool = ThreadPoolExecutor(_THREADS, "upload")
        running = {pool.submit(self._send_part, upload, part): part for part in parts}
        try:
            for done in as_completed(running):
                done.result()
                sent(running[done].size)
        except BaseException as error:
            # A signal waits for nobody: what is under way goes to an upload that is not completed.
            self._budget.stopped.set()
            pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
            if isinstance(error, Exception):
                self._budget.stopped.clear()
            raise
        pool.shutdown()
        return {running[done].number: done.result() for done in running}

    def _send_part(self, upload: str, part: Part) -> dict[str, Any]:
        def send(client: S3Client) -> dict[str, Any]:
            at: dict[str, Any] = {**self._at, "UploadId": upload, "PartNumber": part.number}
            if not _checks(client):
                at["ContentMD5"] = part.content_md5
            body: Any = ReadFileChunk.from_filename(str(self._path), part.start, part.size)
            with body:
                try:
                    reply = client.upload_part(**at, Body=body)
                except ClientError as error:
                    if code_of(error) == _GONE:
                        raise Dropped from error
                    raise
            return _named(part.number, reply)

        what = f"{self._uri} part {part.number} of {len(self._parts)}"
        return self._session.do(what, send, self._budget)

    def _complete(self, upload: str, parts: list[dict[str, Any]]) -> None:
        whole: Any = {"Parts": parts}

        def complete(client: S3Client) -> None:
            at = {**self._at, "UploadId": upload}
            try:
                client.complete_multipart_upload(**at, MultipartUpload=whole)
            except ClientError as error:
                if code_of(error) in _REFUSES_PARTS:
                    abort(self._session, self._uri, {**self._at, "UploadId": upload})
                    raise Dropped from error
                # Done by an attempt whose answer was lost, or dropped: the next look tells.
                if code_of(error) != _GONE:
                    raise

        self._session.do(self._uri, complete, self._budget, slow=True)


def open_uploads(session: Session, uri: str, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """Bucket, Key and UploadId of every upload under a prefix that is neither complete nor aborted.

    Empty where they may not be listed.
    """

    def read(client: S3Client) -> list[dict[str, Any]]:
        pages = client.get_paginator("list_multipart_uploads")
        try:
            answers = list(pages.paginate(Bucket=bucket, Prefix=prefix))
        except ClientError as error:
            if code_of(error) in _NOT_LISTED:
                return []
            raise
        found = [upload for page in answers for upload in page.get("Uploads", [])]
        return [{"Bucket": bucket, "Key": u["Key"], "UploadId": u["UploadId"]} for u in found]

    return session.do(uri, read)


def abort(session: Session, uri: str, upload: dict[str, Any]) -> None:
    """Give its parts up. What cannot be aborted only takes up room."""
    with contextlib.suppress(JobError):
        session.do(uri, lambda client: client.abort_multipart_upload(**upload))


def _named(number: int, reply: Any) -> dict[str, Any]:
    """A part as CompleteMultipartUpload wants it named, with the checksum where there is one."""
    part = {"PartNumber": number, "ETag": reply["ETag"]}
    return part | ({"ChecksumCRC32": reply["ChecksumCRC32"]} if "ChecksumCRC32" in reply else {})


def _checks(client: S3Client) -> bool:
    """Whether botocore sends a CRC32 with every part."""
    config: Any = client.meta.config
    return bool(config.request_checksum_calculation == "when_supported")

"""An S3 bucket, or a prefix of one, as a store.

How an upload is verified: the store's ETag must be the MD5 of what was sent (for a multipart
object the MD5 of the parts' MD5s and their count), computed here from the local file, and the size
must agree. Where a store makes its ETags otherwise (as S3 does under SSE-KMS) the object is read
back in full and its SHA-256 compared. What does not agree is sent again within the budget.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from job.hashing import FileRecord
from job.store.keys import Sent, Stored, safe_key
from job.store.retry import Budget, Damaged, Policy
from job.store.s3_client import code_of, is_absent
from job.store.s3_multipart import Dropped, MultipartUpload, abort, open_uploads
from job.store.s3_parts import Part, etag_of, part_bytes, split
from job.store.s3_session import Reread, Session

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")
PART_BYTES = 64 * 2**20
_CHUNK = 8 * 2**20
# 412 is the answer to a condition that does not hold; 409 the one to a race that was lost.
_CONDITION = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


class S3Store:
    """Keys below `location`; an etag is the object's ETag.

    Args:
        location: `bucket` or `bucket/prefix`.
        aws: AWS_* variables, see `s3_client`.
        policy: how long one operation is tried again while the store is away.
        part_bytes: files of at least this size go up in parts; S3 wants 5 MiB or more, RunPod
            takes at most 500 MB, in one request as in a part.
        reread: gives `aws` as it is now, when the credentials have expired.
    """

    def __init__(
        self,
        location: str,
        aws: Mapping[str, str],
        policy: Policy = Policy(),  # noqa: B008  (frozen)
        *,
        part_bytes: int | None = None,
        reread: Reread | None = None,
    ) -> None:
        self._bucket, _, prefix = location.strip("/").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._part_bytes = part_bytes or PART_BYTES
        self._session = Session(aws, policy, reread)
        self.uri = f"s3://{location.strip('/')}"

    def within(self, seconds: float) -> S3Store:
        store = copy.copy(self)
        store._session = self._session.within(seconds)
        return store

    def get(self, key: str) -> Stored | None:
        def read(client: S3Client) -> Stored | None:
            try:
                reply = client.get_object(**self._at(key))
            except ClientError as error:
                if is_absent(error):
                    return None
                raise
            return Stored(reply["Body"].read(), reply["ETag"])

        return self._do(key, read, writing=False)

    def put(self, key: str, content: bytes) -> None:
        self._do(key, lambda client: client.put_object(**self._at(key), Body=content))

    def put_if_absent(self, key: str, content: bytes) -> str | None:
        return self._put_if(key, content, {"IfNoneMatch": "*"})

    def put_if_match(self, key: str, content: bytes, etag: str) -> str | None:
        return self._put_if(key, content, {"IfMatch": etag})

    def _put_if(self, key: str, content: bytes, condition: dict[str, Any]) -> str | None:
        def write(client: S3Client) -> str | None:
            try:
                reply = client.put_object(**self._at(key), Body=content, **condition)
            except ClientError as error:
                if code_of(error) not in _CONDITION and not is_absent(error):
                    raise
            else:
                return reply["ETag"]
            # An earlier attempt may have been done though its answer was lost.
            found = self.get(key)
            return found.etag if found is not None and found.content == content else None

        return self._do(key, write)

    def put_file(self, key: str, path: Path, record: FileRecord, sent: Sent) -> int:
        parts = split(path, record, part_bytes(record.size, self._part_bytes))
        multipart = record.size >= self._part_bytes
        etag, budget = etag_of(parts, multipart=multipart), self._session.policy.budget()
        if self._holds(key, record, etag, budget):
            sent(record.size)
            return 0
        metadata = {"sha256": record.sha256}

        def upload(client: S3Client) -> int:
            sent.back_to(0)
            if multipart:
                size = self._send_in_parts(key, path, parts, metadata, budget, sent)
            else:
                size = self._send(key, path, parts[0], metadata, budget, sent)
            if not self._holds(key, record, etag, budget, just_sent=True):
                raise Damaged("other bytes than were sent")
            return size

        return self._do(key, upload, budget)

    def _send(
        self,
        key: str,
        path: Path,
        whole: Part,
        metadata: dict[str, str],
        budget: Budget,
        sent: Sent,
    ) -> int:
        def send(client: S3Client) -> None:
            with path.open("rb") as body:
                client.put_object(
                    **self._at(key), Body=body, Metadata=metadata, ContentMD5=whole.content_md5
                )

        self._do(key, send, budget)
        sent(whole.size)
        return whole.size

    def _send_in_parts(
        self,
        key: str,
        path: Path,
        parts: list[Part],
        metadata: dict[str, str],
        budget: Budget,
        sent: Sent,
    ) -> int:
        at, uri = self._at(key), f"{self.uri}/{key}"
        try:
            return MultipartUpload(self._session, uri, at, path, parts, budget).send(metadata, sent)
        except Dropped:
            raise Damaged("parts that the store has lost") from None

    def _holds(
        self, key: str, record: FileRecord, etag: str, budget: Budget, *, just_sent: bool = False
    ) -> bool:
        """Whether the object is the file.

        It is read back in full where its ETag does not tell, and it is of this size and was sent
        as this file.
        """

        def look(client: S3Client) -> Any:
            try:
                return client.head_object(**self._at(key))
            except ClientError as error:
                if is_absent(error):
                    return None
                if code_of(error) in ("400", "403"):  # a HEAD has no body that would say why
                    client.get_object(**self._at(key), Range="bytes=0-0")["Body"].close()
                raise

        head = self._do(key, look, budget, writing=False)
        if head is None or head["ContentLength"] != record.size:
            return False
        if head["ETag"].strip('"') == etag:
            return True
        if not just_sent and head["Metadata"].get("sha256") != record.sha256:
            return False
        return self.digest(key) == (record.size, record.sha256)

    def get_file(self, key: str, path: Path) -> None:
        def read(client: S3Client) -> None:
            client.download_file(self._bucket, self._at(key)["Key"], str(path))

        self._do(key, read, writing=False)

    def digest(self, key: str) -> tuple[int, str] | None:
        def read(client: S3Client) -> tuple[int, str] | None:
            try:
                body = client.get_object(**self._at(key))["Body"]
            except ClientError as error:
                if is_absent(error):
                    return None
                raise
            size, sha256 = 0, hashlib.sha256()
            for chunk in body.iter_chunks(_CHUNK):
                size += len(chunk)
                sha256.update(chunk)
            return size, sha256.hexdigest()

        return self._do(key, read, writing=False)

    def list(self, prefix: str = "") -> list[str]:
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        def read(client: S3Client) -> dict[str, int]:
            pages = client.get_paginator("list_objects_v2")
            found = pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
            items = [item for page in found for item in page.get("Contents", [])]
            return {item["Key"].removeprefix(self._prefix): item["Size"] for item in items}

        return self._do(prefix, read, writing=False)

    def delete(self, key: str) -> None:
        # One by one: RunPod's S3 knows no DeleteObjects.
        self._do(key, lambda client: client.delete_object(**self._at(key)))

    def drop_unfinished(self, prefix: str = "") -> None:
        for upload in open_uploads(self._session, self.uri, self._bucket, self._prefix + prefix):
            abort(self._session, f"s3://{self._bucket}/{upload['Key']}", upload)

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + safe_key(key)}

    def _do(
        self,
        key: str,
        operation: Callable[[S3Client], T],
        budget: Budget | None = None,
        *,
        writing: bool = True,
    ) -> T:
        return self._session.do(f"{self.uri}/{key}", operation, budget, writing=writing)

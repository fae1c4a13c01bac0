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

from boto3.s3.transfer import ProgressCallbackInvoker, TransferConfig, create_transfer_manager
from botocore.exceptions import ClientError

from job.errors import InternalError
from job.hashing import FileRecord
from job.store.keys import Sent, Stored, safe_key
from job.store.retry import BUDGET_SECONDS, QUICK_SECONDS, Damaged, retrying
from job.store.s3_client import (
    ERRORS,
    code_of,
    is_absent,
    is_transient,
    s3_client,
    translated,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")
_MIB = 2**20
_MAX_PARTS = 10_000  # a limit of S3
_CHUNK = 8 * _MIB
# 412 is the answer to a condition that does not hold; 409 the one to a race that was lost.
_CONDITION = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


class S3Store:
    """Keys below `location`; an etag is the object's ETag.

    Args:
        location: `bucket` or `bucket/prefix`.
        aws: AWS_* variables, see `s3_client`.
        budget: seconds for which one operation is tried again while the store is away.
        part_bytes: files of at least this size go up in parts; S3 wants 5 MiB or more.
    """

    def __init__(
        self,
        location: str,
        aws: Mapping[str, str],
        *,
        budget: float = BUDGET_SECONDS,
        part_bytes: int = 64 * _MIB,
    ) -> None:
        self._bucket, _, prefix = location.strip("/").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._budget, self._part_bytes = budget, part_bytes
        self._client: S3Client = s3_client(aws)
        self.uri = f"s3://{location.strip('/')}"

    def quick(self) -> S3Store:
        store = copy.copy(self)
        store._budget = min(self._budget, QUICK_SECONDS)
        return store

    def get(self, key: str) -> Stored | None:
        def read() -> Stored | None:
            try:
                reply = self._client.get_object(**self._at(key))
            except ClientError as error:
                if is_absent(error):
                    return None
                raise
            return Stored(reply["Body"].read(), reply["ETag"])

        return self._do(key, read, writing=False)

    def put(self, key: str, content: bytes) -> None:
        self._do(key, lambda: self._client.put_object(**self._at(key), Body=content))

    def put_if_absent(self, key: str, content: bytes) -> str | None:
        return self._put_if(key, content, {"IfNoneMatch": "*"})

    def put_if_match(self, key: str, content: bytes, etag: str) -> str | None:
        return self._put_if(key, content, {"IfMatch": etag})

    def _put_if(self, key: str, content: bytes, condition: dict[str, Any]) -> str | None:
        def write() -> str | None:
            try:
                reply = self._client.put_object(**self._at(key), Body=content, **condition)
            except ClientError as error:
                if code_of(error) not in _CONDITION and not is_absent(error):
                    raise
            else:
                return reply["ETag"]
            # An earlier attempt may have been done though its answer was lost.
            found = self.get(key)
            return found.etag if found is not None and found.content == content else None

        return self._do(key, write)

    def put_file(self, key: str, path: Path, record: FileRecord, sent: Sent) -> None:
        part = _part_bytes(record.size, self._part_bytes)
        etag = _expected_etag(path, record, part)
        if self._holds(key, record, etag, read_back=False):
            sent(record.size)
            return
        before = sent.done
        config = TransferConfig(multipart_threshold=part, multipart_chunksize=part)

        def upload() -> None:
            sent.back_to(before)
            with create_transfer_manager(self._client, config) as manager:
                manager.upload(
                    str(path),
                    self._bucket,
                    self._at(key)["Key"],
                    extra_args={"Metadata": {"sha256": record.sha256}},
                    subscribers=[ProgressCallbackInvoker(sent)],
                ).result()
            if not self._holds(key, record, etag, read_back=True):
                raise Damaged(f"{self.uri}/{key}")

        self._do(key, upload)

    def _holds(self, key: str, record: FileRecord, etag: str, *, read_back: bool) -> bool:
        """Whether the object is the file; without `read_back` an unfamiliar ETag counts as no."""

        def look() -> bool:
            try:
                head = self._client.head_object(**self._at(key))
            except ClientError as error:
                if is_absent(error):
                    return False
                raise
            return head["ContentLength"] == record.size and head["ETag"].strip('"') == etag

        if self._do(key, look, writing=False):
            return True
        return read_back and self.digest(key) == (record.size, record.sha256)

    def get_file(self, key: str, path: Path) -> None:
        def read() -> None:
            self._client.download_file(self._bucket, self._at(key)["Key"], str(path))

        self._do(key, read, writing=False)

    def digest(self, key: str) -> tuple[int, str] | None:
        def read() -> tuple[int, str] | None:
            try:
                body = self._client.get_object(**self._at(key))["Body"]
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
        def read() -> list[str]:
            pages = self._client.get_paginator("list_objects_v2")
            found = pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
            keys = [item["Key"] for page in found for item in page.get("Contents", [])]
            return sorted(key.removeprefix(self._prefix) for key in keys)

        return self._do(prefix, read, writing=False)

    def delete(self, key: str) -> None:
        self._do(key, lambda: self._client.delete_object(**self._at(key)))

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + safe_key(key)}

    def _do(self, key: str, operation: Callable[[], T], *, writing: bool = True) -> T:
        """Run the operation, again while the store is away, for at most the budget."""
        uri = f"{self.uri}/{key}"
        try:
            return retrying(uri, self._budget, is_transient)(operation)
        except ERRORS as error:
            raise translated(error, uri, writing) from error


def _part_bytes(size: int, least: int) -> int:
    """Bytes of one part, in whole MiB, so that a file has at most 10,000 of them."""
    needed = -(-size // _MAX_PARTS)
    return max(least, -(-needed // _MIB) * _MIB)


def _expected_etag(path: Path, record: FileRecord, part: int) -> str:
    """The ETag that S3 gives this file when it is sent in parts of `part` bytes.

    Raises:
        InternalError: the file is no longer the one that was recorded.
    """
    sha256 = hashlib.sha256()
    parts: list[bytes] = []
    with path.open("rb") as file:
        for _ in range(0, max(record.size, 1), part):
            md5 = hashlib.md5(usedforsecurity=False)
            left = part
            while left and (chunk := file.read(min(_CHUNK, left))):
                md5.update(chunk)
                sha256.update(chunk)
                left -= len(chunk)
            parts.append(md5.digest())
    if sha256.hexdigest() != record.sha256:
        raise InternalError(f"{path.name} changed after it was hashed")
    if record.size < part:
        return parts[0].hex()
    joined = hashlib.md5(b"".join(parts), usedforsecurity=False)
    return f"{joined.hexdigest()}-{len(parts)}"

"""Models and datasets from S3 and stores that speak its protocol (AWS_ENDPOINT_URL_S3)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from job.errors import DataError, NotFound
from job.sources import (
    SMALL,
    FetchedDataset,
    FetchedModel,
    ModelFacts,
    RemoteFile,
    ResolvedDataset,
    transfer,
)
from job.sources.files import fetched_dataset, inside, remove_others
from job.sources.layout import read_layout
from job.sources.s3_errors import code_of, is_transient, told
from job.sources.splits import READ, SUFFIXES, choose_in_folder
from job.sources.transfer import Patience, Tally, retrying

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

    from job.credentials import Credentials
    from job.events import Progress
    from job.spec import ModelRef, Source


T = TypeVar("T")


def client(aws: Mapping[str, str]) -> S3Client:
    """A client with timeouts; one attempt a call, as the retries are job.sources.transfer's."""
    endpoint = aws.get("AWS_ENDPOINT_URL_S3") or aws.get("AWS_ENDPOINT_URL")
    session = boto3.Session(
        aws_access_key_id=aws.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=aws.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=aws.get("AWS_SESSION_TOKEN"),
        region_name=aws.get("AWS_REGION") or aws.get("AWS_DEFAULT_REGION") or "us-east-1",
    )
    config = Config(
        connect_timeout=10,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=transfer.WORKERS,
        # Stores other than AWS break on the newer default; sizes and ETags are checked here.
        response_checksum_validation="when_required",
        request_checksum_calculation="when_required",
    )
    return session.client("s3", endpoint_url=endpoint, config=config)


class Prefix:
    """One `s3://bucket/prefix`, as these credentials see it."""

    def __init__(self, uri: str, credentials: Credentials, where: str) -> None:
        self.bucket, _, self.prefix = uri.removeprefix("s3://").partition("/")
        self.where = where
        self.client = client(credentials.aws)

    def list(self) -> tuple[RemoteFile, ...]:
        """All objects below the prefix; "folders" (names that end in a slash) left out."""
        below = f"{self.prefix}/" if self.prefix else ""
        return self._patiently(lambda: tuple(self._pages(below)))

    def _pages(self, below: str) -> Iterator[RemoteFile]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=below
        )
        for page in pages:
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    etag, modified = item["ETag"].strip('"'), item["LastModified"].timestamp()
                    name = item["Key"].removeprefix(below)
                    yield RemoteFile(name, item["Size"], etag=etag, modified=modified)

    def single(self) -> tuple[RemoteFile, str] | None:
        """The object that has exactly this name, and its version (or ETag); None without one."""

        def look() -> Any:
            try:
                return self.client.head_object(Bucket=self.bucket, Key=self.prefix)
            except ClientError as error:
                # HEAD has no words, and without the right to list S3 answers 403 for what is not
                # there: the listing that follows tells which it is.
                if code_of(error) in ("400", "403", "404"):
                    return None
                raise

        head = self._patiently(look)
        if head is None:
            return None
        etag = head["ETag"].strip('"')
        name = self.prefix.rpartition("/")[2]
        file = RemoteFile(
            name, head["ContentLength"], etag=etag, modified=head["LastModified"].timestamp()
        )
        version = head.get("VersionId", "null")  # "null": written while versions were off
        return file, etag if version == "null" else version

    def key(self, name: str, is_single: bool = False) -> str:
        """The object's key of a file that `list` or `single` gave."""
        return self.prefix if is_single else f"{self.prefix}/{name}".removeprefix("/")

    def read(self, name: str, is_single: bool = False) -> bytes:
        """A small object's content."""
        key = self.key(name, is_single)

        def get() -> bytes:
            return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

        return self._patiently(get)

    def fetch(
        self,
        files: Sequence[RemoteFile],
        into: Path,
        what: str,
        progress: Progress,
        is_single: bool = False,
    ) -> None:
        """Download; complete files of an earlier start (same size and time) stay."""
        tasks = [
            partial(self._fetch_one, file, self.key(file.name, is_single), into) for file in files
        ]
        transfer.run_all(tasks, sum(file.size for file in files), what, progress)

    def _fetch_one(self, file: RemoteFile, key: str, into: Path, tally: Tally) -> None:
        target = inside(into, file.name, self.where)
        modified = file.modified or 0.0
        if target.is_file():
            seen = target.stat()
            if seen.st_size == file.size and abs(seen.st_mtime - modified) < 1:
                tally.add(file.size)
                return

        @contextmanager
        def open_at(offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
            extra: Any = {"Range": f"bytes={offset}-"} if offset else {}
            answer = self.client.get_object(
                Bucket=self.bucket, Key=key, IfMatch=f'"{file.etag}"', **extra
            )
            start = offset if answer["ResponseMetadata"]["HTTPStatusCode"] == 206 else 0
            with closing(answer["Body"]) as body:
                yield start, body.iter_chunks(transfer.CHUNK)

        with transfer.in_words_of(self._told):
            transfer.stream(open_at, target, file.etag, file.size, tally, is_transient)
        os.utime(target, (modified, modified))  # how the next start knows this version

    def _patiently(self, call: Callable[[], T]) -> T:
        with transfer.in_words_of(self._told):
            return retrying(is_transient, Patience(transfer.LOOK_PATIENCE))(call)

    def _told(self, error: BaseException) -> BaseException:
        return told(error, self.where, self.bucket)


def model_facts(ref: ModelRef, credentials: Credentials) -> ModelFacts:
    """As job.sources.model_facts; the revision is a hash of names and ETags."""
    where = f"JOB_MODEL {ref.uri}"
    prefix = Prefix(ref.uri, credentials, where)
    files = prefix.list()
    if not files:
        raise NotFound(f"{where} is empty: there is no object below this prefix; correct it.")
    layout = read_layout(files, prefix.read, where)
    sizes = tuple((file.name, file.size) for file in layout.files)
    revision = _hash_of(layout.files)
    return ModelFacts(
        ref.uri, revision, layout.config, layout.weight_bytes, sizes, False, layout.files
    )


def fetch_model(
    ref: ModelRef, facts: ModelFacts, into: Path, credentials: Credentials, progress: Progress
) -> FetchedModel:
    """As job.sources.fetch_model; refuses objects that were replaced since the look."""
    prefix = Prefix(ref.uri, credentials, f"JOB_MODEL {ref.uri}")
    prefix.fetch(facts.remote, into, "model", progress)
    remove_others(into, facts.remote)
    size = sum(file.size for file in facts.remote)
    return FetchedModel(into, ref.uri, facts.revision, len(facts.remote), size)


def resolve_dataset(source: Source, credentials: Credentials) -> ResolvedDataset:
    """As job.sources.resolve_dataset: one object, or the data files below a prefix."""
    where = f"Dataset {source.uri}"
    prefix = Prefix(source.uri, credentials, where)
    found = prefix.single() if prefix.prefix else None
    if found is not None:
        file, revision = found
        if not file.name.lower().endswith(SUFFIXES):
            raise DataError(f"{where}: read are {READ}; convert it.")
        return ResolvedDataset(source, (file,), revision)
    files = {file.name: file for file in prefix.list()}
    if not files:
        raise NotFound(f"{where}: there is no such object, and none below it; correct the path.")
    chosen = tuple(files[name] for name in choose_in_folder(list(files), source.split, where))
    return ResolvedDataset(source, chosen, _hash_of(chosen))


def fetch_dataset(
    resolved: ResolvedDataset, into: Path, credentials: Credentials, progress: Progress
) -> FetchedDataset:
    """As job.sources.fetch_dataset."""
    source = resolved.source
    prefix = Prefix(source.uri, credentials, f"Dataset {source.uri}")
    names = [file.name for file in resolved.files]
    is_single = len(names) == 1 and prefix.prefix.rpartition("/")[2] == names[0]
    prefix.fetch(resolved.files, into, "dataset", progress, is_single)
    return fetched_dataset(resolved, [into / name for name in names])


def read_small(uri: str, credentials: Credentials, where: str) -> bytes:
    """As job.sources.text.fetch_text."""
    prefix = Prefix(uri, credentials, where)
    found = prefix.single()
    if found is None:
        # A listing is refused or empty where HEAD could not say why.
        prefix.list()
        raise NotFound(f"{where}: there is no such object; correct the address.")
    if found[0].size > SMALL:
        raise DataError(f"{where} has {found[0].size:,} bytes; at most {SMALL:,} are read.")
    return prefix.read(found[0].name, is_single=True)


def _hash_of(files: Sequence[RemoteFile]) -> str:
    lines = sorted(f"{file.name} {file.etag}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()

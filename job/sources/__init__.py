"""Models and datasets from the Hub, S3, https and local folders, by the scheme of their URI.

Each comes in two steps: a light look, which preflight takes before anything is paid for (does it
exist, may we read it, which files, how big, which revision), and the download of what was seen.
The rooms of the single schemes are imported when a source of theirs is asked for.

Every function raises NotFound, AccessRefused or Unavailable; the dataset functions DataError too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from job.credentials import Credentials
    from job.events import Progress
    from job.spec import ModelRef, Source


SMALL = 1 << 20  # bytes


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch.

    Attributes:
        name: relative POSIX path under the source (the whole path for a single object or URL).
        size: bytes; 0 when the server does not say.
        sha256: of the content, where the store tells it (LFS files of the Hub).
        etag: the store's own mark of this content (S3; https, where it may be Last-Modified).
        modified: seconds since 1970 (S3).
    """

    name: str
    size: int
    sha256: str | None = None
    etag: str | None = None
    modified: float | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What a look at a model tells.

    Attributes:
        revision: the commit on the Hub, the hash of names and ETags on S3, None for a folder.
        config: the content of config.json.
        weight_bytes: size of the safetensors that will be loaded.
        files: name and size of every file that will be fetched.
        is_local: the model is a folder here and is used in place.
        remote: the same files with what else their store tells about them.
        licence: `license`, `license_name` and `license_link` of its card on the Hub, as far as
            there; a name that the Hub has taken once, it takes again.
    """

    uri: str
    revision: str | None
    config: dict[str, Any]
    weight_bytes: int
    files: tuple[tuple[str, int], ...]
    is_local: bool
    remote: tuple[RemoteFile, ...] = field(default=(), repr=False)
    licence: dict[str, Any] = field(default_factory=dict)

    def without_weights(self) -> ModelFacts:
        """The same model as its config, tokenizer and chat template alone."""
        small = tuple(file for file in self.remote if "safetensors" not in file.name)
        return replace(self, remote=small, files=tuple((file.name, file.size) for file in small))


@dataclass(frozen=True)
class FetchedModel:
    """A model that lies in a folder here, complete; `size` in bytes."""

    path: Path
    uri: str
    revision: str | None
    files: int
    size: int


@dataclass(frozen=True)
class ResolvedDataset:
    """The data files of one source, seen but not fetched; `revision` as in FetchedDataset."""

    source: Source
    files: tuple[RemoteFile, ...]
    revision: str | None

    @property
    def size(self) -> int:
        """Bytes in all, as far as the store tells."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class FetchedDataset:
    """The data files of one source, here.

    Attributes:
        files: in the order in which their rows count.
        revision: commit (Hub), version or ETag (S3; of several objects, a hash of names and ETags),
            ETag or Last-Modified (https), None (path).
        size: bytes in all.
        sha256: of the file; of several, the SHA-256 of their sorted hex digests, one after another.
    """

    source: Source
    files: tuple[Path, ...]
    revision: str | None
    size: int
    sha256: str


def model_facts(ref: ModelRef, credentials: Credentials) -> ModelFacts:
    """Look at a model: its commit, config.json, files and sizes; nothing is kept on disk.

    Raises:
        NotFound: no such repository, revision, bucket or folder, or a part of the model is missing.
        AccessRefused: it is gated or private, or the credentials are wrong.
        Unavailable: the store does not answer.
    """
    if ref.scheme == "hf":
        from job.sources import hub

        return hub.model_facts(ref, credentials)
    if ref.scheme == "s3":
        from job.sources import s3

        return s3.model_facts(ref, credentials)
    from job.sources import local

    return local.model_facts(ref)


def fetch_model(
    ref: ModelRef, facts: ModelFacts, into: Path, credentials: Credentials, progress: Progress
) -> FetchedModel:
    """Download the model as `facts` saw it into the folder `into`; a local one stays in place.

    May be called again after an interruption: complete files are kept, the others fetched. The
    callback runs in the calling thread, once a second; what it raises ends the download.

    Raises:
        OutOfResources: the disk is full; otherwise as model_facts.
    """
    if ref.scheme == "hf":
        from job.sources import hub

        return hub.fetch_model(ref, facts, into, credentials, progress)
    if ref.scheme == "s3":
        from job.sources import s3

        return s3.fetch_model(ref, facts, into, credentials, progress)
    path = Path(ref.uri)
    return FetchedModel(path, ref.uri, None, len(facts.files), sum(size for _, size in facts.files))


def resolve_dataset(source: Source, credentials: Credentials) -> ResolvedDataset:
    """Look at a dataset: which files hold the split, their sizes and revision.

    Raises:
        DataError: its files are of a kind that is not read (scripts, pickles, other suffixes).
    """
    if source.scheme == "hf":
        from job.sources import hub

        return hub.resolve_dataset(source, credentials)
    if source.scheme == "s3":
        from job.sources import s3

        return s3.resolve_dataset(source, credentials)
    if source.scheme == "https":
        from job.sources import https

        return https.resolve_dataset(source)
    from job.sources import local

    return local.resolve_dataset(source)


def fetch_dataset(
    resolved: ResolvedDataset, into: Path, credentials: Credentials, progress: Progress
) -> FetchedDataset:
    """Download the files that resolve_dataset chose into the folder `into`; local ones stay.

    Raises:
        DataError: the content does not have the `sha256=` of the source, or is over a size limit.
    """
    scheme = resolved.source.scheme
    if scheme == "hf":
        from job.sources import hub

        return hub.fetch_dataset(resolved, into, credentials, progress)
    if scheme == "s3":
        from job.sources import s3

        return s3.fetch_dataset(resolved, into, credentials, progress)
    if scheme == "https":
        from job.sources import https

        return https.fetch_dataset(resolved, into, progress)
    from job.sources import local

    return local.fetch_dataset(resolved)

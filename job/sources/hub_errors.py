"""What the Hub's client raises, in the words of job.errors."""

from __future__ import annotations

from typing import Any

import httpx
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from job.errors import AccessRefused, JobError, NotFound, SpecError, Unavailable


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    error = _root(error)
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    if isinstance(error, OfflineModeIsEnabled):
        return False
    # hf_xet has RuntimeError for whatever goes wrong on the network after its own retries.
    return isinstance(error, httpx.TransportError | ConnectionError | TimeoutError | RuntimeError)


def told(error: BaseException, where: str, kind: str, revision: str | None) -> BaseException:
    """The error to raise instead: a JobError for what was foreseen, else `error` itself.

    Args:
        where: what messages call the repository, e.g. `JOB_MODEL hf://org/name`.
        kind: `model` or `dataset`.
    """
    error = _root(error)
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        return _refused(error, status, where, kind)
    if isinstance(error, RevisionNotFoundError):
        return NotFound(
            f"{where} has no revision {revision!r}: give a branch, a tag or a commit that it has, "
            "or leave @revision out for main."
        )
    if isinstance(error, EntryNotFoundError) and status == 404:
        return NotFound(f"{where}: a file that it lists is not there (404).")
    if isinstance(error, OfflineModeIsEnabled):
        return SpecError(f"{where}: HF_HUB_OFFLINE is set; unset it, or give an absolute path.")
    if isinstance(error, FileMetadataError):
        return Unavailable(f"{where}: what answered is no Hub; check HF_ENDPOINT and any proxy.")
    if is_transient(error):
        seen = f"it answered {status}" if status else type(error).__name__
        return Unavailable(f"{where}: the Hub cannot be reached ({seen}). Try again later.")
    return error


def _refused(error: Any, status: int | None, where: str, kind: str) -> JobError:
    if isinstance(error, GatedRepoError):
        return AccessRefused(
            f"{where} is gated ({status}): accept its terms on its page on the Hub, then set "
            "HF_TOKEN to a token of that account."
        )
    if isinstance(error, RepositoryNotFoundError) and status == 404:
        return NotFound(
            f"{where}: the Hub has no such {kind} for this token (404). Check the spelling; a "
            "private repository answers the same to a token that may not read it."
        )
    if isinstance(error, RepositoryNotFoundError):
        return AccessRefused(
            f"{where}: the Hub refused ({status}). It does not exist, is private or is gated: "
            "check the spelling, and set HF_TOKEN to a token that may read it."
        )
    return AccessRefused(
        f"{where}: the Hub refused ({status}). HF_TOKEN is wrong, expired, or may not read this "
        "repository: make a new token with read access."
    )


def _root(error: BaseException) -> Any:
    """The client hides what a HEAD request met behind "not found locally"."""
    hidden = isinstance(error, LocalEntryNotFoundError | ValueError)
    return _root(error.__cause__) if hidden and error.__cause__ else error

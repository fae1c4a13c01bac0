"""One atomic commit to the Hub that is made once, even when its answer is lost, and verified.

How an upload is verified: after the commit the Hub is asked what it holds at that commit. Size and
SHA-256 of LFS and Xet files must be the recorded ones, and the git object id of every other file
the one computed here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from job.errors import UploadFailed
from job.store.hub_client import Asking, ask, status_of
from job.store.hub_read import entries


@dataclass(frozen=True)
class Upload:
    """The content of one file, and what it must be: bytes and SHA-256."""

    source: Path | bytes
    size: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> Upload:
        return cls(content, len(content), hashlib.sha256(content).hexdigest())

    def git_oid(self) -> str:
        """What git calls this content; only for files that are not in LFS, which are small."""
        content = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        header = b"blob %d\0" % len(content)
        return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Change:
    """What one commit does."""

    title: str
    description: str
    uploads: Mapping[str, Upload]  # by path in the repository
    deletions: Sequence[str] = ()


def push(api: HfApi, repo: str, change: Change, parent: str, asking: Asking) -> str:
    """Make the commit on top of `parent` and verify it; the commit's id (40 hex digits).

    After an error the Hub is asked first whether the commit was made all the same. Nothing to
    change makes no commit: then the id is the head's.

    Raises:
        DestinationTaken: the repository's head is not `parent`.
        UploadFailed: the Hub stayed away, or holds something else than what was sent.
        AccessRefused, NotFound.
    """
    what = f"hf://{repo}"
    tries = 0

    def attempt() -> str:
        nonlocal tries
        tries += 1
        if tries > 1 and (landed := _landed(api, repo, change, parent)):
            return landed
        try:
            return _commit(api, repo, change, parent)
        except HfHubHTTPError as error:
            # An earlier attempt may have been slower than its deadline, and this one lost to it.
            if status_of(error) != 412 or tries == 1:
                raise
            if not (landed := _landed(api, repo, change, parent)):
                raise
            return landed

    oid = ask(what, asking, attempt, writing=True)
    wrong = ask(what, asking, lambda: differences(api, repo, oid, change.uploads))
    if wrong:
        message = f"{what}: {len(wrong)} files are not what was sent"
        raise UploadFailed(message, problems=wrong[:20])
    return oid


def _commit(api: HfApi, repo: str, change: Change, parent: str) -> str:
    additions = [CommitOperationAdd(path, up.source) for path, up in change.uploads.items()]
    deletions = [CommitOperationDelete(path, is_folder=False) for path in change.deletions]
    made = api.create_commit(
        repo,
        [*additions, *deletions],
        commit_message=change.title,
        commit_description=change.description,
        parent_commit=parent,
    )
    return str(made.oid)


def _landed(api: HfApi, repo: str, change: Change, parent: str) -> str | None:
    """The head, if it is a later commit that holds all that was to be sent."""
    head = head_of(api, repo)
    if head == parent or differences(api, repo, head, change.uploads):
        return None
    return head


def head_of(api: HfApi, repo: str) -> str:
    """The newest commit of main."""
    return str(api.model_info(repo).sha)


def differences(api: HfApi, repo: str, revision: str, uploads: Mapping[str, Upload]) -> list[str]:
    """What the Hub does not hold as it should at this revision, one text a file."""
    paths = list(uploads)
    found = entries(api, repo, paths, revision)
    wrong = [path for path in paths if path in found and not _is(found[path], uploads[path])]
    missing = [path for path in paths if path not in found]
    return [f"{path}: missing" for path in missing] + [f"{path}: other bytes" for path in wrong]


def _is(stored: RepoFile, upload: Upload) -> bool:
    if stored.size != upload.size:
        return False
    if stored.lfs is not None:
        return stored.lfs.sha256 == upload.sha256
    return stored.blob_id == upload.git_oid()

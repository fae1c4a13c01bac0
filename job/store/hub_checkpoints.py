"""Checkpoints on the Hub: on a branch of their own, so that `main` only ever holds results.

Each commit to the branch `checkpoints` adds one and removes the ones that are no longer needed: a
reader sees only whole ones. The branch is deleted after success.
"""

from __future__ import annotations

import contextlib
import shutil
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download

from job.checkpoints import COMPLETE, FOLDER, Checkpoint, step_of, superfluous
from job.errors import NotFound
from job.store.hub_client import Asking, ask
from job.store.hub_read import read
from job.store.keys import STARTS, safe_key

BRANCH = "checkpoints"


def put(api: HfApi, repo: str, checkpoint: Checkpoint, asking: Asking) -> None:
    """Commit a checkpoint; in the same commit all but this and the one before it go."""
    what, name = f"hf://{repo}@{BRANCH}", checkpoint.folder.name
    make = partial(api.create_branch, repo, branch=BRANCH, exist_ok=True)
    ask(what, asking, make, writing=True)
    paths = [*(record.path for record in checkpoint.files), COMPLETE]
    there = _files(api, repo, asking)
    old = superfluous(_names(there), name)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(f"{FOLDER}/{name}/{path}", checkpoint.folder / path) for path in paths
    ]
    operations += [
        CommitOperationDelete(file, is_folder=False)
        for file in there
        if file.startswith(tuple(f"{FOLDER}/{gone}/" for gone in old))
    ]
    title = f"checkpoint {checkpoint.step}"
    commit = partial(api.create_commit, repo, operations, commit_message=title, revision=BRANCH)
    ask(what, asking, commit, writing=True)  # made twice, after a lost reply, it changes nothing


def names(api: HfApi, repo: str, asking: Asking) -> list[str]:
    """The names of the checkpoints there, oldest first."""
    return _names(_files(api, repo, asking))


def get(api: HfApi, repo: str, name: str, into: Path, asking: Asking) -> None:
    """Download a checkpoint into an empty folder, `COMPLETE` included; nothing is verified."""
    prefix = f"{FOLDER}/{name}/"
    for file in _files(api, repo, asking):
        if file.startswith(prefix):
            fetch = partial(
                hf_hub_download,
                repo,
                file,
                revision=BRANCH,
                local_dir=into / ".hub",
                token=api.token,
                endpoint=api.endpoint,
            )
            path = into / safe_key(file.removeprefix(prefix))
            path.parent.mkdir(parents=True, exist_ok=True)
            Path(ask(f"hf://{repo}@{BRANCH}", asking, fetch)).rename(path)
    shutil.rmtree(into / ".hub", ignore_errors=True)  # the client's own notes


def read_starts(api: HfApi, repo: str, asking: Asking) -> bytes | None:
    """The count of starts, None when there is none."""
    return read(api, repo, STARTS, asking, BRANCH)


def write_starts(api: HfApi, repo: str, content: bytes | None, asking: Asking) -> None:
    """Keep this count, or none. A repository that no start has made yet keeps nothing."""
    what = f"hf://{repo}@{BRANCH}"
    there = content is not None or read_starts(api, repo, asking) is not None
    with contextlib.suppress(NotFound):
        if content is not None:
            make = partial(api.create_branch, repo, branch=BRANCH, exist_ok=True)
            ask(what, asking, make, writing=True)
        change: CommitOperationAdd | CommitOperationDelete = (
            CommitOperationAdd(STARTS, content)
            if content is not None
            else CommitOperationDelete(STARTS, is_folder=False)
        )
        commit = partial(
            api.create_commit, repo, [change], commit_message="starts", revision=BRANCH
        )
        if there:
            ask(what, asking, commit, writing=True)


def drop(api: HfApi, repo: str, asking: Asking) -> None:
    """Delete the branch, where there is one."""
    with contextlib.suppress(NotFound):
        ask(f"hf://{repo}", asking, partial(api.delete_branch, repo, branch=BRANCH), writing=True)


def _files(api: HfApi, repo: str, asking: Asking) -> list[str]:
    listing = partial(api.list_repo_files, repo, revision=BRANCH)
    try:
        return [f for f in ask(f"hf://{repo}", asking, listing) if f.startswith(f"{FOLDER}/")]
    except NotFound:
        return []


def _names(files: list[str]) -> list[str]:
    return sorted({file.split("/")[1] for file in files}, key=step_of)

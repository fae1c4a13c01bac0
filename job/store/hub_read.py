"""Reading back from the Hub: a small file, or the size and SHA-256 of a large one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import get_session, hf_raise_for_status

from job.errors import NotFound
from job.store.hub_client import Asking, ask

_CHUNK = 8 * 2**20
_PATHS_PER_REQUEST = 500


def read(api: HfApi, repo: str, path: str, asking: Asking, revision: str = "main") -> bytes | None:
    """A small file at the head of a branch; None when it, branch or repository is not there."""
    try:
        return ask(f"hf://{repo}", asking, lambda: b"".join(_stream(api, repo, path, revision)))
    except NotFound:
        return None


def sizes(
    api: HfApi, repo: str, paths: Sequence[str], revision: str, asking: Asking
) -> dict[str, int]:
    """Bytes by path of the files that are there; none when repository or revision is not."""
    try:
        found = ask(f"hf://{repo}", asking, lambda: entries(api, repo, paths, revision))
    except NotFound:
        return {}
    return {path: entry.size for path, entry in found.items()}


def entries(api: HfApi, repo: str, paths: Sequence[str], revision: str) -> dict[str, RepoFile]:
    """What the Hub holds at these paths at this revision."""
    found: dict[str, RepoFile] = {}
    for start in range(0, len(paths), _PATHS_PER_REQUEST):
        some = list(paths[start : start + _PATHS_PER_REQUEST])
        answer = api.get_paths_info(repo, some, revision=revision)
        found |= {entry.path: entry for entry in answer if isinstance(entry, RepoFile)}
    return found


def digest(
    api: HfApi, repo: str, path: str, revision: str, asking: Asking
) -> tuple[int, str] | None:
    """Size and SHA-256 of the content, read in full; None when there is no such file."""

    def hashed() -> tuple[int, str]:
        size, sha256 = 0, hashlib.sha256()
        for chunk in _stream(api, repo, path, revision):
            size += len(chunk)
            sha256.update(chunk)
        return size, sha256.hexdigest()

    try:
        return ask(f"hf://{repo}", asking, hashed)
    except NotFound:
        return None


def _stream(api: HfApi, repo: str, path: str, revision: str) -> Iterator[bytes]:
    url = hf_hub_url(repo, path, revision=revision, endpoint=api.endpoint)
    headers = build_hf_headers(token=api.token, headers={"Accept-Encoding": "identity"})
    with get_session().stream("GET", url, headers=headers) as response:
        hf_raise_for_status(response)
        yield from response.iter_bytes(_CHUNK)

"""Files that were fetched: where a name may lead, what must not stay, whether they are the ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from job.errors import DataError
from job.hashing import hash_file
from job.sources import FetchedDataset, RemoteFile, ResolvedDataset


def inside(folder: Path, name: str, where: str) -> Path:
    """The path of `name` in `folder`. Raises DataError for a name that leads outside."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name:
        raise DataError(f"{where} names a file {name!r} that would lie outside its folder.")
    return folder.joinpath(*parts)


def remove_others(folder: Path, files: Sequence[RemoteFile]) -> None:
    """Drop what an earlier download of another revision left: a loader would pick it up."""
    keep = {folder.joinpath(*PurePosixPath(file.name).parts) for file in files}
    for path in sorted(folder.rglob("*")):
        is_own = path.relative_to(folder).parts[0] == ".cache"  # the Hub client's notes
        if path.is_file() and path not in keep and not is_own:
            path.unlink()


def fetched_dataset(resolved: ResolvedDataset, paths: Sequence[Path]) -> FetchedDataset:
    """Hash the files and hold them against the `sha256=` of the source. Raises DataError."""
    source = resolved.source
    digests = [hash_file(path) for path in paths]
    joined = "".join(sorted(digests)).encode()
    digest = digests[0] if len(digests) == 1 else hashlib.sha256(joined).hexdigest()
    if source.sha256 is not None and source.sha256.lower() != digest:
        raise DataError(
            f"JOB_DATASET {source.uri}: its {_count(paths)} sha256 {digest}, the spec asks for "
            f"{source.sha256.lower()}. The data changed: look at it, then update sha256=."
        )
    size = sum(path.stat().st_size for path in paths)
    return FetchedDataset(source, tuple(paths), resolved.revision, size, digest)


def _count(paths: Sequence[Path]) -> str:
    if len(paths) == 1:
        return "file has"
    return f"{len(paths)} files together (the sorted digests, hashed) have"

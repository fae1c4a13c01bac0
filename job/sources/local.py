"""Models and datasets that lie in a folder here: looked at and used in place, never copied."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from job.errors import AccessRefused, DataError, NotFound
from job.sources import FetchedDataset, ModelFacts, RemoteFile, ResolvedDataset
from job.sources.files import fetched_dataset
from job.sources.layout import read_layout
from job.sources.splits import READ, SUFFIXES, choose_in_folder

if TYPE_CHECKING:
    from job.spec import ModelRef, Source


def model_facts(ref: ModelRef) -> ModelFacts:
    """As job.sources.model_facts, for an absolute folder; links are followed."""
    where, folder = f"JOB_MODEL {ref.uri}", Path(ref.uri)
    if not folder.is_dir():
        raise NotFound(f"{where} is no folder here: mount it into the container, or correct it.")
    files = _list(folder, where)
    layout = read_layout(files, lambda name: (folder / name).read_bytes(), where)
    sizes = tuple((file.name, file.size) for file in layout.files)
    return ModelFacts(
        ref.uri, None, layout.config, layout.weight_bytes, sizes, is_local=True, remote=layout.files
    )


def resolve_dataset(source: Source) -> ResolvedDataset:
    """As job.sources.resolve_dataset, for an absolute path of a file or a folder of data files."""
    where, path = f"Dataset {source.uri}", Path(source.uri)
    if path.is_dir():
        files = {file.name: file for file in _list(path, where)}
        names = choose_in_folder(list(files), source.split, where)
        return ResolvedDataset(source, tuple(files[name] for name in names), None)
    if not path.is_file():
        raise NotFound(f"{where} is not here: mount it into the container, or correct the path.")
    if not path.name.lower().endswith(SUFFIXES):
        raise DataError(f"{where}: read are {READ}; convert it.")
    if not os.access(path, os.R_OK):
        raise _unreadable(where)
    return ResolvedDataset(source, (RemoteFile(path.name, path.stat().st_size),), None)


def fetch_dataset(resolved: ResolvedDataset) -> FetchedDataset:
    """As job.sources.fetch_dataset: hashes the files where they are."""
    path = Path(resolved.source.uri)
    folder = path if path.is_dir() else path.parent
    return fetched_dataset(resolved, [folder / file.name for file in resolved.files])


def _list(folder: Path, where: str) -> list[RemoteFile]:
    """All files below the folder; a dangling link is as good as a missing file."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise _unreadable(where)
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    if closed := [path.name for path in found if not os.access(path, os.R_OK)]:
        raise _unreadable(f"{where} ({', '.join(closed[:5])})")
    return [RemoteFile(path.relative_to(folder).as_posix(), path.stat().st_size) for path in found]


def _unreadable(where: str) -> AccessRefused:
    return AccessRefused(
        f"{where} is not readable for this user (uid {os.getuid()}): chmod a+rX it, or run the "
        "container with --user."
    )

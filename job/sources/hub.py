"""Models and datasets from the Hugging Face Hub, always at one commit.

The Hub's own client downloads (Xet where it can); it keeps complete files of an earlier start, but
neither checks what it kept nor retries a file that failed, so both are done here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.utils import logging as hub_logging

from job.errors import Unavailable
from job.hashing import hash_file
from job.sources import (
    FetchedDataset,
    FetchedModel,
    ModelFacts,
    RemoteFile,
    ResolvedDataset,
    transfer,
)
from job.sources.files import fetched_dataset, inside, remove_others
from job.sources.hub_errors import is_transient, told
from job.sources.layout import read_layout
from job.sources.splits import choose_in_repository
from job.sources.transfer import Incomplete, Patience, Tally, retrying

if TYPE_CHECKING:
    from job.credentials import Credentials
    from job.events import Progress
    from job.spec import ModelRef, Source

LICENCE = ("license", "license_name", "license_link")
TIMEOUT = 15.0  # seconds for one answer about a repository; downloads have the client's 10 s
hub_logging.set_verbosity_error()  # its warnings print download URLs with their signatures


class Look(NamedTuple):
    """A repository's commit (40 hex digits) that the revision names, all files, card metadata."""

    commit: str
    files: tuple[RemoteFile, ...]
    card: dict[str, Any]


class Repository:
    """One repository at one revision, as this token sees it."""

    def __init__(
        self, kind: str, uri: str, revision: str | None, credentials: Credentials, where: str
    ) -> None:
        self.kind, self.name, self.where = kind, uri.removeprefix("hf://"), where
        self.revision = revision
        self.token: str | bool = credentials.hf_token or False  # False: look for none elsewhere
        self.endpoint = credentials.hf_endpoint

    def look(self) -> Look:
        """What is there now."""
        api = HfApi(endpoint=self.endpoint, token=self.token)
        info = self._patiently(
            lambda: api.repo_info(
                self.name,
                repo_type=self.kind,
                revision=self.revision,
                files_metadata=True,
                timeout=TIMEOUT,
            )
        )
        files = [
            RemoteFile(
                sibling.rfilename, sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None
            )
            for sibling in info.siblings or []
        ]
        card = info.card_data.to_dict() if info.card_data else {}
        return Look(str(info.sha), tuple(files), card)

    def read(self, commit: str, name: str) -> bytes:
        """A small file's content."""
        with tempfile.TemporaryDirectory(prefix="look-") as folder:
            get = partial(self._download, commit, name, Path(folder))
            return Path(self._patiently(get)).read_bytes()

    def check_readable(self, commit: str, name: str) -> None:
        """Ask for a file without reading it: a gate lets everybody look, but not download."""
        url = hf_hub_url(
            self.name, name, repo_type=self.kind, revision=commit, endpoint=self.endpoint
        )
        self._patiently(
            lambda: get_hf_file_metadata(
                url, token=self.token, timeout=TIMEOUT, endpoint=self.endpoint
            )
        )

    def fetch(
        self, commit: str, files: Sequence[RemoteFile], into: Path, what: str, progress: Progress
    ) -> None:
        """Download files into a folder, checked by size and, where the Hub tells it, SHA-256."""
        into.mkdir(parents=True, exist_ok=True)
        tasks = [partial(self._fetch_one, commit, file, into) for file in files]
        transfer.run_all(tasks, sum(file.size for file in files), what, progress)

    def _fetch_one(self, commit: str, file: RemoteFile, into: Path, tally: Tally) -> None:
        """One file, again while the Hub fails, and once more when what came is not right."""
        target = inside(into, file.name, self.where)
        patience, counted, is_damaged = Patience(transfer.PATIENCE), 0, False

        def count(size: int) -> None:
            nonlocal counted
            tally.add(size)
            counted += size
            patience.renew()

        def attempt() -> None:
            nonlocal is_damaged
            count(-counted)
            self._download(commit, file.name, into, is_damaged, counting_bar(count))
            if target.stat().st_size == file.size and _has_hash(target, file):
                count(file.size - counted)
                return
            if is_damaged:
                raise Unavailable(
                    f"{self.where}: {file.name} came twice with another size or SHA-256 than the "
                    "Hub states. Run the job again; if it stays, upload the file anew."
                )
            is_damaged = True
            raise Incomplete(file.name)

        with transfer.in_words_of(self._told):
            retrying(_is_worth_another, patience, tally.stopped)(attempt)

    def _download(
        self,
        commit: str,
        name: str,
        into: Path,
        force: bool = False,
        bar: type[Any] | None = None,
    ) -> str:
        return hf_hub_download(
            self.name,
            name,
            repo_type=self.kind,
            revision=commit,
            local_dir=into,
            token=self.token,
            endpoint=self.endpoint,
            force_download=force,
            tqdm_class=bar,
        )

    def _patiently(self, call: Callable[[], Any]) -> Any:
        with transfer.in_words_of(self._told):
            return retrying(is_transient, Patience(transfer.LOOK_PATIENCE))(call)

    def _told(self, error: BaseException) -> BaseException:
        return told(error, self.where, self.kind, self.revision)


def model_facts(ref: ModelRef, credentials: Credentials) -> ModelFacts:
    """As job.sources.model_facts; the revision becomes a commit here."""
    where = f"JOB_MODEL {ref.uri}"
    repository = Repository("model", ref.uri, ref.revision, credentials, where)
    commit, files, card = repository.look()
    layout = read_layout(files, partial(repository.read, commit), where)
    sizes = tuple((file.name, file.size) for file in layout.files)
    return ModelFacts(
        ref.uri, commit, layout.config, layout.weight_bytes, sizes, False, layout.files,
        licence={key: card[key] for key in LICENCE if card.get(key)},
    )  # fmt: skip


def fetch_model(
    ref: ModelRef, facts: ModelFacts, into: Path, credentials: Credentials, progress: Progress
) -> FetchedModel:
    """As job.sources.fetch_model, at the commit of `facts`."""
    where = f"JOB_MODEL {ref.uri}"
    repository = Repository("model", ref.uri, facts.revision, credentials, where)
    repository.fetch(str(facts.revision), facts.remote, into, "model", progress)
    remove_others(into, facts.remote)
    size = sum(file.size for file in facts.remote)
    return FetchedModel(into, ref.uri, facts.revision, len(facts.remote), size)


def resolve_dataset(source: Source, credentials: Credentials) -> ResolvedDataset:
    """As job.sources.resolve_dataset."""
    where = f"Dataset {source.uri}"
    repository = Repository("dataset", source.uri, source.revision, credentials, where)
    commit, files, _ = repository.look()
    by_name = {file.name: file for file in files}
    readme = None
    if "README.md" in by_name:
        readme = repository.read(commit, "README.md").decode("utf-8", errors="replace")
    names = choose_in_repository(list(by_name), readme, source.split, source.config, where)
    repository.check_readable(commit, names[0])
    return ResolvedDataset(source, tuple(by_name[name] for name in names), commit)


def fetch_dataset(
    resolved: ResolvedDataset, into: Path, credentials: Credentials, progress: Progress
) -> FetchedDataset:
    """As job.sources.fetch_dataset."""
    source, commit = resolved.source, str(resolved.revision)
    where = f"Dataset {source.uri}"
    repository = Repository("dataset", source.uri, commit, credentials, where)
    repository.fetch(commit, resolved.files, into, "dataset", progress)
    return fetched_dataset(resolved, [into / file.name for file in resolved.files])


def _has_hash(path: Path, file: RemoteFile) -> bool:
    return file.sha256 is None or hash_file(path) == file.sha256


def _is_worth_another(error: BaseException) -> bool:
    return isinstance(error, Incomplete) or is_transient(error)


def counting_bar(count: Callable[[int], None]) -> type[Any]:
    """A progress bar, as the client wants one, that only counts bytes."""

    class Bar:
        def __init__(self, *args: object, initial: int = 0, **kwargs: object) -> None:
            self.total: int | None = None
            count(initial)

        def __enter__(self) -> Bar:
            return self

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            pass

        def update(self, size: float | None = 1) -> None:
            count(int(size or 0))

        def refresh(self, *args: object, **kwargs: object) -> None:
            pass

        # Xet counts network bytes beside those written; without `update_transfer` it would make
        # a second bar for them and every byte would count twice.
        close = set_postfix_str = update_transfer = set_transfer_postfix_str = refresh

    return Bar

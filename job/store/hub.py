"""The Hugging Face Hub as a destination: one repository, or two when adapter and merged are saved.

There is no claim file. The heads of the repositories are remembered at `acquire`, each commit names
its parent, and the Hub refuses one whose parent is no longer the head: of two runs at once, one
gets nothing more in. Each commit says in its description which spec it belongs to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from huggingface_hub import CommitOperationAdd, HfApi

from job.errors import AccessRefused, DestinationTaken, NotFound, SpecError
from job.hashing import FileRecord
from job.receipt import another_run, parse_failure, parse_receipt
from job.store import hub_checkpoints, is_finished, retry
from job.store.claim import Claim
from job.store.hub_client import Asking, ask, prepare_client
from job.store.hub_push import Change, Upload, head_of, push
from job.store.hub_read import digest, read, sizes
from job.store.keys import safe_key
from job.store.objects import FAILURE, RECEIPT
from job.store.retry import BUDGET_SECONDS, QUICK_SECONDS, Emit, to_logging

if TYPE_CHECKING:
    from job.checkpoints import Checkpoint
    from job.credentials import Credentials
    from job.store import Part, Progress

_SPEC = re.compile(r"^spec ([0-9a-f]{64})$", re.MULTILINE)
T = TypeVar("T")


@dataclass(frozen=True)
class _Place:
    """Where a part lies: repository, folder in it (`""` or `report/`), commit."""

    repo: str
    folder: str
    commit: str = "main"


class HubDestination:
    """One run on the Hub; see `job.store.Destination` for the meaning of each method.

    Args:
        repo: `org/name`, a model repository. It gets the merged weights, or the adapter when no
            merged weights are saved, and the report and the receipt; `org/name-lora` gets the
            adapter when both are saved.
        run_name: for the titles of the commits.
        saves: what the spec saves, e.g. `("lora", "merged_16bit")`.
        credentials: without a token it only reads, and only what is public.
        private: whether repositories that do not exist yet are made private.
        budget: seconds for which one request is tried again while the Hub is away; results are
            sent with more patience.
        emit: hears of each retry and each part that is there.
    """

    def __init__(
        self,
        repo: str,
        run_name: str,
        saves: tuple[str, ...],
        credentials: Credentials,
        *,
        private: bool,
        budget: float = BUDGET_SECONDS,
        emit: Emit = to_logging,
    ) -> None:
        prepare_client()
        self.uri = f"hf://{repo}"
        self._repo, self._run_name, self._private = repo, run_name, private
        self._credentials, self.emit = credentials, emit
        self._api = HfApi(endpoint=credentials.hf_endpoint, token=credentials.hf_token or False)
        self._asking = Asking(budget, emit, self._renew)
        self._quick = self._asking.within(QUICK_SECONDS)
        self._patient = self._asking.within(retry.UPLOAD_SECONDS)
        merged = any(save.startswith("merged") for save in saves)
        adapter = f"{repo}-lora" if merged and "lora" in saves else repo
        self._places = {
            "adapter": _Place(adapter, ""),
            "merged": _Place(repo, ""),
            "report": _Place(repo, "report/"),
        }
        self._repos = [repo] if adapter == repo else [repo, adapter]
        self._heads: dict[str, str] = {}  # empty as long as nothing may be written
        self._spec_hash = ""

    def check(self) -> None:
        """Make the repositories and ask the Hub to prepare an upload, which changes nothing."""
        if self._credentials.hf_token is None:
            raise AccessRefused(f"{self.uri}: set HF_TOKEN to a token with write access")
        me = ask(self.uri, self._quick, self._api.whoami)
        if me.get("auth", {}).get("accessToken", {}).get("role") == "read":
            message = f"{self.uri}: HF_TOKEN is a read-only token; make one with write access"
            raise AccessRefused(message)
        for repo in self._repos:
            self._ensure(repo)
            probe = [CommitOperationAdd("probe.txt", b"probe")]
            prepare = partial(self._api.preupload_lfs_files, repo, probe)
            ask(f"hf://{repo}", self._quick, prepare)

    def _ensure(self, repo: str) -> str:
        """The repository's head; a repository that is not there is made."""
        head = partial(head_of, self._api, repo)
        try:
            return ask(f"hf://{repo}", self._quick, head)
        except NotFound:
            make = partial(self._api.create_repo, repo, private=self._private, exist_ok=True)
            ask(f"hf://{repo}", self._quick, make)
            return ask(f"hf://{repo}", self._quick, head)

    def _renew(self) -> bool:
        try:
            token = self._credentials.again().hf_token
        except SpecError:  # its file is gone or empty
            return False
        is_another = token is not None and token != self._api.token
        if is_another:
            self._api.token = token
        return is_another

    def read_receipt(self) -> dict[str, Any] | None:
        """Raises DestinationTaken when `receipt.json` is not a receipt of this program."""
        asking = self._patient if self._heads else self._asking
        content = read(self._api, self._repo, RECEIPT, asking)
        return None if content is None else parse_receipt(content, f"{self.uri}/{RECEIPT}")

    def acquire(self, claim: Claim) -> None:
        """Remember the heads; nothing is waited for.

        Raises:
            DestinationTaken: also when there are weights that no run of this spec put there.
        """
        heads = {repo: self._ensure(repo) for repo in self._repos}
        if is_finished(self, claim.spec_hash):
            return
        for repo in self._repos:
            self._refuse_foreign(repo, claim.spec_hash)
        self._heads, self._spec_hash = heads, claim.spec_hash

    def _refuse_foreign(self, repo: str, spec_hash: str) -> None:
        commits = self._ask(lambda: self._api.list_repo_commits(repo), repo)
        specs = [found[1] for commit in commits if (found := _SPEC.search(commit.message))]
        if specs and specs[0] != spec_hash:
            raise DestinationTaken(another_run(f"hf://{repo}", specs[0], spec_hash))
        files = self._ask(lambda: self._api.list_repo_files(repo), repo)
        if not specs and any(file.endswith(".safetensors") for file in files):
            message = f"hf://{repo} holds weights that were not put there by this program"
            raise DestinationTaken(f"{message}: choose another JOB_OUTPUT")

    def publish(
        self, part: Part, folder: Path, files: Sequence[FileRecord], progress: Progress
    ) -> None:
        """One commit. The client tells no progress of its own: the callback hears start and end."""
        what, total = f"{part} to {self.uri}", sum(record.size for record in files)
        place = self._places[part]
        uploads = {
            place.folder + safe_key(file.path): Upload(folder / file.path, file.size, file.sha256)
            for file in files
        }
        progress(what, 0, total)
        started = time.monotonic()
        change = Change(f"{part} of {self._run_name}", f"spec {self._spec_hash}", uploads)
        commit = self._push(place.repo, change)
        self._places[part] = dataclasses.replace(place, commit=commit)
        progress(what, total, total)
        seconds = round(time.monotonic() - started, 2)
        uri = f"hf://{place.repo}@{commit}"
        self.emit("uploaded", uri=uri, bytes=total, sent=None, seconds=seconds)

    def publish_receipt(self, receipt: dict[str, Any]) -> None:
        """The receipt here also names, for each file, its repository, path in it and commit."""
        if self.read_receipt() is not None:
            raise DestinationTaken(f"{self.uri} has a receipt already; it was left as it is")
        files = [{**file, **self._where(file["path"])} for file in receipt["files"]]
        upload = {RECEIPT: Upload.of(_json({**receipt, "files": files}))}
        old_failure = read(self._api, self._repo, FAILURE, self._patient) is not None
        title, spec = f"receipt of {self._run_name}", f"spec {self._spec_hash}"
        gone = (FAILURE,) if old_failure else ()
        self._push(self._repo, Change(title, spec, upload, deletions=gone))

    def _where(self, path: str) -> dict[str, str]:
        part, _, inside = path.partition("/")
        place = self._places[part]
        return {"repo": place.repo, "repo_path": place.folder + inside, "commit": place.commit}

    def read_failure(self) -> dict[str, Any] | None:
        content = read(self._api, self._repo, FAILURE, self._asking)
        return None if content is None else parse_failure(content)

    def publish_failure(self, failure: Mapping[str, Any]) -> bool:
        """Only after `acquire`. The commit does not name the spec, so that another may follow."""
        if not self._heads or read(self._api, self._repo, RECEIPT, self._quick) is not None:
            return False
        change = Change(f"{self._run_name} failed", "", {FAILURE: Upload.of(_json(dict(failure)))})
        with contextlib.suppress(DestinationTaken):
            return bool(self._push(self._repo, change, self._quick))
        return False

    def publish_page(self, page: bytes) -> None:
        """Nothing: a commit for each failed start is enough."""

    def _push(self, repo: str, change: Change, asking: Asking | None = None) -> str:
        if repo not in self._heads:
            raise DestinationTaken(f"{self.uri}: this process has not acquired the run")
        asking = asking or self._patient
        self._heads[repo] = push(self._api, repo, change, self._heads[repo], asking)
        return self._heads[repo]

    def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        if not self._heads:
            raise DestinationTaken(f"{self.uri}: this process has not acquired the run")
        hub_checkpoints.put(self._api, self._repo, checkpoint, self._asking)

    def checkpoints(self) -> list[str]:
        return hub_checkpoints.names(self._api, self._repo, self._asking)

    def get_checkpoint(self, name: str, into: Path) -> None:
        hub_checkpoints.get(self._api, self._repo, name, into, self._asking)

    def drop_checkpoints(self) -> None:
        hub_checkpoints.drop(self._api, self._repo, self._asking)

    def read_log(self, name: str) -> bytes | None:
        return None

    def put_log(self, files: Mapping[str, bytes]) -> None:
        """Nothing: a commit every half a minute would bury the results' own."""

    def read_starts(self) -> bytes | None:
        return hub_checkpoints.read_starts(self._api, self._repo, self._asking)

    def write_starts(self, content: bytes | None) -> None:
        hub_checkpoints.write_starts(self._api, self._repo, content, self._asking)

    def tidy(self) -> None:
        self.drop_checkpoints()

    def release(self) -> None:
        self._heads = {}

    def sizes(self, receipt: dict[str, Any]) -> dict[str, int]:
        places: dict[tuple[str, str], dict[str, str]] = {}
        for file in receipt["files"]:
            where = self._listed(file)
            named = places.setdefault((where["repo"], where["commit"]), {})
            named[safe_key(where["repo_path"])] = file["path"]
        found: dict[str, int] = {}
        for (repo, commit), named in places.items():
            if self._is_own(repo):
                stored = sizes(self._api, repo, list(named), commit, self._asking)
                found |= {named[path]: size for path, size in stored.items()}
        return found

    def restore(self, file: FileRecord, path: Path, progress: Progress) -> None:
        raise DestinationTaken(
            f"{self.uri}: a commit that its receipt names is gone, and cannot be made again. "
            "Remove receipt.json there, and start the run again: it publishes anew"
        )

    def _listed(self, file: dict[str, Any]) -> dict[str, Any]:
        return file if "repo" in file else self._where(file["path"])

    def _is_own(self, repo: str) -> bool:
        return repo in (self._repo, f"{self._repo}-lora")

    def verify(self, receipt: dict[str, Any]) -> list[str]:
        problems: list[str] = []
        for file in receipt["files"]:
            where = self._listed(file)
            if not self._is_own(where["repo"]):
                problems.append(f"{file['path']}: in a repository of another run")
                continue
            path = safe_key(where["repo_path"])
            found = digest(self._api, where["repo"], path, where["commit"], self._asking)
            if found is None:
                problems.append(f"{file['path']}: missing")
            elif found != (file["size"], file["sha256"]):
                problems.append(f"{file['path']}: not the bytes that the receipt lists")
        return problems

    def _ask(self, question: Callable[[], T], repo: str) -> T:
        return ask(f"hf://{repo}", self._asking, question)


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False).encode()

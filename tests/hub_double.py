"""A strict Hugging Face Hub on loopback that the real `huggingface_hub` client talks to.

    with HubDouble() as hub:
        hub.add_repo("models", "org/name", files={"config.json": b"{}"}, private=True, token="hf_x")
        HfApi(endpoint=hub.url, token="hf_x").model_info("org/name")

It answers what huggingface_hub 1.33 asks without Xet (HF_HUB_DISABLE_XET=1), with the status codes
and X-Error-Code headers of huggingface.co, and refuses everything else with 501, so that a test
that strays is seen. Large files redirect to another host name (`localhost`), as to the real CDN,
which refuses requests that still carry the token.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping

from tests.hub_endpoints import Handler
from tests.hub_repos import GIT_ATTRIBUTES, Account, Blob, Commit, Repo, is_lfs
from tests.loopback import LoopbackServer


class HubDouble(LoopbackServer):
    """The server. `requests` lists what was asked: `("POST", "/api/repos/create")`, in order."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.accounts: dict[str, Account] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.lfs: dict[str, bytes] = {}  # uploaded content by SHA-256
        self._faults: list[list[object]] = []  # [method, path regex, what, times left]
        self.lock = threading.RLock()
        self.healed = threading.Event()
        hub = self

        class Bound(Handler):
            double = hub

        super().__init__(Bound)
        self.cdn = f"http://localhost:{self.port}/cdn"

    # What tests set up and look at.

    def add_account(
        self, token: str, name: str = "somebody", role: str = "write", orgs: tuple[str, ...] = ()
    ) -> None:
        """A user with one token that may read or write their own and their orgs' repositories."""
        self.accounts[token] = Account(name, role, orgs)

    def add_repo(
        self,
        kind: str,
        name: str,
        files: Mapping[str, bytes] | None = None,
        *,
        private: bool = False,
        gated: bool = False,
        token: str | None = None,
    ) -> Commit:
        """A repository with one commit; `token` may read it, passes its gate, may write to it."""
        repo = self.repos[kind, name] = Repo(
            kind, name, private, gated, {token} if token else set()
        )
        if token and token not in self.accounts:
            self.add_account(token, orgs=(name.split("/")[0],))
        content = {".gitattributes": GIT_ATTRIBUTES.encode(), **(files or {})}
        blobs = {path: Blob.of(data, is_lfs(path, data[:512])) for path, data in content.items()}
        return repo.commit("initial commit", blobs)

    def add_commit(self, name: str, files: Mapping[str, bytes], kind: str = "models") -> Commit:
        """Somebody else pushes to a repository."""
        blobs = {path: Blob.of(data, is_lfs(path, data[:512])) for path, data in files.items()}
        return self.repos[kind, name].commit("somebody else's commit", blobs)

    def tag(self, name: str, tag: str, commit: str, kind: str = "models") -> None:
        self.repos[kind, name].tags[tag] = commit

    def files(self, name: str, kind: str = "models") -> dict[str, bytes]:
        """The content at the head of main, with the `.gitattributes` that every new repo has."""
        return {path: blob.content for path, blob in self.repos[kind, name].head.files.items()}

    def commits(self, name: str, kind: str = "models") -> list[Commit]:
        """Of main, oldest first; the first one is the Hub's own."""
        return list(self.repos[kind, name].commits)

    def corrupt(self, name: str, path: str, kind: str = "models") -> None:
        """Flip one bit of a stored file; the Hub goes on claiming the old hashes."""
        blob = self.repos[kind, name].head.files[path]
        blob.content = blob.content[:-1] + bytes([blob.content[-1] ^ 1])

    def fail(self, method: str, pattern: str, status: int, times: int = 1) -> None:
        """Answer the next `times` requests whose path matches `pattern` with `status`."""
        self._faults.append([method, pattern, status, times])

    def lose_reply(self, method: str, pattern: str, times: int = 1) -> None:
        """Do what the next matching requests ask, then close the connection without an answer."""
        self._faults.append([method, pattern, "lose", times])

    def hang(self, method: str, pattern: str, times: int = 1, *, done: bool = False) -> None:
        """Never answer the next matching requests, though they may be `done`."""
        self._faults.append([method, pattern, "mute" if done else "hang", times])

    def heal(self) -> None:
        """Forget every fault that was ordered, and drop what hangs."""
        with self.lock:
            self._faults.clear()
            self.healed.set()
            self.healed = threading.Event()

    def take_fault(self, method: str, path: str) -> object:
        with self.lock:
            for fault in self._faults:
                matches = fault[0] == method and re.search(str(fault[1]), path)
                if matches and isinstance(fault[3], int) and fault[3] > 0:
                    fault[3] -= 1
                    return fault[2]
        return None

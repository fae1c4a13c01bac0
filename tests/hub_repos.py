"""The repositories behind the Hub double: commits, blobs, accounts. No HTTP here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".png", ".model")
GIT_ATTRIBUTES = "".join(f"*{s} filter=lfs diff=lfs merge=lfs -text\n" for s in LFS_SUFFIXES)


def git_oid(content: bytes) -> str:
    """The SHA-1 that git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324


def is_lfs(path: str, sample: bytes) -> bool:
    """Whether the Hub would keep this file in LFS: by suffix, or because it is binary."""
    return path.endswith(LFS_SUFFIXES) or b"\0" in sample


@dataclass
class Blob:
    """One stored content. The ids are what was promised; `content` can be damaged by a test."""

    content: bytes
    oid: str
    sha256: str | None  # only for LFS
    size: int

    @classmethod
    def of(cls, content: bytes, lfs: bool) -> Blob:
        if not lfs:
            return cls(content, git_oid(content), None, len(content))
        sha256 = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\n"
        pointer += f"size {len(content)}\n"
        return cls(content, git_oid(pointer.encode()), sha256, len(content))

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid

    def entry(self, path: str) -> dict[str, object]:
        """As the tree and paths-info endpoints show it."""
        entry: dict[str, object] = {
            "type": "file",
            "oid": self.oid,
            "size": self.size,
            "path": path,
        }
        if self.sha256:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 130}
        return entry


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    files: Mapping[str, Blob]
    description: str = ""


@dataclass
class Repo:
    kind: str  # "models" or "datasets"
    name: str  # "org/name"
    private: bool
    gated: bool
    readers: set[str]  # tokens that may read it (and pass its gate)
    commits: list[Commit] = field(default_factory=list)  # of `main`, oldest first
    tags: dict[str, str] = field(default_factory=dict)
    branches: dict[str, list[Commit]] = field(default_factory=dict)  # beside `main`

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def commit(
        self,
        title: str,
        changes: Mapping[str, Blob | None],
        description: str = "",
        branch: str = "main",
    ) -> Commit:
        """Put a commit on a branch; a None removes the path."""
        commits = self.commits if branch == "main" else self.branches[branch]
        files = dict(commits[-1].files) if commits else {}
        files.update({path: blob for path, blob in changes.items() if blob is not None})
        for path in [path for path, blob in changes.items() if blob is None]:
            del files[path]
        seed = f"{self.kind}/{self.name}/{branch}/{len(commits)}/{title}"
        oid = hashlib.sha1(seed.encode()).hexdigest()  # noqa: S324
        commits.append(Commit(oid, title, files, description))
        return commits[-1]

    def at(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag or a full commit id names."""
        if revision in self.branches:
            return self.branches[revision][-1]
        oid = self.head.oid if revision in ("main", "HEAD") else self.tags.get(revision, revision)
        known = [*self.commits, *(commit for own in self.branches.values() for commit in own)]
        return next((commit for commit in known if commit.oid == oid), None)


@dataclass(frozen=True)
class Account:
    name: str
    role: str  # of its token: "write" or "read"
    orgs: tuple[str, ...]

    def may_write(self, repo_name: str) -> bool:
        return self.role == "write" and repo_name.split("/")[0] in (self.name, *self.orgs)

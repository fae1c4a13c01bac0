"""What the Hub double answers, endpoint by endpoint; see `tests.hub_double`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from urllib.parse import parse_qs

from tests.hub_cards import front_matter, metadata_errors
from tests.hub_http import Hub, Reply, refusal
from tests.hub_repos import Blob, Commit, is_lfs


class Reading(Hub):
    """Endpoints that change nothing."""

    def whoami(self) -> None:
        token = self.token()
        if token is None:
            raise refusal(401, "Invalid username or password.")
        account = self.double.accounts[token]
        orgs = [{"name": org, "type": "org", "roleInOrg": "write"} for org in account.orgs]
        auth = {"type": "access_token", "accessToken": {"role": account.role}}
        raise Reply(200, {"type": "user", "name": account.name, "orgs": orgs, "auth": auth})

    def info(self, kind: str, name: str, revision: str) -> None:
        repo = self.readable(kind, name)
        commit = self.at(repo, revision or "main")
        siblings: list[dict[str, object]] = []
        for path, blob in commit.files.items():
            sibling: dict[str, object] = {"rfilename": path}
            if "blobs" in self.query:
                sibling |= {"size": blob.size, "blobId": blob.oid}
                if blob.sha256:
                    lfs = {"sha256": blob.sha256, "size": blob.size, "pointerSize": 130}
                    sibling["lfs"] = lfs
            siblings.append(sibling)
        facts = {"id": name, "sha": commit.oid, "private": repo.private}
        facts |= {"gated": "auto" if repo.gated else False, "siblings": siblings, "tags": []}
        if readme := commit.files.get("README.md"):
            facts["cardData"] = front_matter(readme.content.decode())
        raise Reply(200, facts)

    def tree(self, kind: str, name: str, revision: str, folder: str) -> None:
        commit = self.at(self.readable(kind, name), revision)
        prefix = folder.strip("/") + "/" if folder.strip("/") else ""
        entries = [b.entry(p) for p, b in sorted(commit.files.items()) if p.startswith(prefix)]
        if prefix and not entries:
            raise refusal(404, f"{folder} does not exist", "EntryNotFound")
        if self.query.get("recursive", ["false"])[0].lower() != "true":
            entries = [e for e in entries if "/" not in str(e["path"])[len(prefix) :]]
        raise Reply(200, entries)

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        commit = self.at(self.readable(kind, name), revision)
        paths = parse_qs(self.body.decode())["paths"]
        raise Reply(200, [commit.files[p].entry(p) for p in paths if p in commit.files])

    def refs(self, kind: str, name: str) -> None:
        repo = self.readable(kind, name)
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head.oid}
        tags = [
            {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid}
            for tag, oid in repo.tags.items()
        ]
        raise Reply(200, {"branches": [branch], "converts": [], "tags": tags})

    def history(self, kind: str, name: str, revision: str) -> None:
        repo = self.readable(kind, name)
        self.at(repo, revision)
        date = "2026-01-01T00:00:00.000Z"
        raise Reply(
            200,
            [
                {
                    "id": c.oid,
                    "title": c.title,
                    "message": c.description,
                    "authors": [],
                    "date": date,
                }
                for c in reversed(repo.commits)
            ],
        )

    def resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        kind = kind.strip("/") or "models"
        commit = self.at(self.readable(kind, name, content=True), revision)
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        blob = commit.files.get(path)
        if blob is None:
            reply = refusal(404, "Entry not found", "EntryNotFound")
            reply.headers |= headers
            raise reply
        if blob.sha256 is None:
            raise self.ranged(blob.content, {**headers, "ETag": f'"{blob.oid}"'})
        where = f"{self.double.cdn}/{kind}/{name}/{commit.oid}/{path}"
        headers |= {"X-Linked-ETag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
        raise Reply(302, b"", {**headers, "Location": where})

    def from_cdn(self, kind: str, name: str, oid: str, path: str) -> None:
        if "Authorization" in self.headers:
            raise refusal(400, "the token was sent to another host than the Hub")
        commit = self.at(self.double.repos[kind, name], oid)
        blob = commit.files[path]
        raise self.ranged(blob.content, {"ETag": f'"{blob.sha256}"', "Accept-Ranges": "bytes"})

    def ranged(self, content: bytes, headers: dict[str, str]) -> Reply:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not wanted:
            return Reply(200, content, headers)
        first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
        where = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return Reply(206, content[first : last + 1], {**headers, **where})


class Handler(Reading):
    """All endpoints."""

    def create(self) -> None:
        order = json.loads(self.body)
        account = self.double.accounts.get(self.token() or "")
        if account is None:
            raise refusal(401, "Invalid username or password.")
        name = f"{order.get('organization') or account.name}/{order['name']}"
        kind = f"{order.get('type') or 'model'}s"
        if not account.may_write(name):
            raise refusal(403, "You don't have the rights to create a repo under this namespace")
        url = f"{self.double.url}/{'' if kind == 'models' else kind + '/'}{name}"
        if (kind, name) in self.double.repos:
            message = "You already created this model repo"
            raise Reply(409, {"error": message, "url": url}, {"X-Error-Message": message})
        private = order.get("visibility") == "private" or bool(order.get("private"))
        self.double.add_repo(kind, name, private=private)
        raise Reply(200, {"url": url, "name": name})

    def validate_yaml(self) -> None:
        errors = metadata_errors(front_matter(json.loads(self.body)["content"]))
        told = [{"message": message} for message in errors]
        raise Reply(400 if told else 200, {"errors": told, "warnings": []})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        commit = self.at(self.writable(kind, name), revision)
        files = []
        for file in json.loads(self.body)["files"]:
            path, sample = file["path"], base64.b64decode(file["sample"], validate=True)
            mode = "lfs" if is_lfs(path, sample) else "regular"
            known = commit.files.get(path)
            oid = {"oid": known.etag} if known else {}
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **oid})
        raise Reply(200, {"files": files, "commitOid": commit.oid})

    def lfs_batch(self, kind: str, name: str) -> None:
        self.writable(kind.strip("/") or "models", name)
        objects: list[dict[str, object]] = []
        for item in json.loads(self.body)["objects"]:
            oid = item["oid"]
            href = f"{self.double.url}/lfs-store/{oid}"
            actions = {} if oid in self.double.lfs else {"actions": {"upload": {"href": href}}}
            objects.append({"oid": oid, "size": item["size"], **actions})
        raise Reply(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise refusal(400, "the content does not have the promised SHA-256")
        self.double.lfs[oid] = self.body
        raise Reply(200)

    def commit(self, kind: str, name: str, revision: str) -> None:
        repo = self.writable(kind, name)
        head = self.at(repo, revision)
        header, *operations = [json.loads(line) for line in self.body.splitlines()]
        parent = header["value"].get("parentCommit")
        if parent not in (None, head.oid):
            raise refusal(412, "A commit has happened since. Please refresh and try again.")
        if not operations:
            raise refusal(400, "an empty commit")
        changes = dict(self.change(head, operation) for operation in operations)
        value = header["value"]
        made = repo.commit(value["summary"], changes, value["description"], revision)
        url = f"{self.double.url}/{name}/commit/{made.oid}"
        raise Reply(200, {"success": True, "commitOid": made.oid, "commitUrl": url})

    def make_branch(self, kind: str, name: str, branch: str) -> None:
        repo = self.writable(kind, name)
        if branch in repo.branches:
            raise refusal(409, "Reference already exists")
        repo.branches[branch] = [repo.head]
        raise Reply(200, {})

    def delete_branch(self, kind: str, name: str, branch: str) -> None:
        repo = self.writable(kind, name)
        if branch not in repo.branches:
            raise refusal(404, "Reference does not exist")
        del repo.branches[branch]
        raise Reply(200, {})

    def change(self, head: Commit, operation: dict[str, object]) -> tuple[str, Blob | None]:
        value = operation["value"]
        assert isinstance(value, dict)
        path = str(value["path"])
        if operation["key"] == "deletedFile" and path in head.files:
            return path, None
        if operation["key"] == "file":
            return path, Blob.of(base64.b64decode(value["content"], validate=True), lfs=False)
        if operation["key"] == "lfsFile" and value["oid"] in self.double.lfs:
            return path, Blob.of(self.double.lfs[value["oid"]], lfs=True)
        raise refusal(400, f"cannot do {operation['key']} of {path}")


_REPO = r"([^/]+/[^/]+)"
_API = rf"/api/(models|datasets)/{_REPO}"
Handler.routes = (
    ("GET", r"/api/whoami-v2", Handler.whoami),
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.validate_yaml),
    ("GET", rf"{_API}(?:/revision/([^/]+))?", Handler.info),
    ("GET", rf"{_API}/refs", Handler.refs),
    ("GET", rf"{_API}/commits/([^/]+)", Handler.history),
    ("GET", rf"{_API}/tree/([^/]+)(/.*)?", Handler.tree),
    ("POST", rf"{_API}/paths-info/([^/]+)", Handler.paths_info),
    ("POST", rf"{_API}/preupload/([^/]+)", Handler.preupload),
    ("POST", rf"{_API}/commit/([^/]+)", Handler.commit),
    ("POST", rf"{_API}/branch/([^/]+)", Handler.make_branch),
    ("DELETE", rf"{_API}/branch/([^/]+)", Handler.delete_branch),
    ("POST", rf"/(datasets/)?{_REPO}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/lfs-store/([0-9a-f]{64})", Handler.lfs_put),
    ("GET|HEAD", rf"/(datasets/)?{_REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
    ("GET|HEAD", rf"/cdn/(models|datasets)/{_REPO}/([^/]+)/(.+)", Handler.from_cdn),
)

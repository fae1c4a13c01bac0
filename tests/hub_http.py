"""The HTTP side of the Hub double: faults, routes, and who may do what."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_repos import Account, Commit, Repo

if TYPE_CHECKING:
    from tests.hub_double import HubDouble


class Reply(Exception):
    def __init__(
        self, status: int, body: object = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status)
        self.status, self.headers = status, dict(headers or {})
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        if not isinstance(body, bytes):
            self.headers["Content-Type"] = "application/json"


def refusal(status: int, message: str, code: str = "") -> Reply:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return Reply(status, {"error": message}, headers)


class Hub(BaseHTTPRequestHandler):
    """Answers a request by the first of `routes` that matches: method, path regex, endpoint."""

    double: HubDouble
    routes: tuple[tuple[str, str, Callable[..., None]], ...] = ()
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.path_only = url.path
        self.query = parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._read_chunks()
        self.double.requests.append((self.command, url.path))
        fault, healed = self.double.take_fault(self.command, url.path), self.double.healed
        if fault == "hang":
            healed.wait(60)
            self.close_connection = True
            return
        try:
            if isinstance(fault, int):
                raise refusal(fault, "a fault that the test asked for")
            self._route(url.path)
            reply = refusal(501, f"the double does not know {self.command} {self.path}")
        except Reply as raised:
            reply = raised
        if fault in ("lose", "mute"):
            healed.wait(60 if fault == "mute" else 0)
            self.close_connection = True
            return
        self._send(reply)

    def _read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def _route(self, path: str) -> None:
        """Raises Reply from the first endpoint that matches."""
        with self.double.lock:
            for method, pattern, endpoint in self.routes:
                found = re.fullmatch(pattern, path)
                if found and self.command in method.split("|"):
                    endpoint(self, *[unquote(group or "") for group in found.groups()])

    # Who may do what.

    def token(self) -> str | None:
        header = self.headers.get("Authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token not in self.double.accounts:
            raise refusal(401, "Invalid credentials in Authorization header")
        return token

    def readable(self, kind: str, name: str, content: bool = False) -> Repo:
        token = self.token()
        repo = self.double.repos.get((kind, name))
        account = self.double.accounts.get(token or "")
        own = repo and (token in repo.readers or (account and _member(account, name)))
        if repo is None or (repo.private and not own):
            raise refusal(404 if token else 401, "Repository not found", "RepoNotFound")
        if content and repo.gated and not own:
            message = f"Access to {kind[:-1]} {name} is restricted."
            raise refusal(403 if token else 401, message, "GatedRepo")
        return repo

    def writable(self, kind: str, name: str) -> Repo:
        repo = self.readable(kind, name)
        account = self.double.accounts.get(self.token() or "")
        if account is None:
            raise refusal(401, "Invalid username or password.")
        if not account.may_write(name):
            message = "You don't have the required permissions to perform this action"
            raise refusal(403, message)
        return repo

    def at(self, repo: Repo, revision: str) -> Commit:
        commit = repo.at(revision)
        if commit is None:
            raise refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit


def _member(account: Account, name: str) -> bool:
    return name.split("/")[0] in (account.name, *account.orgs)

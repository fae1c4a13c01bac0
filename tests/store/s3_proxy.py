"""A proxy before the real S3 server that breaks requests as networks and stores do."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from tests.loopback import LoopbackServer


class S3Proxy(LoopbackServer):
    """Passes everything on to `upstream`, except where a fault was ordered. Use as a context.

    Attributes:
        url: to be used as AWS_ENDPOINT_URL_S3.
        requests: the methods seen, in order.
        foreign_etags: answer HEAD with ETags that are no MD5, as S3 does under SSE-KMS.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.requests: list[str] = []
        self.paths: list[tuple[str, str]] = []  # method and path of every request
        self.foreign_etags = False
        self.faults: list[tuple[str, int, str]] = []  # method, status, code
        self.held, self._go = threading.Event(), threading.Event()
        self._holding = ("", "")
        self._refused = ("", "", 0, "")
        proxy = self

        class Bound(_Handler):
            owner = proxy

        super().__init__(Bound)

    def refuse(self, method: str, status: int, code: str, times: int = 1) -> None:
        """Answer the next requests with an S3 error instead of passing them on."""
        self.faults += [(method, status, code)] * times

    def lose_reply(self, method: str) -> None:
        """Pass the next request on, then close the connection without its answer."""
        self.faults.append((method, 0, "lose"))

    def flip_a_bit(self) -> None:
        """Damage the next body that is sent."""
        self.faults.append(("PUT", 0, "flip"))

    def refuse_path(self, method: str, part: str, status: int, code: str) -> None:
        """Answer every request for a path with this part in it with an S3 error."""
        self._refused = (method, part, status, code)

    def refused(self, method: str, path: str) -> tuple[int, str]:
        wanted, part, status, code = self._refused
        return (status, code) if method == wanted and part in path else (0, "")

    def hold(self, method: str, ending: str) -> None:
        """Let requests for paths with this ending wait; `held` tells of the first."""
        self._holding = (method, ending)

    def release(self) -> None:
        """Drop what is held, and hold nothing more."""
        self._holding = ("", "")
        self._go.set()

    def holds(self, method: str, path: str) -> bool:
        if method != self._holding[0] or not path.split("?")[0].endswith(self._holding[1]):
            return False
        self.held.set()
        self._go.wait(60)
        return True

    def take(self, method: str) -> tuple[int, str]:
        for fault in self.faults:
            if fault[0] == method:
                self.faults.remove(fault)
                return fault[1:]
        return 0, ""


class _Handler(BaseHTTPRequestHandler):
    owner: S3Proxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.owner.requests.append(self.command)
        self.owner.paths.append((self.command, urlsplit(self.path).path))
        if self.owner.holds(self.command, self.path):
            self.close_connection = True
            return
        status, code = self.owner.refused(self.command, self.path)
        if not status:
            status, code = self.owner.take(self.command)
        if status:
            error = f"<Error><Code>{code}</Code><Message>ordered by a test</Message></Error>"
            self._send(status, [], error.encode())
            return
        if code == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        status, headers, answer = self._pass_on(body)
        if code == "lose":
            self.close_connection = True
            return
        self._send(status, headers, answer)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(self.owner.upstream, timeout=30)
        # The signature covers the Host header, so it travels unchanged.
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("expect",)}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        found = (answer.status, answer.getheaders(), answer.read())
        upstream.close()
        return found

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value if self.command == "HEAD" else length
            elif name.lower() == "etag" and self.command == "HEAD" and self.owner.foreign_etags:
                self.send_header(name, '"not-an-md5"')
            elif name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

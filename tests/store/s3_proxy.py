"""A proxy before the real S3 server that breaks requests as networks and stores do."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from examples.with_s3 import ACCESS_KEY, SECRET_KEY
from tests.loopback import LoopbackServer

FOREVER = 10**9


@dataclass
class Fault:
    """What happens to the next requests of a method whose path and query hold a text.

    kind: `refuse` (an S3 error instead of an answer), `error in 200` (the same with status 200),
    `lose` (done, but not answered), `flip` (a bit of the body), `cut` (the body's second half is
    not passed on), `reset` (in the midst of the body), `break off` (in the midst of the answer),
    `wait` (before it is passed on; dropped if the proxy is healed meanwhile).
    """

    kind: str
    method: str
    where: str = ""
    times: int = 1
    status: int = 0
    code: str = ""
    seconds: float = 0


class S3Proxy(LoopbackServer):
    """Passes everything on to `upstream`, except where a fault was ordered. Use as a context.

    Attributes:
        url: to be used as AWS_ENDPOINT_URL_S3.
        requests: the methods seen, in order.
        paths: method and path of every request.
        parts: path, number and size of every part that arrived whole.
        foreign_etags: answer HEAD and GET with ETags that are no MD5, as S3 does under SSE-KMS.
        hours_ahead: what the Date of every answer is off by.
        expired: session tokens that are refused as ExpiredToken.
        bytes_per_second: of the one line that all bodies come in by; 0 is no limit.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.requests: list[str] = []
        self.paths: list[tuple[str, str]] = []
        self.parts: list[tuple[str, int, int]] = []
        self.foreign_etags = False
        self.hours_ahead = 0.0
        self.expired: set[str] = set()
        self.bytes_per_second = 0.0
        self.line = threading.Lock()
        self.faults: list[Fault] = []
        self.held, self._go = threading.Event(), threading.Event()
        self.healed = threading.Event()
        self._holding = ("", "")
        self._lock = threading.Lock()
        proxy = self

        class Bound(_Handler):
            owner = proxy

        super().__init__(Bound)

    def order(self, kind: str, method: str, where: str = "", times: int = 1, **more: float) -> None:
        """Let the next `times` such requests meet a fault; see `Fault`."""
        self.faults.append(Fault(kind, method, where, times, **more))  # type: ignore[arg-type]

    def refuse(self, method: str, status: int, code: str, times: int = 1, where: str = "") -> None:
        """Answer the next requests with an S3 error instead of passing them on."""
        self.faults.append(Fault("refuse", method, where, times, status, code))

    def lose_reply(self, method: str, where: str = "") -> None:
        """Pass the next request on, then close the connection without its answer."""
        self.order("lose", method, where)

    def flip_a_bit(self, where: str = "", times: int = 1) -> None:
        """Damage the next body that is sent."""
        self.order("flip", "PUT", where, times)

    def refuse_path(self, method: str, part: str, status: int, code: str) -> None:
        """Answer every request for a path with this part in it with an S3 error."""
        self.refuse(method, status, code, FOREVER, part)

    def is_down_for(self, seconds: float, where: str = "") -> None:
        """Answer everything with 503 from now on for a while."""
        self._down = (time.monotonic() + seconds, where)

    _down = (0.0, "")

    def heal(self) -> None:
        self.faults.clear()
        self.healed.set()
        self.healed = threading.Event()
        self._down = (0.0, "")

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

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets."""
        if time.monotonic() < self._down[0] and self._down[1] in path:
            return Fault("refuse", method, "", 1, 503, "SlowDown")
        with self._lock:
            for fault in self.faults:
                if fault.method == method and fault.where in path and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    owner: S3Proxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        proxy = self.owner
        proxy.requests.append(self.command)
        proxy.paths.append((self.command, urlsplit(self.path).path))
        fault = proxy.take(self.command, self.path)
        kind, length = fault.kind if fault else "", int(self.headers.get("Content-Length") or 0)
        if kind == "reset":
            self._reset(length)
            return
        body = self._read(length)
        if proxy.holds(self.command, self.path):
            self.close_connection = True
            return
        if self.headers.get("X-Amz-Security-Token") in proxy.expired:
            self._send(400, [], _error("ExpiredToken"))
        elif fault and kind in ("refuse", "error in 200"):
            self._send(fault.status or 200, [], _error(fault.code))
        else:
            self._do(kind, fault.seconds if fault else 0, body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _read(self, length: int) -> bytes:
        """The body, no faster than the line carries it."""
        if not self.owner.bytes_per_second:
            return self.rfile.read(length)
        body = bytearray()
        while chunk := self.rfile.read(min(2**16, length - len(body))):
            with self.owner.line:
                time.sleep(len(chunk) / self.owner.bytes_per_second)
            body += chunk
        return bytes(body)

    def _do(self, kind: str, seconds: float, body: bytes) -> None:
        """Pass the request on, perhaps spoilt, and its answer back, perhaps spoilt."""
        if seconds and self.owner.healed.wait(seconds):
            self.close_connection = True
            return
        if kind == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        if kind == "cut":
            body = body[: len(body) // 2]
        status, headers, answer = self._pass_on(body)
        query = dict(pair.partition("=")[::2] for pair in urlsplit(self.path).query.split("&"))
        if self.command == "PUT" and status == 200 and "partNumber" in query:
            path, number = urlsplit(self.path).path, int(query["partNumber"])
            self.owner.parts.append((path, number, len(body)))
        if kind == "lose":
            self.close_connection = True
        elif kind == "break off":
            self._send(status, headers, answer, sent=len(answer) // 2)
        else:
            self._send(status, headers, answer)

    def _reset(self, length: int) -> None:
        self.rfile.read(length // 2)
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        if "X-Amz-Security-Token" in self.headers:
            self._sign_without_token(body)
        upstream = http.client.HTTPConnection(self.owner.upstream, timeout=30)
        # The signature covers the Host header, so it travels unchanged.
        headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
        headers = {k: str(len(body)) if k == "Content-Length" else v for k, v in headers.items()}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        found = (answer.status, answer.getheaders(), answer.read())
        upstream.close()
        return found

    def _sign_without_token(self, body: bytes) -> None:
        """The server refuses tokens that it has not made, so it never sees them."""
        del self.headers["X-Amz-Security-Token"], self.headers["Authorization"]
        del self.headers["X-Amz-Date"], self.headers["X-Amz-Content-SHA256"]
        signed = ("host", "content-md5", "x-amz-")
        headers = {k: v for k, v in self.headers.items() if k.lower().startswith(signed)}
        url = f"http://{self.headers['Host']}{self.path}"
        request = AWSRequest(self.command, url, headers, body)
        S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1").add_auth(request)
        for name in ("Authorization", "X-Amz-Date", "X-Amz-Content-SHA256"):
            self.headers[name] = request.headers[name]

    def _send(
        self,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
        sent: int | None = None,
    ) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value if self.command == "HEAD" else length
            elif name.lower() == "etag" and self.command == "HEAD" and self.owner.foreign_etags:
                self.send_header(name, '"not-an-md5"')
            elif name.lower() not in ("transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        self.send_header(
            "Date", formatdate(time.time() + 3600 * self.owner.hours_ahead, usegmt=True)
        )
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])
        if sent is not None:
            self.close_connection = True


def _error(code: str) -> bytes:
    message = "<Message>ordered by a test</Message>"
    return f'<?xml version="1.0"?><Error><Code>{code}</Code>{message}</Error>'.encode()

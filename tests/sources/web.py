"""A TLS server on loopback with a certificate from a CA of the test's own."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = Callable[[BaseHTTPRequestHandler], None]


class Web:
    """`answers` maps paths to what handles them; `asked` lists (path, Host, Range) in order."""

    def __init__(self, port: int, trust: ssl.SSLContext) -> None:
        self.port, self.trust = port, trust
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str, str | None]] = []

    def url(self, path: str, host: str = "localhost") -> str:
        return f"https://{host}:{self.port}{path}"

    def serve(self, path: str, content: bytes, etag: str | None = '"v1"', **headers: str) -> None:
        """Content with ranges, as a static file server has it."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            start = _range_start(request, etag)
            request.send_response(206 if start else 200)
            if etag:
                request.send_header("ETag", etag)
            for name, value in headers.items():
                request.send_header(name.replace("_", "-"), value)
            request.send_header("Content-Length", str(len(content) - start))
            request.end_headers()
            request.wfile.write(content[start:])

        self.answers[path] = answer

    def redirect(self, path: str, location: str) -> None:
        self.answer(path, 302, Location=location)

    def answer(self, path: str, status: int, **headers: str) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            for name, value in headers.items():
                request.send_header(name.replace("_", "-"), value)
            request.send_header("Content-Length", "0")
            request.end_headers()

        self.answers[path] = answer


def _range_start(request: BaseHTTPRequestHandler, etag: str | None) -> int:
    wanted = request.headers.get("Range")
    if wanted is None or request.headers.get("If-Range") != etag:
        return 0
    return int(wanted.removeprefix("bytes=").removesuffix("-"))


@contextmanager
def web_server(folder: Path, names: tuple[str, ...] = ("localhost", "127.0.0.1")) -> Iterator[Web]:
    """A running server; `web.trust` is the client's context that knows its CA."""
    authority = make_certificates(folder, names)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host, wanted = self.headers["Host"], self.headers.get("Range")
            web.asked.append((self.path, host, wanted))
            web.answers[self.path.partition("?")[0]](self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that hang up, or do not trust the certificate, are what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    web = Web(server.server_address[1], ssl.create_default_context(cafile=authority))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()


def make_certificates(folder: Path, names: tuple[str, ...]) -> Path:
    """Write `server.pem` (key and certificate for `names`) and the CA; return the CA's path."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    ca = (
        _builder(ca_name, ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    leaf = (
        _builder(subject, ca_name, key)
        .add_extension(x509.SubjectAlternativeName([_alternative(n) for n in names]), False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(secret + leaf.public_bytes(pem))
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    return folder / "ca.pem"


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
    )

"""A real MLflow server on loopback, and a proxy before it that can be slow, break, or be away."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from examples.with_s3 import free_ports
from tests.jobs import until


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """The address of a server that keeps its runs in `folder`."""
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
    env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # needs one more package, for nothing here
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
        )

    def answers() -> bool:
        assert server.poll() is None, (folder / "server.log").read_text()[-3000:]
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
        return False

    try:
        until(answers, "the MLflow server", 120)
        yield url
    finally:
        os.killpg(server.pid, 9)
        server.wait()


class Proxy:
    """Passes requests on to a server, or does what it is told instead.

    Attributes:
        status: answered instead of passing on, if not 0.
        seconds: waited before each answer.
        headers: of every request that came.
    """

    def __init__(self, server: str) -> None:
        self.status, self.seconds = 0, 0.0
        self.headers: list[dict[str, str]] = []
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.headers.append(dict(self.headers))
                time.sleep(proxy.seconds)
                status, answer = proxy.status, b"broken"
                if not status:
                    status, answer = _pass(f"{server}{self.path}", self.command, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PATCH = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._handler = Handler
        self.stop = lambda: None
        self.start()

    def start(self) -> None:
        """Be there (again), at the same address."""
        server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

        def stop() -> None:
            server.shutdown()
            server.server_close()

        self.stop = stop


def _pass(url: str, method: str, body: bytes) -> tuple[int, bytes]:
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body or None, kind, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()

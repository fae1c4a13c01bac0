"""RunPod's serverless control plane on loopback: jobs out, progress and results in.

Speaks what the loop of the SDK (runpod 1.12) speaks: long polls for jobs and for stops, answers
with scripted statuses, keeps every body that is posted.
"""

from __future__ import annotations

import json
import queue
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.jobs import until
from tests.loopback import LoopbackServer

KEY = "rpa_" + "CANARYKEYOFTHEENDPOINT012345"
HOLD = 0.3  # seconds of a long poll


@dataclass
class ControlPlane:
    """Its state.

    Attributes:
        posted: (job id, body) of everything on job-done, in the order of arrival.
        done_statuses: what the next posts of results are answered with; then 200.
        take_statuses: what the next polls for jobs are answered with.
        lose_replies: how many results are taken in and then not answered.
    """

    posted: list[tuple[str, Any]] = field(default_factory=list)
    done_statuses: list[int] = field(default_factory=list)
    take_statuses: list[int] = field(default_factory=list)
    lose_replies: int = 0
    pings: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    jobs: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    stops: queue.Queue[list[str]] = field(default_factory=queue.Queue)
    url: str = ""

    def environ(self, worker: str = "worker-1") -> dict[str, str]:
        """Of a worker's container. Without the SDK's own checks, which dial out and want a GPU."""
        base, query = f"{self.url}/v2/endpoint", "?gpu=x"
        posts = f"$RUNPOD_POD_ID/$ID{query}"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID{query}",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/{posts}",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/{posts}",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
            **{"RUNPOD_PING_INTERVAL": "1000", "RUNPOD_AI_API_KEY": KEY},
            **{"RUNPOD_POD_ID": worker, "RUNPOD_ENDPOINT_ID": "endpoint"},
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }

    def give(self, job_id: str, **spec: Any) -> None:
        """Queue a job."""
        self.jobs.put({"id": job_id, "input": spec})

    def results(self, job_id: str) -> list[Any]:
        """The bodies of a job's results, not of its progress."""
        return [b for j, b in list(self.posted) if j == job_id and not is_progress(b)]

    def result(self, job_id: str) -> Any:
        """Wait for a job's result."""
        return until(lambda: self.results(job_id), f"the result of {job_id}")[0]

    def progress(self, job_id: str) -> list[Any]:
        return [b["output"] for j, b in list(self.posted) if j == job_id and is_progress(b)]


def is_progress(body: Any) -> bool:
    return body.get("status") == "IN_PROGRESS"


@contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """It runs while the block does."""
    plane = ControlPlane()
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def answer(self, status: int, body: Any = None) -> None:
            content = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def poll(self, waiting: queue.Queue[Any]) -> Any:
            deadline = time.monotonic() + HOLD
            while time.monotonic() < deadline and not closing.is_set():
                try:
                    return waiting.get(timeout=0.05)
                except queue.Empty:
                    continue
            return None

        def do_GET(self) -> None:
            plane.headers.append(dict(self.headers))
            if "/job-take/" in self.path:
                if plane.take_statuses:
                    self.answer(plane.take_statuses.pop(0))
                elif (job := self.poll(plane.jobs)) is None:
                    self.answer(204)
                else:
                    self.answer(200, job)
            elif "/job-stop/" in self.path:
                ids = self.poll(plane.stops)
                self.answer(204) if ids is None else self.answer(200, {"jobsToStop": ids})
            elif "/ping/" in self.path:
                plane.pings.append(self.path)
                self.answer(200, {})
            else:
                self.answer(404)

        def do_POST(self) -> None:
            plane.headers.append(dict(self.headers))
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found = re.search(r"/job-done/[\w-]+/([\w-]+)\?", self.path)
            assert found, self.path
            content = json.loads(body, parse_constant=lambda text: 1 / 0)  # NaN is no JSON
            plane.posted.append((found[1], content))
            if is_progress(content):
                self.answer(200, {})
            elif plane.lose_replies:
                plane.lose_replies -= 1
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.answer(plane.done_statuses.pop(0) if plane.done_statuses else 200, {})

    with LoopbackServer(Handler) as server:
        plane.url = server.url
        yield plane
        closing.set()

"""RunPod's pod APIs on loopback: v2, GraphQL and v1, by the facts known of them, with scripts.

A key that is wrong is 401; an unknown pod 404; an unknown key of a v2 body 400. `refuse` sets what
a way answers instead. `ended` hears of each pod that is really ended.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.loopback import LoopbackServer

KEY = "rpa_" + "CANARYKEYOFTHEPOD0123456789"
CREATE = {"name", "image", "templateId", "args", "disk", "env", "ports", "registry"}
CREATE |= {"cloud", "gpu", "cpu", "mounts", "dataCenterIds", "startSsh"}
GPU = {"id", "count", "allowedCudaVersions", "minCudaVersion"}


class PodApi:
    """The control plane's state.

    Attributes:
        pods: id to status.
        asked: each request as (way, method, path).
        refuse: way ("v2", "graphql", "v1") to the statuses it answers next; the last one stays.
        bodies: of the pods that were made.
        logs: container lines of the next stream.
    """

    def __init__(self) -> None:
        self.pods: dict[str, str] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.refuse: dict[str, list[int]] = {}
        self.bodies: list[dict[str, Any]] = []
        self.logs: list[str] = []
        self.gpus: list[dict[str, Any]] = []
        self.keys = {KEY}
        self.ended: Callable[[str, str], None] = lambda pod, action: None
        self.made: Callable[[str, dict[str, Any]], None] = lambda pod, body: None
        self.url = ""

    def end(self, pod: str, action: str) -> None:
        if action == "terminate":
            del self.pods[pod]
        else:
            self.pods[pod] = "EXITED"
        threading.Thread(target=self.ended, args=(pod, action), daemon=True).start()

    def environ(self, pod: str) -> dict[str, str]:
        """Of a container in this pod."""
        return {
            **{"RUNPOD_POD_ID": pod, "RUNPOD_API_KEY": KEY, "RUNPOD_API_BASE_URL": self.url},
            "RUNPOD_API_URL": f"{self.url}/v1",
        }


@contextmanager
def pod_api() -> Iterator[PodApi]:
    """It runs while the block does."""
    api = PodApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def answer(self, status: int, body: Any = None) -> None:
            content = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def body(self) -> Any:
            length = int(self.headers.get("Content-Length", 0))
            return json.loads(self.rfile.read(length) or b"null")

        def serve(self) -> None:
            path, body = self.path.partition("?")[0], self.body()
            way = path.split("/")[1]
            api.asked.append((way, self.command, path))
            scripted = api.refuse.get(way)
            if scripted:
                self.answer(scripted.pop(0) if len(scripted) > 1 else scripted[0])
            elif self.headers["Authorization"] not in {f"Bearer {key}" for key in api.keys}:
                self.answer(401)
            elif way == "graphql":
                self.graphql(body["query"])
            elif found := re.fullmatch(r"/v[12]/pods/([\w-]+)(/\w+)?", path):
                self.pod(found[1], found[2] or "", body)
            elif path == "/v2/pods":
                self.pods(body)
            elif path == "/v2/catalog/gpus":
                self.answer(200, {"gpus": api.gpus})
            else:
                self.answer(404)

        do_GET = do_POST = do_DELETE = serve  # noqa: N815 - names of http.server

        def graphql(self, query: str) -> None:
            found = re.search(r'(podTerminate|podStop)\(input: \{podId: "([\w-]+)"\}\)', query)
            assert found, query
            if found[2] not in api.pods:
                self.answer(200, {"errors": [{"message": "pod not found to end"}]})
                return
            api.end(found[2], "terminate" if found[1] == "podTerminate" else "stop")
            self.answer(200, {"data": {found[1]: None}})

        def pod(self, pod: str, rest: str, body: Any) -> None:
            if pod not in api.pods:
                self.answer(404)
            elif self.command == "DELETE":
                api.end(pod, "terminate")
                self.answer(204)
            elif rest in ("/action", "/stop"):
                api.end(pod, body["action"] if body else "stop")
                self.answer(200, {"id": pod})
            elif rest == "/logs":
                self.stream(pod)
            else:
                self.answer(200, {"id": pod, "status": api.pods[pod]})

        def pods(self, body: Any) -> None:
            if self.command == "GET":
                named = zip(api.pods, api.bodies, strict=False)
                self.answer(200, {"pods": [{"id": p, "name": b["name"]} for p, b in named]})
            elif set(body) - CREATE or set(body["gpu"]) - GPU or not {"name", "image"} <= set(body):
                self.answer(400, {"detail": "unknown or missing keys"})
            else:
                pod = f"pod{len(api.bodies)}"
                api.bodies.append(body)
                api.pods[pod] = "RUNNING"
                threading.Thread(target=api.made, args=(pod, body), daemon=True).start()
                self.answer(201, {"id": pod, "status": "PROVISIONING"})

        def stream(self, pod: str) -> None:
            """Server-sent events, until the pod has ended."""
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            sent = 0
            while True:
                over = api.pods.get(pod) != "RUNNING"
                for line in api.logs[sent:]:
                    data = json.dumps({"source": "container", "line": line, "ts": str(sent)})
                    self.wfile.write(f"id: {sent}\ndata: {data}\n\n".encode())
                    sent += 1
                if over:
                    self.close_connection = True
                    return
                time.sleep(0.02)

    with LoopbackServer(Handler) as server:
        api.url = server.url
        yield api

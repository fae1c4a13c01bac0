"""RunPod's REST API v2 as `launch` uses it: the catalogue, pods made, watched and removed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, cast

import httpx

from job.errors import AccessRefused, JobError, NotFound, SpecError, Unavailable

_SECONDS = 60  # RunPod looks for a host before it answers a create


class PodApi:
    """One account's pods.

    Args:
        base: as `job.runpod.ending.api_base` tells it.
        key: RUNPOD_API_KEY of the account.
    """

    def __init__(self, base: str, key: str) -> None:
        self.base = base
        headers = {"Authorization": f"Bearer {key}"}
        self._client = httpx.Client(base_url=base, headers=headers, timeout=_SECONDS)

    def gpus(self, cloud: str) -> list[dict[str, Any]]:
        """The catalogue's GPU types, with the stock of this cloud (SECURE, COMMUNITY)."""
        query = {"include": "AVAILABILITY", "product": "POD", "cloud": cloud, "count": "1"}
        answer = self._ask("GET", "/v2/catalog/gpus", params=query)
        return cast("list[dict[str, Any]]", answer.json()["gpus"])

    def create(self, body: dict[str, Any]) -> str:
        """Make a pod; its id."""
        return str(self._ask("POST", "/v2/pods", json=body).json()["id"])

    def named(self, name: str) -> list[str]:
        """The ids of the pods of this name."""
        pods = self._ask("GET", "/v2/pods").json()["pods"]
        return [str(pod["id"]) for pod in pods if pod.get("name") == name]

    def status(self, pod: str) -> str:
        """PROVISIONING, STARTING, RUNNING, EXITED and the like; GONE when there is none."""
        try:
            return str(self._ask("GET", f"/v2/pods/{pod}").json()["status"])
        except NotFound:
            return "GONE"

    def remove(self, pod: str) -> None:
        """Terminate it; one that is not there counts."""
        with contextlib.suppress(NotFound):
            self._ask("DELETE", f"/v2/pods/{pod}")

    def stop(self, pod: str) -> None:
        """Stop it: its volume disk stays, and is billed."""
        with contextlib.suppress(NotFound):
            self._ask("POST", f"/v2/pods/{pod}/action", json={"action": "stop"})

    def log_lines(self, pod: str, after: str) -> Iterator[tuple[str, str]]:
        """What the container says, as (id, line), until the stream ends.

        Args:
            after: the id of the last line that is known, "" for none.
        """
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        path, query = f"/v2/pods/{pod}/logs", {"source": "container", "tail": "5000"}
        with self._client.stream("GET", path, params=query, headers=headers) as answer:
            answer.raise_for_status()
            event_id = ""
            for line in answer.iter_lines():
                field, _, value = line.partition(":")
                if field == "id":
                    event_id = value.strip()
                elif field == "data":
                    yield event_id, str(json.loads(value)["line"])

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Raises the error of ours that says what the refusal means."""
        try:
            answer = self._client.request(method, path, **more)
        except httpx.HTTPError as error:
            raise Unavailable(f"RunPod's API did not answer: {type(error).__name__}") from None
        if answer.is_success:
            return answer
        raise _refused(method, path, answer)


def _refused(method: str, path: str, answer: httpx.Response) -> JobError:
    """By the status; the text is that of RFC 9457 (problem+json) where there is one."""
    try:
        found = answer.json()
        detail = str(found.get("detail") or found.get("title") or "")
    except (ValueError, AttributeError):
        detail = ""
    status = answer.status_code
    text = f"RunPod's API answered {status} to {method} {path}" + (f": {detail}" if detail else "")
    if status in (401, 403):
        return AccessRefused(f"{text}. RUNPOD_API_KEY must be a key that may make and end pods.")
    if status == 404:
        return NotFound(text)
    return SpecError(text) if status in (400, 422) else Unavailable(text)

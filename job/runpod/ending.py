"""A pod ends itself: four ways to ask for it, tried in turn, since each is refused to some keys.

Which key may do what is not documented and reports differ, so no single way is relied upon.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import httpx

from job.credentials import read_credentials
from job.errors import SpecError

Action = Literal["terminate", "stop"]
Way = Callable[[httpx.Client, "Pod", Action], str | None]
_POD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECONDS = 15  # for one request


@dataclass(frozen=True, repr=False)
class Pod:
    """The pod that this container is, and the APIs that can end it.

    Attributes:
        key: RUNPOD_TERMINATE_API_KEY, or the key that RunPod gives each pod.
        api: of v2 and GraphQL; v1: of the REST API that v2 replaces.
    """

    id: str
    key: str
    api: str
    v1: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Pod:
        """Raises SpecError when RUNPOD_POD_ID is no pod's id: it goes into addresses."""
        pod_id = environ["RUNPOD_POD_ID"].strip()
        if not _POD_ID.fullmatch(pod_id):
            raise SpecError("RUNPOD_POD_ID is not the id of a pod: letters, digits, `-` and `_`.")
        try:
            known = read_credentials(environ)
            key = known.runpod_terminate_api_key or known.runpod_api_key
        except SpecError:  # which the job will end with; the pod has to be ended all the same
            key = environ.get("RUNPOD_API_KEY")
        return cls(
            pod_id,
            key or "",
            api_base(environ),
            environ.get("RUNPOD_API_URL", "https://rest.runpod.io/v1").rstrip("/"),
        )

    def end(self, action: Action, say: Callable[[str], None]) -> bool:
        """Ask each way until one says that it is done, or that there is no such pod."""
        headers = {"Authorization": f"Bearer {self.key}"}
        with httpx.Client(headers=headers, timeout=_SECONDS) as client:
            for name, way in WAYS.items():
                try:
                    refusal = way(client, self, action)
                except (httpx.HTTPError, OSError, ValueError, subprocess.SubprocessError) as error:
                    refusal = type(error).__name__
                if refusal is None:
                    say(f"pod {self.id}: {action} was accepted by {name}")
                    return True
                say(f"pod {self.id}: {action} was refused by {name}: {refusal}")
        return False


def api_base(environ: Mapping[str, str]) -> str:
    """Where v2 and GraphQL are; the SDK reads the same variable."""
    return environ.get("RUNPOD_API_BASE_URL", "https://api.runpod.io").rstrip("/")


def _v2(client: httpx.Client, pod: Pod, action: Action) -> str | None:
    place = f"{pod.api}/v2/pods/{pod.id}"
    if action == "terminate":
        return _refusal(client.delete(place))
    return _refusal(client.post(f"{place}/action", json={"action": "stop"}))


def _graphql(client: httpx.Client, pod: Pod, action: Action) -> str | None:
    field = "podTerminate" if action == "terminate" else "podStop"
    returned = "" if action == "terminate" else " { id desiredStatus }"
    query = f'mutation {{ {field}(input: {{podId: "{pod.id}"}}){returned} }}'
    answer = client.post(f"{pod.api}/graphql", json={"query": query})
    if not answer.is_success:
        return str(answer.status_code)
    if errors := answer.json().get("errors"):
        text = str(errors[0].get("message", ""))
        return None if "not found" in text.lower() else text[:200]
    return None


def _v1(client: httpx.Client, pod: Pod, action: Action) -> str | None:
    place = f"{pod.v1}/pods/{pod.id}"
    if action == "terminate":
        return _refusal(client.delete(place))
    return _refusal(client.post(f"{place}/stop"))


def _runpodctl(_: httpx.Client, pod: Pod, action: Action) -> str | None:
    """RunPod puts this program into some containers, with a key of its own."""
    program = shutil.which("runpodctl")
    if program is None:
        return "not installed"
    verb = "remove" if action == "terminate" else "stop"
    ended = subprocess.run([program, verb, "pod", pod.id], capture_output=True, timeout=60)
    return None if ended.returncode == 0 else f"exit code {ended.returncode}"


def _refusal(answer: httpx.Response) -> str | None:
    """None for done: any 2xx, and 404, since a pod that is not there costs nothing."""
    return None if answer.is_success or answer.status_code == 404 else str(answer.status_code)


WAYS: dict[str, Way] = {"v2": _v2, "GraphQL": _graphql, "v1": _v1, "runpodctl": _runpodctl}

"""The body of the request that makes a pod for a job. Pure."""

from __future__ import annotations

import base64
import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from job.credentials import TRACKING_SECRETS
from job.errors import SpecError
from job.spec import JobSpec

MIN_CUDA = "12.8"  # of the driver, as the image's CUDA and torch want it
MOUNT = "/workspace"
SPARE_GB = 15  # beyond the job's estimate: caches, kernels, logs
MASK = "********"
MOST_VARIABLES = 50  # of a pod (RunPod's documentation)
LONGEST_VARIABLE = 131_071  # bytes with its name and the `=` (Linux, MAX_ARG_STRLEN)
# Of the account that launches: a pod gets a key of its own.
NOT_PASSED = ("RUNPOD_API_KEY",)
PASSED = (
    *("HF_TOKEN", "HF_ENDPOINT", "WANDB_API_KEY", "JOB_WEBHOOK_SECRET"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    "RUNPOD_TERMINATE_API_KEY",
    *("WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_PROJECT", "WANDB_MODE"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_EXPERIMENT_NAME"),
    *("TRACKIO_SPACE_ID", "TRACKIO_BUCKET_ID", "TRACKIO_SERVER_URL", *TRACKING_SECRETS),
)


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        volume: the id of a network volume; "" for none.
        references: variable to the name of a RunPod secret.
        disk_gb: of the container.
    """

    image: str
    gpu: str
    cloud: str
    volume: str
    references: Mapping[str, str]
    disk_gb: int


def pod_body(spec: JobSpec, wanted: Wanted, values: Mapping[str, str]) -> dict[str, Any]:
    """CreatePodRequest of the REST API v2.

    Args:
        values: variables passed beside the spec, secrets among them.

    Raises:
        SpecError: it would not be a pod that can do the job.
    """
    _refuse_local(spec, wanted)
    keys = spec.public() | {"log_format": "lines"}
    if wanted.volume and str(spec.work_dir) == "/work":
        keys["work_dir"] = f"{MOUNT}/work"
    text = json.dumps(keys, ensure_ascii=False).encode()
    env = {"JOB_SPEC": "base64:" + base64.b64encode(text).decode(), **values}
    if wanted.volume:
        env["HF_HOME"] = f"{MOUNT}/huggingface"
    env |= {name: f"{{{{ RUNPOD_SECRET_{key} }}}}" for name, key in wanted.references.items()}
    _refuse_too_much(env)
    body: dict[str, Any] = {
        "name": f"{spec.run_name[:40]}-{secrets.token_hex(3)}",
        **{"image": wanted.image, "args": "run", "disk": wanted.disk_gb, "cloud": wanted.cloud},
        "gpu": {"id": wanted.gpu, "count": 1, "minCudaVersion": MIN_CUDA},
        "env": env,
    }
    if wanted.volume:
        body["mounts"] = {"network": [{"volumeId": wanted.volume, "path": MOUNT}]}
    return body


def disk_gb(estimate: int) -> int:
    """The container disk for the bytes that a job needs on it."""
    return SPARE_GB + math.ceil(estimate / 1e9)


def masked(body: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """The same body as it may be printed: of the variables passed, only the names."""
    hidden = {name: MASK for name in values if name in body["env"]}
    return {**body, "env": body["env"] | hidden}


def _refuse_local(spec: JobSpec, wanted: Wanted) -> None:
    """Paths of this machine mean nothing there."""
    paths = [("model", spec.model.uri)] if spec.model.scheme == "path" else []
    for key, sources in (("dataset", spec.dataset), ("eval_dataset", spec.eval_dataset)):
        paths += [(key, source.uri) for source in sources if source.scheme == "path"]
    paths += [("output", ref.location) for ref in spec.output if ref.scheme == "file"]
    problems = [
        f"{key}: {path} is not on the pod; allowed: hf://, s3://, or below {MOUNT} with --volume"
        for key, path in paths
        if not (wanted.volume and path.startswith(f"{MOUNT}/"))
    ]
    if problems:
        raise SpecError("the job spec names files of this machine", problems=problems)


def _refuse_too_much(env: Mapping[str, str]) -> None:
    if len(env) > MOST_VARIABLES:
        raise SpecError(f"{len(env)} variables; a pod takes {MOST_VARIABLES}.")
    for name, value in env.items():
        if len(f"{name}={value}".encode()) > LONGEST_VARIABLE:
            raise SpecError(
                f"{name} is longer than {LONGEST_VARIABLE} bytes, which no process can be given: "
                "put the spec into S3 and set JOB_SPEC=s3://… in a pod of your own."
            )

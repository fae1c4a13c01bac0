"""RunPod: the same image as a pod, as a serverless worker, and launched from elsewhere.

Importing this is light; `runpod`, the SDK, is imported by `serve` alone.
"""

from __future__ import annotations

from collections.abc import Mapping


def is_worker(environ: Mapping[str, str]) -> bool:
    """Whether this container is a serverless worker: it is told where jobs come from."""
    return bool(environ.get("RUNPOD_WEBHOOK_GET_JOB"))


def is_pod(environ: Mapping[str, str]) -> bool:
    """Whether this container is a pod's; workers have a pod id too."""
    return bool(environ.get("RUNPOD_POD_ID")) and not is_worker(environ)

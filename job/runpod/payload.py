"""A serverless job's `input` to the spec and the environment of the run (pure but for paths).

`input` is the flat spec. JOB_* variables of the endpoint are its defaults. What belongs to whoever
owns the endpoint cannot be set from outside: where the worker works, and which of its files are
read or written. Credentials come from the endpoint's environment alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from job.child import ALLOWED, ALLOWED_PREFIXES
from job.credentials import SECRETS, TRACKING_PREFIXES
from job.errors import JobError, SpecError
from job.spec import JobSpec, read_spec
from job.spec.carriers import CarrierError, read_carrier

OWNERS = ("work_dir", "log_format", "on_finish")  # keys that the endpoint's owner may set
TIMEOUT_VARIABLE = "RUNPOD_EXECUTION_TIMEOUT_S"
DEFAULT_TIMEOUT = 600  # seconds: RunPod's own default, when the owner says nothing
SPARE = 30  # seconds to start, to mirror the last checkpoint, to post the result

_SECRETS = [name for name in SECRETS if not name.startswith("RUNPOD_")]
_PASSED = {*ALLOWED, *_SECRETS, *(f"{name}_FILE" for name in _SECRETS), "HOME", "HF_ENDPOINT"}
_PASSED |= {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"}
_PASSED |= {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HF_HOME", "HF_HUB_DISABLE_XET"}


def volume(environ: Mapping[str, str]) -> Path:
    """Where a network volume is mounted on a worker."""
    return Path(environ.get("RUNPOD_VOLUME_PATH") or "/runpod-volume")


def read_input(payload: Any, environ: Mapping[str, str]) -> tuple[JobSpec, dict[str, str]]:
    """The job, and the environment in which `entrypoint.py run` does it.

    Args:
        payload: the job's `input`.
        environ: the endpoint's.

    Raises:
        SpecError: not a mapping, not a valid spec, or more than the caller may ask for.
    """
    if not isinstance(payload, dict):
        raise SpecError("`input` must be the job spec: an object with keys such as `model`.")
    taken = sorted(key for key in OWNERS if key in payload)
    if taken:
        problems = [f"{key}: set by the endpoint's owner, not in `input`" for key in taken]
        raise SpecError("the job spec has keys that `input` may not hold", problems=problems)
    env = {name: value for name, value in environ.items() if _is_passed(name)}
    env |= _defaults(payload, environ)
    spec = read_spec(env)
    problems = [*_paths(spec, payload, volume(environ))]
    if problems:
        raise SpecError("the job spec names files of the worker", problems=problems)
    return spec, env


def seconds_for(spec: JobSpec, environ: Mapping[str, str]) -> float:
    """How long the run may take, so that it can end in good order before RunPod kills it.

    RunPod does not tell a worker its execution timeout, so the owner says it a second time.

    Raises:
        SpecError: the job cannot end within it.
    """
    said = environ.get(TIMEOUT_VARIABLE, "").strip()
    try:
        timeout = float(said) if said else DEFAULT_TIMEOUT
    except ValueError:
        raise SpecError(f"{TIMEOUT_VARIABLE}: not a number of seconds") from None
    seconds = timeout - spec.stop_grace - SPARE
    if (spec.max_hours or 0) * 3600 > seconds or seconds <= 0:
        wanted = f"{spec.max_hours} hours" if spec.max_hours else f"{spec.stop_grace} s of grace"
        raise SpecError(
            f"This job cannot end within the endpoint's execution timeout: {wanted} are asked for,"
            f" {timeout:.0f} s are given. Set the timeout in the endpoint's settings and the same "
            f"number of seconds in its variable {TIMEOUT_VARIABLE} (at most 604800), or shorten "
            "the job."
        )
    return seconds


def _is_passed(name: str) -> bool:
    return name in _PASSED or name.startswith((*ALLOWED_PREFIXES, *TRACKING_PREFIXES, "AWS_"))


def _defaults(payload: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """JOB_* for the run: what the caller gave, and for the other keys what the owner set."""
    carried: dict[str, Any] = {}
    if text := environ.get("JOB_SPEC", "").strip():
        try:
            carried = read_carrier(text, None)
        except CarrierError as error:
            raise SpecError(f"JOB_SPEC of the endpoint: {error}") from None
    try:
        text = json.dumps(carried | payload, allow_nan=False)
    except ValueError:
        raise SpecError("`input` holds a number that JSON does not know.") from None
    env = {"JOB_SPEC": text}
    for name, value in environ.items():
        key = name.removeprefix("JOB_").lower()
        if name.startswith("JOB_") and name not in _PASSED | {"JOB_SPEC"} and key not in payload:
            env[name] = value
    return env | {"JOB_LOG_FORMAT": "json"}


def _paths(spec: JobSpec, payload: dict[str, Any], root: Path) -> Iterator[str]:
    """Files on the worker: read from the volume alone, written nowhere else."""
    allowed = f"allowed: below {root}, where a network volume is attached"
    for ref in spec.output:
        if ref.scheme == "file" and not _is_below(ref.location, root):
            yield f"output: {ref.uri} is gone with the worker; {allowed}, s3:// or hf://"
    if "model" in payload and spec.model.scheme == "path" and not _is_below(spec.model.uri, root):
        yield f"model: {spec.model.uri} is a folder of the worker; {allowed}"
    for key, sources in (("dataset", spec.dataset), ("eval_dataset", spec.eval_dataset)):
        for source in sources:
            if key in payload and source.scheme == "path" and not _is_below(source.uri, root):
                yield f"{key}: {source.uri} is a file of the worker; {allowed}"


def _is_below(path: str, root: Path) -> bool:
    """Whether it lies there, links followed, and there is such a place."""
    return root.is_dir() and Path(path).resolve().is_relative_to(root.resolve())


def failure(error: JobError, phase: str) -> dict[str, Any]:
    """A failure as it is posted: no traceback, no secret."""
    return {
        "code": error.name,
        "exit_code": error.exit_code,
        "phase": phase,
        "retryable": error.retryable,
        "message": str(error),
    }

"""The secrets a job may be given, read from environment variables or from files they name.

Secrets are never spec keys: they live here, next to the few settings that say where they are used
(`AWS_ENDPOINT_URL_S3`, `HF_ENDPOINT`, ...). Nothing here shows a value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from job.errors import SpecError

AWS_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# Of a tracker's own variables, secrets and settings alike, each begins with one of these.
TRACKING_PREFIXES = ("WANDB_", "MLFLOW_", "TRACKIO_")
# Of trackers; WANDB_API_KEY has a field of its own.
TRACKING_SECRETS = (*("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "TRACKIO_WRITE_TOKEN"),)
SECRETS = (
    *("HF_TOKEN", *AWS_SECRETS, "WANDB_API_KEY", "JOB_WEBHOOK_SECRET"),
    *("RUNPOD_API_KEY", "RUNPOD_TERMINATE_API_KEY"),
    *TRACKING_SECRETS,
)


@dataclasses.dataclass(frozen=True, repr=False)
class Credentials:
    """Secrets and where they are used; None or absent when not given.

    `aws` holds every AWS_* variable by its name, secrets and settings alike, with each
    NAME_FILE of a secret already replaced by NAME. `again` reads all of them anew: who gave a
    file may have put a fresh secret into it. `tracking` holds the other trackers' secrets by name.
    """

    hf_token: str | None = None
    hf_endpoint: str | None = None
    aws: Mapping[str, str] = dataclasses.field(default_factory=dict)
    wandb_api_key: str | None = None
    runpod_api_key: str | None = None
    runpod_terminate_api_key: str | None = None
    webhook_secret: str | None = None
    tracking: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reader: Callable[[], Credentials] | None = dataclasses.field(default=None, compare=False)

    def again(self) -> Credentials:
        """As they are now.

        Raises:
            SpecError: as `read_credentials`.
        """
        return self.reader() if self.reader else self

    def heard_by(self, hear: Callable[[list[str]], None]) -> Credentials:
        """The same, where `hear` gets every value that is read later, for redaction."""

        def reader() -> Credentials:
            fresh = self.again()
            hear(fresh.values())
            return fresh

        return dataclasses.replace(self, reader=reader)

    def values(self) -> list[str]:
        """Every secret value, for redaction."""
        single = (
            *(self.hf_token, self.wandb_api_key, self.webhook_secret),
            *(self.runpod_api_key, self.runpod_terminate_api_key),
        )
        aws = (value for name, value in self.aws.items() if _is_aws_secret(name))
        return [value for value in (*single, *aws, *self.tracking.values()) if value]

    def __repr__(self) -> str:
        names = ["HF_TOKEN"] * bool(self.hf_token) + sorted(self.aws)
        names += ["WANDB_API_KEY"] * bool(self.wandb_api_key)
        names += ["RUNPOD_API_KEY"] * bool(self.runpod_api_key)
        names += ["RUNPOD_TERMINATE_API_KEY"] * bool(self.runpod_terminate_api_key)
        names += ["JOB_WEBHOOK_SECRET"] * bool(self.webhook_secret) + sorted(self.tracking)
        return f"Credentials({', '.join(names)})"


def read_credentials(environ: Mapping[str, str]) -> Credentials:
    """Read every secret from its variable or from the file that NAME_FILE names.

    Raises:
        SpecError: both forms are set, a file cannot be read or is empty, or half an AWS key pair
            is given; every problem at once, each naming its variable.
    """
    found: dict[str, str] = {}
    problems: list[str] = []
    for name in SECRETS:
        value, problem = _read(name, environ)
        if value:
            found[name] = value
        if problem:
            problems.append(problem)
    if not problems:
        problems += _half_a_key_pair(found)
    if problems:
        raise SpecError("the credentials cannot be used", problems=problems)
    files = {f"{name}_FILE" for name in AWS_SECRETS}
    aws = {name: environ[name].strip() for name in environ if name.startswith("AWS_")}
    aws = {name: value for name, value in aws.items() if value and name not in files}
    return Credentials(
        hf_token=found.get("HF_TOKEN"),
        hf_endpoint=environ.get("HF_ENDPOINT", "").strip() or None,
        aws=aws | {name: found[name] for name in AWS_SECRETS if name in found},
        wandb_api_key=found.get("WANDB_API_KEY"),
        runpod_api_key=found.get("RUNPOD_API_KEY"),
        runpod_terminate_api_key=found.get("RUNPOD_TERMINATE_API_KEY"),
        webhook_secret=found.get("JOB_WEBHOOK_SECRET"),
        tracking={name: found[name] for name in TRACKING_SECRETS if name in found},
        reader=lambda: read_credentials(environ),
    )


def _read(name: str, environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The value of one secret and what is wrong with how it was given."""
    value = environ.get(name, "").strip()
    file = environ.get(f"{name}_FILE", "").strip()
    if value and file:
        return None, f"{name} and {name}_FILE are both set; allowed: one of them"
    if not file:
        return _one_line(name, value)
    try:
        text = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        # The path is not shown: it may be the secret itself, put into the wrong variable.
        why = getattr(error, "strerror", None) or "not a UTF-8 text file"
        return None, f"{name}_FILE: the file cannot be read ({why}); allowed: a readable text file"
    if not text:
        return None, f"{name}_FILE: the file is empty; allowed: a file that holds the secret"
    return _one_line(f"{name}_FILE", text)


def _one_line(variable: str, value: str) -> tuple[str | None, str | None]:
    if any(character in value for character in "\r\n\0"):
        return None, f"{variable}: more than one line (not shown); allowed: the secret alone"
    return value or None, None


def _half_a_key_pair(found: Mapping[str, str]) -> list[str]:
    key, secret = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
    if (key in found) == (secret in found):
        return []
    given, missing = (key, secret) if key in found else (secret, key)
    return [f"{missing} is missing although {given} is set; allowed: both or neither"]


def _is_aws_secret(name: str) -> bool:
    """AWS_*_TOKEN and the key pair; not the settings and not the files that AWS itself names."""
    return name in AWS_SECRETS or name.endswith("_TOKEN")

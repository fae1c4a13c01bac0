"""The manifests in deploy/, read; and which variables each gives the job."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


def read(name: str) -> Any:
    """One manifest as it is."""
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))  # JSON is YAML too


def container(name: str) -> dict[str, Any]:
    """The only container of a Kubernetes Job."""
    (found,) = read(name)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def variables(name: str) -> dict[str, str]:
    """The JOB_* variables of a manifest."""
    found: dict[str, Any] = {}
    if name == "compose.yaml":
        found = read(name)["services"]["job"]["environment"]
    elif name == "skypilot.yaml":
        found = read(name)["envs"]
    elif name == "dstack.yml":
        found = dict(entry.split("=", 1) for entry in read(name)["env"] if "=" in entry)
    elif name == "aws-batch.json":
        listed = json.loads((DEPLOY / name).read_text())["containerProperties"]["environment"]
        found = {entry["name"]: entry["value"] for entry in listed}
    elif name.startswith("kubernetes/"):
        found = {entry["name"]: entry.get("value") for entry in container(name)["env"]}
    else:
        text = (DEPLOY / name).read_text(encoding="utf-8")
        found = dict(re.findall(r"^export (JOB_\w+)=\$\{\1:-(.*)\}$", text, re.MULTILINE))
    return {key: value for key, value in found.items() if key.startswith("JOB_")}

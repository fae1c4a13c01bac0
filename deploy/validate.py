"""A manifest against its own tool's schema: `make manifests` runs this, each in its environment.

    python deploy/validate.py aws-batch deploy/aws-batch.json     botocore's model of the service
    python deploy/validate.py dstack deploy/dstack.yml            dstack's own parser
    python deploy/validate.py skypilot deploy/skypilot.yaml       SkyPilot's own JSON schema
    python deploy/validate.py sky docs/scale.md                   SkyPilot's own command line

Each raises with the tool's message when the manifest is not valid.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path


def aws_batch(text: str) -> None:
    """As `aws batch register-job-definition --cli-input-json` would send it."""
    import botocore.session
    from botocore.validate import ParamValidator

    service = botocore.session.get_session().get_service_model("batch")
    shape = service.operation_model("RegisterJobDefinition").input_shape
    assert shape, "this botocore does not know the operation"
    report = ParamValidator().validate(json.loads(text), shape)
    if report.has_errors():
        raise SystemExit(report.generate_report())


def dstack(text: str) -> None:
    """As `dstack apply` reads it."""
    import yaml
    from dstack._internal.core.models.configurations import parse_run_configuration

    parse_run_configuration(yaml.safe_load(text))


def skypilot(text: str) -> None:
    """As `sky jobs launch` reads it: the task and, apart, its resources."""
    import jsonschema
    import yaml
    from sky.utils import schemas

    task = yaml.safe_load(text)
    jsonschema.validate(task, schemas.get_task_schema())
    jsonschema.validate(task["resources"], schemas.get_resources_schema())


def sky(text: str) -> None:
    """Each `sky jobs launch` of a page, as its command line is parsed; nothing is launched."""
    from sky.client.cli import command

    for name in ("HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ[name] = "not a secret"  # `--secret NAME` takes it from there
    launches = re.findall(r"^ *sky jobs launch ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert launches, "the page launches nothing"
    for launch in launches:
        command.jobs_launch.make_context("launch", shlex.split(launch))


def main(arguments: list[str]) -> None:
    """Validate one file."""
    kind, file = arguments
    validators = {"aws-batch": aws_batch, "dstack": dstack, "skypilot": skypilot, "sky": sky}
    validators[kind](Path(file).read_text(encoding="utf-8"))
    print(f"{file}: valid")


if __name__ == "__main__":
    main(sys.argv[1:])

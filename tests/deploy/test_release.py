"""A release: what must be true first, what is said of it, and what the workflows may do."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.release import notes, problems
from job import __version__

ROOT = Path(__file__).parent.parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))
CHANGELOG = """# Changelog

## [Unreleased]

- later

## [0.2.0] - 2026-01-31

### Added

- this

## [0.1.0] - 2026-01-01

- that
"""


def test_the_notes_are_the_changelogs_section_of_the_version():
    assert notes(CHANGELOG, "0.2.0") == "### Added\n\n- this"
    assert notes(CHANGELOG, "0.1.0") == "- that"
    assert notes(CHANGELOG, "0.3.0") is None
    assert notes(CHANGELOG.replace(" - 2026-01-31", ""), "0.2.0") is None


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A committed tree that is ready to be released."""
    (tmp_path / "job").mkdir()
    shutil.copy(ROOT / "job/__init__.py", tmp_path / "job")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(
        f"# Changelog\n\n## [{__version__}] - 2026-01-31\n\n- x\n"
    )
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "-m", "t"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_a_tree_is_ready_when_version_changelog_and_commit_agree(checkout):
    assert problems(checkout) == []


def test_all_that_keeps_a_tree_from_release_is_told_at_once(checkout):
    (checkout / "CHANGELOG.md").write_text(CHANGELOG.replace("0.1.0", "0.0.9"))
    (checkout / "job/__init__.py").write_text('__version__ = "9.9.9"\n')
    found = "\n".join(problems(checkout))
    assert f"job/__init__.py does not say {__version__}" in found
    assert f"no dated section ## [{__version__}]" in found
    assert "differs from the commit" in found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_pins_its_actions_and_asks_for_little(path):
    text = path.read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        written = {name for name, level in job["permissions"].items() if level == "write"}
        assert written == ({"contents", "packages"} if path.name == "release.yaml" else set())
        assert job["timeout-minutes"] <= 240


def test_every_make_target_of_the_workflows_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for path in WORKFLOWS:
        for target in re.findall(r"make (?:--[\w-]+ )*([a-z-]+)", path.read_text(encoding="utf-8")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target

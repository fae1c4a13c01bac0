"""What must be true before a release, and what to say of it.

python deploy/release.py check     every problem at once; exit 1 if there is one
python deploy/release.py notes     the changelog's section of this version
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def notes(changelog: str, version: str) -> str | None:
    """What stands under the version's heading (Keep a Changelog 1.1); None if there is none."""
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}\n"
    found = re.search(heading + r"(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else None


def problems(root: Path) -> list[str]:
    """What keeps this checkout from being released."""
    found = []
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project["version"]
    if f'__version__ = "{version}"' not in (root / "job/__init__.py").read_text(encoding="utf-8"):
        found.append(f"job/__init__.py does not say {version}, as pyproject.toml does")
    if not notes((root / "CHANGELOG.md").read_text(encoding="utf-8"), version):
        found.append(f"CHANGELOG.md has no dated section ## [{version}] - YYYY-MM-DD")
    command = ["git", "status", "--porcelain"]
    changed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    if changed:
        found.append(f"the working tree differs from the commit:\n{changed.rstrip()}")
    return found


def main(arguments: list[str]) -> int:
    """Check, or print the notes."""
    if arguments == ["check"]:
        found = problems(ROOT)
        print(*(f"not ready: {problem}" for problem in found), sep="\n", file=sys.stderr)
        return 1 if found else 0
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version["version"])
    print(text or "")
    return 0 if text else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Update every pin in one go, and print what changed.

    python deploy/lock.py UV

UV is the uv to use. Moved are: uv itself (deploy/uv.txt), every package that pyproject.toml leaves
room for (uv.lock), the digest of the base image (Dockerfile), which a container engine must reach.
What decides the numbers is pinned in pyproject.toml and stays.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK, UV_PIN, DOCKERFILE = ROOT / "uv.lock", ROOT / "deploy/uv.txt", ROOT / "Dockerfile"
BASE = re.compile(r"^ARG BASE_IMAGE=(\S+)@(sha256:[0-9a-f]{64})$", re.MULTILINE)

Versions = dict[str, set[str]]


def locked(text: str) -> Versions:
    """The versions of each package in a uv.lock; several where Python versions differ."""
    found: Versions = {}
    for package in tomllib.loads(text)["package"]:
        found.setdefault(package["name"], set()).add(package["version"])
    return found


def changes(before: Versions, after: Versions) -> Iterator[str]:
    """One line a package that came, went or moved."""
    for name in sorted(before.keys() | after.keys()):
        old, new = (", ".join(sorted(found.get(name, ()))) or "-" for found in (before, after))
        if old != new:
            yield f"  {name}  {old} -> {new}"


def update_uv(uv: str) -> None:
    """The newest uv, with the hashes of all its files."""
    comment, pinned = UV_PIN.read_text(encoding="utf-8").split("\n", 1)
    command = [uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "-"]
    done = subprocess.run(command, input="uv\n", check=True, capture_output=True, text=True)
    if done.stdout == pinned:
        print("uv: unchanged")
        return
    UV_PIN.write_text(f"{comment}\n{done.stdout}", encoding="utf-8")
    print(f"uv: {pinned.split()[0]} -> {done.stdout.split()[0]}")


def update_packages(uv: str) -> None:
    """The newest packages that pyproject.toml admits."""
    before = locked(LOCK.read_text(encoding="utf-8"))
    subprocess.run([uv, "lock", "--upgrade", "--quiet"], cwd=ROOT, check=True)
    found = list(changes(before, locked(LOCK.read_text(encoding="utf-8"))))
    print(f"packages: {len(found)} changed", *found, sep="\n")


def update_base() -> None:
    """The digest that the base image's tag has now."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    pinned = BASE.search(text)
    assert pinned, "the Dockerfile pins its base by digest"
    name, digest = pinned.groups()
    command = ["docker", "buildx", "imagetools", "inspect", name]
    try:
        done = subprocess.run(
            [*command, "--format", "{{.Manifest.Digest}}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        found = done.stdout.strip()
        reason = done.stderr.strip().splitlines()[:1] if done.returncode else []
    except (OSError, subprocess.TimeoutExpired) as error:
        found, reason = "", [str(error)]
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", found):
        print(f"base: not reached, {digest} is kept ({' '.join(reason) or 'no digest'})")
    elif found == digest:
        print("base: unchanged")
    else:
        DOCKERFILE.write_text(text.replace(digest, found), encoding="utf-8")
        print(f"base: {digest} -> {found}")


def main(arguments: list[str]) -> int:
    """Update all three."""
    if len(arguments) != 1:
        print("usage: python deploy/lock.py UV", file=sys.stderr)
        return 64
    update_uv(arguments[0])
    update_packages(arguments[0])
    update_base()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The bill of materials: uv's list of the lock, completed by what is installed.

    uv export --format cyclonedx1.5 --output-file LOCKED …
    python3 sbom.py LOCKED SITE_PACKAGES LOCK INTO [--distribution]

Writes `sbom.cdx.json` (CycloneDX 1.5) and `licences.txt` to the folder INTO. Python's standard
library only: it also runs in the image, while that is built, and there lists the distribution's
packages as well, with the versions that were installed. Elsewhere those would be the machine's.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

Component = dict[str, Any]
DEBIAN_FIELDS = "${Package}\t${Version}\t${Architecture}\n"


def normalised(name: str) -> str:
    """A package's name as PyPI compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(distribution: importlib.metadata.Distribution) -> str:
    """What a package's metadata says: its expression, its classifiers, or its free text."""
    metadata = distribution.metadata
    if expression := metadata.get_all("License-Expression"):
        return str(expression[0])
    classifiers = metadata.get_all("Classifier") or []
    found = [c.split(" :: ")[-1] for c in classifiers if c.startswith("License :: ")]
    named = [name for name in found if name != "OSI Approved"]
    text = (metadata.get_all("License") or [""])[0].strip().splitlines()
    return " AND ".join(named) or (text[0][:80] if text else "not stated")


def python_packages(components: list[Component], site_packages: Path) -> list[Component]:
    """The locked components that are installed here, with their licences.

    The lock also holds packages for other Python versions; those are left out.
    """
    locked = {(normalised(c["name"]), c["version"]): c for c in components}
    found = []
    for distribution in importlib.metadata.distributions(path=[str(site_packages)]):
        key = (normalised(distribution.name), distribution.version)
        if key in locked:
            named = {"license": {"name": licence(distribution)}}
            found.append({**locked[key], "licenses": [named]})
    return sorted(found, key=lambda component: str(component["name"]))


def debian_packages() -> list[Component]:
    """The distribution's packages, by version, as dpkg knows them."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if line
    )
    distribution = release["ID"].strip('"')
    answer = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={DEBIAN_FIELDS}"],
        check=True,
        capture_output=True,
        text=True,
    )
    packages = []
    for line in answer.stdout.splitlines():
        name, version, architecture = line.split("\t")
        purl = f"pkg:deb/{distribution}/{name}@{version}?arch={architecture}"
        package = {"type": "library", "bom-ref": purl, "name": name, "version": version}
        packages.append({**package, "purl": purl})
    return packages


def complete(exported: dict[str, Any], site_packages: Path, lock: bytes) -> dict[str, Any]:
    """The bill of materials; the same input gives the same bytes, so no time and no serial."""
    metadata = {key: value for key, value in exported["metadata"].items() if key != "timestamp"}
    digest = {"name": "uv.lock:sha256", "value": hashlib.sha256(lock).hexdigest()}
    packages = python_packages(exported["components"], site_packages)
    kept = {package["bom-ref"] for package in packages}
    kept.add(metadata["component"]["bom-ref"])
    dependencies = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", []) if ref in kept]}
        for entry in exported["dependencies"]
        if entry["ref"] in kept
    ]
    return {
        "bomFormat": exported["bomFormat"],
        "specVersion": exported["specVersion"],
        "version": 1,
        "metadata": {**metadata, "properties": [digest]},
        "components": packages,
        "dependencies": dependencies,
    }


def licence_list(bill: dict[str, Any]) -> str:
    """One line a Python package: name, version, licence as its metadata states it."""
    lines = [
        f"{c['name']}\t{c['version']}\t{c['licenses'][0]['license']['name']}"
        for c in bill["components"]
        if "licenses" in c
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Read uv's export, write both files."""
    locked, site_packages, lock, into = (Path(argument) for argument in arguments[:4])
    exported = json.loads(locked.read_text(encoding="utf-8"))
    bill = complete(exported, site_packages, lock.read_bytes())
    if arguments[4:] == ["--distribution"]:
        bill["components"] += debian_packages()
    into.mkdir(parents=True, exist_ok=True)
    text = json.dumps(bill, indent=1, ensure_ascii=False) + "\n"
    (into / "sbom.cdx.json").write_text(text, encoding="utf-8")
    (into / "licences.txt").write_text(licence_list(bill), encoding="utf-8")
    print(f"{into / 'sbom.cdx.json'}: {len(bill['components'])} components", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])

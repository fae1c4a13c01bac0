"""Look the locked packages up among the known vulnerabilities; say so where that cannot be done.

    python deploy/scan.py REQUIREMENTS

REQUIREMENTS is `uv export`'s list. pip-audit 2.10.1 skips what its service does not know, prints
"No known vulnerabilities found" and exits 0, also when that was every package. So its answer is
counted here: exit 0 only if every package was looked up and none has a known vulnerability.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

FOUND, NOT_DONE = 1, 69


def audit(requirements: str) -> tuple[dict[str, Any] | None, str]:
    """pip-audit's answer, or None and why there is none."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", requirements, "--no-deps"]
    command += ["--disable-pip", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:]
        return None, last[0] if last else f"pip-audit ended with {done.returncode}"
    return answer, ""


def judge(answer: dict[str, Any]) -> tuple[int, str]:
    """The exit code and what to say of an answer of pip-audit."""
    packages = answer["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [
        f"  {package['name']} {package['version']}: {entry['id']}, fixed in "
        f"{', '.join(entry['fix_versions']) or 'no version yet'}"
        for package in packages
        for entry in package.get("vulns", [])
    ]
    if found:
        return FOUND, "\n".join(["known vulnerabilities:", *found])
    if not packages or skipped:
        return NOT_DONE, (
            f"NOT SCANNED: {len(skipped)} of {len(packages)} packages could not be looked up. "
            "The index in use serves no vulnerability data; scan where it can be reached."
        )
    return 0, f"{len(packages)} packages looked up, no known vulnerability"


def main(arguments: list[str]) -> int:
    """Audit, and tell."""
    answer, reason = audit(arguments[0])
    if answer is None:
        print(f"NOT SCANNED: {reason}", file=sys.stderr)
        return NOT_DONE
    code, text = judge(answer)
    print(text, file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

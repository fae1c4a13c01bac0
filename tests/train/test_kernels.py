"""The Triton kernels, interpreted on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.jobs import ROOT


def test_kernels_and_formulas_are_right() -> None:
    # Triton decides at its import whether to interpret.
    cases = str(Path(__file__).with_name("kernel_cases.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", cases],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]

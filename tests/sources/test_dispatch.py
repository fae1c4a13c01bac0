from __future__ import annotations

import subprocess
import sys


def test_the_package_loads_no_client_before_a_source_asks_for_it():
    code = (
        "import sys, job.sources; "
        "print(sorted({'boto3', 'httpx', 'huggingface_hub', 'tenacity', 'yaml'} & {*sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr

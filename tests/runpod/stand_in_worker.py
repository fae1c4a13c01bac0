"""The real worker and the real SDK, whose runs are those of `tests.drills.stand_in`."""

from __future__ import annotations

import os
import sys

from job.runpod.worker import serve

if __name__ == "__main__":
    serve(os.environ, (sys.executable, "-m", "tests.drills.stand_in", "run"), wait=0.5, every=0.05)

"""The real command line and supervisor, with children that stand in for torch and Unsloth.

`python -m tests.drills.stand_in run`. The children (`preparer`, `trainer`, `merger`, `verifier`
beside this file) keep real checkpoints, by the trainer's own keeper, of a toy model that learns in
milliseconds. `DRILL_KILL_BEFORE=n` kills the supervisor at a file boundary.
"""

from __future__ import annotations

import os
import sys

from job import children, cli
from tests.drills.boundaries import kill_before

children.DATA = "tests.drills.preparer"
children.TRAINER = "tests.drills.trainer"
children.MERGER = "tests.drills.merger"
children.VERIFIER = "tests.drills.verifier"


def main() -> int:
    environ = dict(os.environ)
    if number := environ.get("DRILL_KILL_BEFORE"):
        kill_before(int(number), *environ["DRILL_FOLDERS"].split(":"))
    return cli.main(sys.argv[1:], environ)


if __name__ == "__main__":
    sys.exit(main())

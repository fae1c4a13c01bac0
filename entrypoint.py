"""The container's entry point: `python entrypoint.py [COMMAND]`; job/cli.py has the commands."""

import os
import sys

from job.cli import main

if __name__ == "__main__":
    code = main(sys.argv[1:], os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    # Without Python's own ending: a thread that still waits for a store could abort the process
    # there ("could not acquire lock ... at interpreter shutdown"), and with it the exit code.
    os._exit(code)

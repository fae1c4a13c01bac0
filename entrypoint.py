"""The container's entry point: `python entrypoint.py [run|check|verify|schema]`."""

import os
import sys

from job.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))

"""Write the parts of a page that are made from the code: `python -m job.spec README.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from job.spec.docs import fill

page = Path(sys.argv[1])
page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")

from __future__ import annotations

import subprocess
import sys


def test_the_data_part_loads_no_heavy_library():
    code = "import job.data.build, sys; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert "jinja2" in loaded
    assert not {"torch", "transformers", "datasets"} & set(loaded)

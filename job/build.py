"""Which image this program runs in; the receipt names it."""

from __future__ import annotations

import json
from pathlib import Path

WRITTEN_BY_THE_BUILD = Path("/usr/share/finetune-job/build.json")


def image(file: Path = WRITTEN_BY_THE_BUILD) -> dict[str, str] | None:
    """The image's `version`, git `revision` and `lock_sha256` (of uv.lock); None in a checkout."""
    if not file.exists():
        return None
    written: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return written

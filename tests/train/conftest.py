"""The real small model, and what the training tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.smollm2 import main as write_smollm2
from tests.jobs import ROOT

ROWS = ROOT / "examples" / "multilingual-thinking.jsonl"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as `make test` and `make demo` write it, once for the checkout."""
    folder = ROOT / ".demo" / "model"
    assert write_smollm2([str(folder)]) == 0
    return folder

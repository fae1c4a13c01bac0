"""Fixtures of the data tests: SmolLM2's real tokenizer, loaded once (it takes seconds)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.data import families


@pytest.fixture(scope="session")
def smollm2() -> PreTrainedTokenizerFast:
    """The tokenizer of the demo's model."""
    return families.smollm2()


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[[Sequence[Any]], Path]:
    """Writes records as JSON Lines and returns the file."""

    def write(records: Sequence[Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        lines = (r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write

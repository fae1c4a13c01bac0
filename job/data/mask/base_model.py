"""Two things that the audit wants to know of a checkpoint, read from its files in a moment.

transformers would tell the same, and take seconds to be imported where all pools are cached.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

_REASONS = re.compile(rb"<think>|\bthinking\b|reasoning_content")


def token_texts(folder: Path) -> dict[int, str]:
    """id -> text of the tokens that stand for themselves, those that end a turn among them."""
    path = folder / "tokenizer.json"
    if not path.is_file():  # older checkpoints, which transformers converts
        return {}
    tokens = json.loads(path.read_bytes())["added_tokens"]
    return {token["id"]: token["content"] for token in tokens}


def template_reasons(folder: Path) -> bool:
    """Whether the chat template has words for what a model thinks before it answers."""
    paths = [folder / "tokenizer_config.json", *folder.glob("**/*.jinja")]
    return any(_REASONS.search(path.read_bytes()) for path in paths if path.is_file())

"""The checkpoint's own tokenizer, loaded as its users load it, without paying for PyTorch."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

# What transformers 5 reads to make a tokenizer; config.json decides its class where the
# tokenizer's own files do not.
_FILES = (
    *("config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template*", "*.jinja", "additional_chat_templates/*.jinja"),
    *("vocab.*", "merges.txt", "*.model", "*.tiktoken", "tekken.json"),
)
_TEMPLATES = ("tokenizer_config.json", "chat_template", ".jinja")
_DATES = (b"strftime_now", b"date_string")


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's own tokenizer, untouched; pads with eos where it has no pad token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def without_torch() -> None:
    """Let transformers, in this whole process, do without PyTorch.

    It imports PyTorch with the first tokenizer where it finds it, which takes 3 s and 600 MB in
    every process, and no variable of transformers 5.17 forbids that. Call it before transformers is
    imported; where PyTorch is already there, nothing changes.
    """
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type] # the import system's "not here"
    logging.getLogger("transformers").addFilter(
        lambda record: "PyTorch was not found" not in record.getMessage()
    )


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a checkpoint that decide what its tokenizer and chat template do, sorted."""
    return sorted({path for name in _FILES for path in folder.glob(name) if path.is_file()})


def prints_date(files: list[Path]) -> bool:
    """Whether a chat template among these files asks for the day; read without transformers."""
    return any(
        word in path.read_bytes()
        for path in files
        if any(part in path.name for part in _TEMPLATES)
        for word in _DATES
    )

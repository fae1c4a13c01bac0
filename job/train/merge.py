"""Saving: the adapter in PEFT's layout, then the merged 16-bit weights in transformers' layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from job.errors import InternalError


def save_adapter(model: Any, tokenizer: Any, folder: Path, base: dict[str, str | None]) -> None:
    """Save adapter and tokenizer; make the config name the base model and its commit.

    Args:
        base: `name` (Hub id, s3 URI or path, as the user gave it) and `revision`. Unsloth writes
            the local folder it loaded from, which means nothing to whoever loads the adapter.
    """
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's card names that folder too
    tokenizer.save_pretrained(folder)
    config = folder / "adapter_config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    content |= {"base_model_name_or_path": base["name"], "revision": base["revision"]}
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _require(folder, "adapter_model.safetensors")
    _readable(folder)


def save_merged(model: Any, tokenizer: Any, folder: Path) -> None:
    """Merge shard by shard into a copy of the base's weights, in the base's 16-bit dtype."""
    model.save_pretrained_merged(str(folder), tokenizer, save_method="merged_16bit")
    require_weights(folder)


def peak_memory() -> int | None:
    """Most bytes that tensors took on the GPU since the process began; None on a CPU."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None


def require_weights(folder: Path) -> None:
    """Raise InternalError unless the folder holds a model; make it readable for everyone."""
    _require(folder, "config.json")
    if not list(folder.glob("*.safetensors")):
        raise InternalError("The merge wrote no weights.")
    _readable(folder)


def _require(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise InternalError(f"Saving did not write {folder.name}/{name}.")


def _readable(folder: Path) -> None:
    """safetensors creates files that only their owner may read."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)

"""Which files of a model folder are needed, and whether it is complete. Pure: names and bytes.

Only what transformers loads: weights as safetensors, config, tokenizer, chat template. No code,
no pickles, no other runtime's copies (`original/`, `metal/`, `onnx/`), no second set of weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from job.errors import DataError, NotFound
from job.sources import RemoteFile

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
# The names that transformers 5 looks for, in the folder itself unless written with a folder.
SMALL_FILES = (
    "config*.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.jinja",
    "additional_chat_templates/*.jinja",
    "merges.txt",
    "vocab.*",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "*processor_config.json",
)
# Formats that hold code (pickle) or that no trainer reads.
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".gguf", ".ckpt", ".h5", ".msgpack")
REFUSED = (".py", *OTHER_WEIGHTS)


class Layout(NamedTuple):
    """The files to fetch, config.json's content, and the size of the weights in bytes."""

    files: tuple[RemoteFile, ...]
    config: dict[str, Any]
    weight_bytes: int


def read_layout(files: Sequence[RemoteFile], read: Callable[[str], bytes], where: str) -> Layout:
    """Choose the files of a model and check that it is complete.

    Args:
        files: all files of the folder.
        read: gives the content of one of them.
        where: what messages call the model, e.g. `JOB_MODEL hf://org/name`.

    Raises:
        NotFound: no config, tokenizer or safetensors, or a shard of the index is missing.
        DataError: the index or config is unreadable, or the index names a path outside the folder.
    """
    names = {file.name: file for file in files}
    if "config.json" not in names:
        raise NotFound(f"{where} has no config.json: it is no model that transformers can load.")
    if not any(name in names for name in TOKENIZERS):
        raise NotFound(
            f"{where} has no tokenizer (none of {', '.join(TOKENIZERS)}): save the tokenizer "
            "beside the weights."
        )
    weights = _weights(names, read, where)
    small = [name for name in names if _is_wanted(name) and name not in weights]
    chosen = tuple(names[name] for name in sorted({*small, *weights}))
    size = sum(names[name].size for name in weights if name.endswith(".safetensors"))
    return Layout(chosen, _read_json(read, "config.json", where), size)


def _is_wanted(name: str) -> bool:
    if name.endswith(REFUSED):
        return False
    folder = str(PurePosixPath(name).parent)
    return any(
        fnmatchcase(name, pattern) and folder == str(PurePosixPath(pattern).parent)
        for pattern in SMALL_FILES
    )


def _weights(
    names: dict[str, RemoteFile], read: Callable[[str], bytes], where: str
) -> tuple[str, ...]:
    """The names of the weight files, with the index; transformers prefers the single file."""
    if WEIGHTS in names:
        return (WEIGHTS,)
    if INDEX not in names:
        raise NotFound(_why_no_weights(names, where))
    shards = sorted(set(_weight_map(_read_json(read, INDEX, where), where).values()))
    for shard in shards:
        if "/" in shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise DataError(
                f"{where}: {INDEX} names {shard!r}, which is no safetensors file of the same "
                "folder; it is refused."
            )
    if missing := [shard for shard in shards if shard not in names]:
        raise NotFound(
            f"{where} is incomplete: {INDEX} names {len(shards)} files and {len(missing)} of them "
            f"are not there ({', '.join(missing[:5])}). Upload them or fix the index."
        )
    return (INDEX, *shards)


def _weight_map(index: dict[str, Any], where: str) -> dict[str, str]:
    table = index.get("weight_map")
    if not isinstance(table, dict) or not table:
        raise DataError(f"{where}: {INDEX} has no weight_map; save the model again.")
    return {str(key): str(value) for key, value in table.items()}


def _why_no_weights(names: dict[str, RemoteFile], where: str) -> str:
    if "adapter_model.safetensors" in names:
        return f"{where} holds a LoRA adapter, not a model: give the model that it was trained on."
    other = sorted(name for name in names if name.endswith((*OTHER_WEIGHTS, ".safetensors")))
    found = f"found {', '.join(other[:5])}" if other else "found no weights at all"
    return (
        f"{where} holds no safetensors weights named {WEIGHTS} or {INDEX} ({found}): convert it "
        "with save_pretrained(..., safe_serialization=True), or choose a repository that has them."
    )


def _read_json(read: Callable[[str], bytes], name: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(read(name))
    except ValueError as error:
        raise DataError(f"{where}: {name} is no valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: {name} is no JSON object.")
    return value

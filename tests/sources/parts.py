"""What the tests of the sources share: a small model's files and ways to write things short."""

from __future__ import annotations

import json

from job.credentials import Credentials
from job.spec import ModelRef, Source
from job.spec.sources import parse_source
from job.spec.uris import parse_model

NOBODY = Credentials()
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def source(text: str) -> Source:
    return parse_source(text)


def model(text: str) -> ModelRef:
    return parse_model(text)


def index_of(*shards: str) -> bytes:
    return json.dumps({"weight_map": {f"layer.{i}": s for i, s in enumerate(shards)}}).encode()


def model_files() -> dict[str, bytes]:
    """A sharded model as a repository has it: what is needed, and much that is not."""
    needed = {
        "config.json": b'{"model_type": "llama"}',
        "generation_config.json": b"{}",
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b"{}",
        "special_tokens_map.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
        INDEX: index_of(*SHARDS),
        SHARDS[0]: b"first shard" * 1000,
        SHARDS[1]: b"second shard" * 2000,
    }
    rest = {
        "README.md": b"# a model",
        "pytorch_model.bin": b"pickle",
        "modeling_llama.py": b"print('never run')",
        "tokenizer.py": b"print('never run')",
        "original/model.safetensors": b"again",
        "metal/model.bin": b"again",
        "onnx/model.onnx": b"again",
        "picture.png": b"png",
    }
    return {**needed, **rest}


NEEDED = tuple(sorted(list(model_files())[:9]))
WEIGHT_BYTES = sum(len(model_files()[shard]) for shard in SHARDS)


class Watch:
    """A progress callback that remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        self.calls.append((what, done, total))

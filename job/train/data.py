"""Between the request and `job.data`: files to tokenised rows, with the checkpoint's tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from job.data.build import Built, build
from job.data.formats import read_rows
from job.data.rows import Row
from job.data.template import EncodeOptions
from job.spec import JobSpec


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's own tokenizer, untouched; pads with eos where it has no pad token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def encode_options(spec: JobSpec, template_date: str) -> EncodeOptions:
    """What the spec says about rendering, masking and lengths."""
    return EncodeOptions(
        train_on=spec.train_on,
        overlength=spec.overlength,
        max_dropped=spec.max_dropped,
        max_seq_length=spec.max_seq_length,
        reasoning_effort=spec.reasoning_effort,
        template_date=template_date,
    )


def build_rows(spec: JobSpec, request: dict[str, Any]) -> Built:
    """Tokenised training and held-out rows, and the audit."""
    return build(
        _rows(request["train"]),
        _rows(request["eval"]),
        eval_fraction=spec.eval_fraction,
        seed=spec.seed,
        tokenizer=load_tokenizer(Path(request["model"])),
        options=encode_options(spec, request["template_date"]),
    )


def write_probe(built: Built, path: Path, rows: int = 4, tokens: int = 128) -> None:
    """Keep the first tokens of a few rows, on which the saved weights are compared later."""
    probe = [row["input_ids"][:tokens] for row in built.train[:rows]]
    path.write_text(json.dumps(probe), encoding="utf-8")


def _rows(sources: list[dict[str, Any]]) -> list[Row]:
    rows: list[Row] = []
    for source in sources:
        files = [Path(f) for f in source["files"]]
        rows += read_rows(files, source["format"], source["label"])[1]
    return rows

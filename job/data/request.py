"""What the data process is asked, turned from the spec's words into those of this room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from job.data.mask.template import EncodeOptions
from job.data.pools.pool import DataSource
from job.spec import JobSpec


def encode_options(spec: JobSpec, template_date: str) -> EncodeOptions:
    """What the spec says about rendering, masking and lengths."""
    return EncodeOptions(
        train_on=spec.train_on,
        overlength=spec.overlength,
        max_dropped=spec.max_dropped,
        max_seq_length=spec.max_seq_length,
        reasoning_effort=spec.reasoning_effort,
        template_date=template_date,
        expand_turns=spec.expand_turns,
    )


def data_sources(entries: list[dict[str, Any]]) -> list[DataSource]:
    """The sources of a request: `{"label", "files", "format", "kind", "weight"}` each."""
    return [
        DataSource(
            label=entry["label"],
            files=tuple(Path(file) for file in entry["files"]),
            format=entry["format"],
            kind=entry["kind"],
            weight=entry["weight"],
        )
        for entry in entries
    ]

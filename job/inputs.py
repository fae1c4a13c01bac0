"""What a run reads: its datasets, its base model, and what the data process is asked about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.credentials import Credentials
from job.events import Progress
from job.preflight import Findings
from job.sources import FetchedDataset, FetchedModel, fetch_dataset, fetch_model
from job.spec import JobSpec


@dataclass(frozen=True)
class Datasets:
    """Both sides, fetched."""

    train: list[FetchedDataset]
    eval: list[FetchedDataset]

    def request(self, cache: Path, out: Path, *, show: int = 0) -> dict[str, Any]:
        """The data process's request, `spec`, `model` and `template_date` apart.

        Args:
            cache: folder of the pools; survives the run.
            out: where it writes what is trained.
            show: how many rows it shows afterwards.
        """
        train, held_out = _described(self.train), _described(self.eval)
        folders = {"cache": str(cache), "out": str(out)}
        return {"train": train, "eval": held_out, **folders, "show": show, "quote": False}

    def described(self, rows: dict[str, int]) -> list[dict[str, Any]]:
        """Every dataset as report and receipt name it; `rows` by the request's label."""
        return [
            {
                "use": use,
                "uri": str(dataset.source),
                "revision": dataset.revision,
                "sha256": dataset.sha256,
                "rows": rows[entry["label"]],
            }
            for use, part in (("train", self.train), ("eval", self.eval))
            for dataset, entry in zip(part, _described(part), strict=True)
        ]


def fetch_datasets(
    found: Findings, into: Path, credentials: Credentials, progress: Progress
) -> Datasets:
    """Download every source; a local one stays where it is.

    Raises:
        JobError: as job.sources.fetch_dataset.
    """
    fetched = [
        fetch_dataset(dataset, into / str(i), credentials, progress)
        for i, dataset in enumerate((*found.train, *found.eval))
    ]
    return Datasets(fetched[: len(found.train)], fetched[len(found.train) :])


def fetch_tokenizer(
    spec: JobSpec, found: Findings, into: Path, credentials: Credentials, progress: Progress
) -> Path:
    """The base model's folder without its weights: enough to render and tokenise every row."""
    return fetch_model(spec.model, found.model.without_weights(), into, credentials, progress).path


def fetch_base(
    spec: JobSpec, found: Findings, into: Path, credentials: Credentials, progress: Progress
) -> FetchedModel:
    """The base model, in a folder below `into` that its name and commit name."""
    folder = f"{spec.model.uri.replace('://', '_').replace('/', '_')}_{found.model.revision}"
    return fetch_model(spec.model, found.model, into / folder, credentials, progress)


def _described(datasets: list[FetchedDataset]) -> list[dict[str, Any]]:
    """The sources as the data process knows them; two splits of one dataset get two names."""
    named = Counter(dataset.source.uri for dataset in datasets)
    return [
        {
            "label": str(source) if named[source.uri] > 1 else source.uri,
            "files": [str(file) for file in dataset.files],
            "format": source.format,
            "kind": source.kind,
            "weight": source.weight,
        }
        for dataset in datasets
        for source in [dataset.source]
    ]

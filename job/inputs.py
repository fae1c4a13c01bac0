"""What a run reads: its datasets, its base model, and what the data process is asked about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.credentials import Credentials
from job.errors import NotFound
from job.events import Progress
from job.preflight import Findings, download_folder
from job.sources import (
    FetchedDataset,
    FetchedModel,
    ModelFacts,
    fetch_dataset,
    fetch_model,
    model_facts,
)
from job.spec import JobSpec


@dataclass(frozen=True)
class Datasets:
    """Both sides, fetched."""

    train: list[FetchedDataset]
    eval: list[FetchedDataset]

    def request(
        self, cache: Path, out: Path, *, show: int = 0, quote: bool = False
    ) -> dict[str, Any]:
        """The data process's request, `spec`, `model` and `template_date` apart.

        Args:
            cache: folder of the pools; survives the run.
            out: where it writes what is trained.
            show: how many rows it shows afterwards.
            quote: whether its messages may quote bad rows.
        """
        train, held_out = _described(self.train), _described(self.eval)
        folders = {"cache": str(cache), "out": str(out)}
        return {"train": train, "eval": held_out, **folders, "show": show, "quote": quote}

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
    spec: JobSpec, facts: ModelFacts, credentials: Credentials, progress: Progress
) -> FetchedModel:
    """The base model as `facts` saw it, in a folder that all runs of this work dir share.

    Raises:
        JobError: as job.sources.fetch_model.
    """
    into = download_folder(spec, facts.revision)
    return fetch_model(spec.model, facts, into, credentials, progress)


def find_base(
    spec: JobSpec, revision: str | None, credentials: Credentials, progress: Progress
) -> FetchedModel:
    """The base that a saved adapter was trained on, in a later start.

    Args:
        revision: as that training recorded it.

    Raises:
        NotFound: the model is no longer what it was.
    """
    ref = spec.model
    if ref.scheme == "hf":
        ref = ref.model_copy(update={"revision": revision})
    facts = model_facts(ref, credentials)
    if facts.revision != revision:
        raise NotFound(f"{ref.uri} is no longer the model that the adapter was trained on.")
    return fetch_base(spec, facts, credentials, progress)


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

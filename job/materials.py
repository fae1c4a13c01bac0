"""What a run is made from: data and base model, fetched, prepared and told, and what names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job import workplace
from job.children import Children
from job.clock import Clock
from job.credentials import Credentials
from job.events import EventLog
from job.inputs import Datasets, fetch_base, fetch_datasets, fetch_tokenizer, find_base
from job.preflight import Findings
from job.record import Record
from job.sources import FetchedModel
from job.spec import JobSpec


@dataclass(frozen=True)
class Materials:
    """Fetches for one run.

    Attributes:
        folder: the run's.
        clock: learns from the downloads how fast the network is.
    """

    spec: JobSpec
    folder: Path
    credentials: Credentials
    log: EventLog
    record: Record
    children: Children
    clock: Clock

    def prepare(self, found: Findings) -> Datasets:
        """Data first: a bad row shall be found before gigabytes of weights are fetched."""
        credentials, progress = self.credentials, self.log.progress
        datasets = fetch_datasets(found, self.folder / "data", credentials, progress)
        into = self.folder / "tokenizer"
        tokenizer = fetch_tokenizer(self.spec, found, into, credentials, progress)
        cache = self.spec.work_dir / "cache" / "rows"
        self.children.prepare(tokenizer, datasets.request(cache, self.folder / "rows"))
        return datasets

    def fetch(self, found: Findings, datasets: Datasets) -> FetchedModel:
        """Download the base model, and say what this run is made from."""
        self.log.enter("fetch", "downloading the model")
        model = fetch_base(self.spec, found.model, self.credentials, self._progress)
        self.log.emit(
            "inputs",
            model=found.base(),
            datasets=datasets.described(self.record.facts["rows"]),
            device=found.device(),
        )
        return model

    def identity(self, model: FetchedModel) -> dict[str, Any]:
        """What must be the same to go on from a checkpoint."""
        return {
            "spec_hash": self.spec.spec_hash,
            "template_date": workplace.template_date(self.spec, self.folder),
            "model": model.revision,
            "rows": self.record.facts["fingerprint"],
        }

    def find_base(self) -> FetchedModel:
        """The base that the saved adapter was trained on."""
        self.log.enter("fetch", "downloading the base model where it is missing")
        revision = self.record.facts["model"]["revision"]
        return find_base(self.spec, revision, self.credentials, self.log.progress)

    def _progress(self, what: str, done: int, total: int) -> None:
        """Shown and timed, as long as the trainer, which imports meanwhile, is alive."""
        self.children.require_alive()
        self.clock.fetched(what, done, total)
        self.log.progress(what, done, total)

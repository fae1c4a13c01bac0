"""The base model's place on disk, and how a later start finds the very same base again."""

from __future__ import annotations

from pathlib import Path

from job.credentials import Credentials
from job.errors import NotFound
from job.events import Progress
from job.sources import FetchedModel, fetch_model, model_facts
from job.spec import JobSpec


def model_folder(spec: JobSpec, revision: str | None) -> Path:
    """Where the base is kept, for all runs of this work dir."""
    name = spec.model.uri.replace("://", "_").replace("/", "_")
    return spec.work_dir / "downloads" / f"{name}_{revision}"


def fetch_base(
    spec: JobSpec, revision: str | None, credentials: Credentials, progress: Progress
) -> FetchedModel:
    """The base that a saved adapter was trained on.

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
    return fetch_model(ref, facts, model_folder(spec, revision), credentials, progress)

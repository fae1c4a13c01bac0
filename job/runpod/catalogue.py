"""Which of RunPod's cards fit a job, and what they cost. Pure but for the model's description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from job import space
from job.credentials import Credentials
from job.errors import JobError
from job.memory import GIB
from job.plan import make_plan
from job.settings import Gpu
from job.sources import ModelFacts, model_facts
from job.spec import JobSpec

# The catalogue tells neither: what every NVIDIA card that RunPod lists today has at least, but for
# a few of Turing's and older, which the pod itself refuses.
CAPABILITY = (8, 0)
DRIVER = "570"  # brings CUDA 12.8
FREE = 0.97  # of a card's memory, with nothing else on it


@dataclass(frozen=True)
class Offer:
    """A card: price in US dollars per hour, memory in GB, stock in RunPod's word."""

    id: str
    price: float
    memory: int
    stock: str

    def line(self) -> str:
        """For a person."""
        return f"{self.price:8.2f} $/h  {self.memory:4d} GB  {self.stock:<8}  {self.id}"


def describe_model(spec: JobSpec, credentials: Credentials) -> ModelFacts:
    """The base model's config and size. Raises JobError when it cannot be reached."""
    return model_facts(spec.model, credentials)


def disk_estimate(spec: JobSpec, model: ModelFacts) -> int:
    """Bytes under the work dir; the same on every card. Datasets are not looked at here."""
    size = model.weight_bytes
    download = None if spec.model.scheme == "path" else (spec.work_dir / "downloads", size)
    return sum(need.size for need in space.needs(spec, model.config, size, download, (0, 0)))


def offers(spec: JobSpec, model: ModelFacts, gpus: list[dict[str, Any]], cloud: str) -> list[Offer]:
    """The cards of this cloud that the job fits, cheapest first."""
    found = []
    for gpu in gpus:
        price = (gpu.get("price") or {}).get(cloud.lower())
        if price and gpu.get(cloud.lower()) and _fits(spec, model, gpu):
            stock = str(gpu.get("availability") or "unknown")
            found.append(Offer(str(gpu["id"]), float(price), int(gpu["memory"]), stock))
    return sorted(found, key=lambda offer: (offer.price, offer.id))


def _fits(spec: JobSpec, model: ModelFacts, gpu: Mapping[str, Any]) -> bool:
    if str(gpu.get("manufacturer", "NVIDIA")).upper() != "NVIDIA":
        return False
    memory = int(gpu["memory"]) * GIB
    card = Gpu(str(gpu["id"]), memory, int(FREE * memory), CAPABILITY, DRIVER)
    try:
        make_plan(spec, model.config, model.weight_bytes, card)
    except JobError:
        return False
    return True

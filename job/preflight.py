"""Everything that would fail later, tried now: card, destinations, model, data, disk."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from job import space
from job.credentials import Credentials
from job.errors import Unavailable
from job.memory import GIB, storage_format
from job.plan import Plan, make_plan
from job.settings import Gpu
from job.sources import ModelFacts, ResolvedDataset, model_facts, resolve_dataset
from job.spec import JobSpec
from job.store import Destination

Say = Callable[[str], None]


@dataclass(frozen=True)
class Findings:
    """What preflight learnt; the run goes on from here without asking again."""

    gpu: Gpu | None
    model: ModelFacts
    train: tuple[ResolvedDataset, ...]
    eval: tuple[ResolvedDataset, ...]
    plan: Plan

    def knowing(self, spec: JobSpec, audit: Mapping[str, Any]) -> Findings:
        """The same with the plan for these data: their rows may be shorter than allowed."""
        longest = audit["percentiles"]["max"]
        plan = make_plan(spec, self.model.config, self.model.weight_bytes, self.gpu, longest)
        return replace(self, plan=plan)

    def base(self) -> dict[str, Any]:
        """The base model as report and receipt name it."""
        return {
            "uri": self.model.uri,
            "revision": self.model.revision,
            "type": self.model.config.get("model_type"),
            "licence": self.model.licence,
            "stored": storage_format(self.model.config),
        }

    def device(self) -> dict[str, Any]:
        """The device as report and receipt name it."""
        if self.gpu is None:
            return {"name": "CPU", "memory_gb": None}
        memory = round(self.gpu.memory / 1e9, 1)
        return {"name": self.gpu.name, "memory_gb": memory, "driver": self.gpu.driver}


def inspect(
    spec: JobSpec, credentials: Credentials, destinations: list[Destination], say: Say
) -> Findings:
    """Try everything, the cheapest first.

    Raises:
        JobError: whatever would have failed later.
    """
    gpu = find_gpu() if spec.device == "cuda" else None
    say(f"card: {gpu.name}, {gpu.memory / GIB:.0f} GiB" if gpu else "device: cpu")
    for destination in destinations:
        destination.check()
        say(f"destination: {destination.uri} can be written")
    model = model_facts(spec.model, credentials)
    commit = f" at {model.revision}" if model.revision else ""
    say(f"model: {model.uri}{commit}, {model.weight_bytes / GIB:.2f} GiB of weights")
    train = tuple(resolve_dataset(source, credentials) for source in spec.dataset)
    held_out = tuple(resolve_dataset(source, credentials) for source in spec.eval_dataset)
    for dataset in train + held_out:
        say(f"dataset: {dataset.source.uri}, {len(dataset.files)} file(s)")
    plan = make_plan(spec, model.config, model.weight_bytes, gpu)
    for line in space.require(_disk(spec, model, train + held_out)):
        say(line)
    return Findings(gpu, model, train, held_out, plan)


def find_gpu() -> Gpu:
    """The first card, as nvidia-smi tells it: torch is not imported for this.

    Raises:
        Unavailable: no driver, no card, or none that may be seen.
    """
    fields = "name,memory.total,memory.free,compute_cap,driver_version"
    way_out = "Start the container with `--gpus all` on a host with an NVIDIA GPU and driver."
    try:
        answer = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except FileNotFoundError:
        raise Unavailable(
            f"No NVIDIA driver is visible (nvidia-smi is missing). {way_out}"
        ) from None
    except subprocess.TimeoutExpired:
        raise Unavailable("nvidia-smi did not answer within 30 s: the driver hangs.") from None
    first = answer.stdout.strip().splitlines()[:1]
    if answer.returncode != 0 or not first:
        detail = (answer.stderr or answer.stdout).strip().splitlines()[:1]
        raise Unavailable(f"No usable GPU: {' '.join(detail) or 'none is listed'}. {way_out}")
    name, total, free, capability, driver = (part.strip() for part in first[0].split(","))
    major, _, minor = capability.partition(".")
    mib = 2**20
    return Gpu(name, int(total) * mib, int(free) * mib, (int(major), int(minor)), driver)


def download_folder(spec: JobSpec, revision: str | None) -> Path:
    """Where the base model is downloaded to, which all runs of a work dir share."""
    name = spec.model.uri.replace("://", "_").replace("/", "_")
    return spec.work_dir / "downloads" / f"{name}_{revision}"


def _disk(
    spec: JobSpec, model: ModelFacts, datasets: tuple[ResolvedDataset, ...]
) -> list[space.Need]:
    """What the job will write."""
    download = None
    if spec.model.scheme != "path":
        size = sum(size for _, size in model.files)
        download = (download_folder(spec, model.revision), size)
    remote = sum(dataset.size for dataset in datasets if dataset.source.scheme != "path")
    data = (remote, sum(dataset.size for dataset in datasets))
    return space.needs(spec, model.config, model.weight_bytes, download, data)

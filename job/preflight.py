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
_FIELDS = ["index", "uuid", "name", "memory.total", "memory.free", "compute_cap", "driver_version"]


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
    spec: JobSpec,
    credentials: Credentials,
    environ: Mapping[str, str],
    destinations: list[Destination],
    say: Say,
) -> Findings:
    """Try everything, the cheapest first.

    Args:
        environ: the trainer's, which may hide cards.

    Raises:
        JobError: whatever would have failed later.
    """
    gpu = find_gpu(environ) if spec.device == "cuda" else None
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


def find_gpu(environ: Mapping[str, str]) -> Gpu:
    """The card that a process with this environment takes first, as nvidia-smi tells it.

    torch is not imported for this.

    Raises:
        Unavailable: no driver, no card, none that may be seen, or one that tells too little.
    """
    cards = _listed_cards()
    card = _first_visible(cards, environ.get("CUDA_VISIBLE_DEVICES"))
    for field in ("memory.total", "compute_cap", "driver_version"):
        if card[field].startswith("["):  # "[N/A]", "[Insufficient Permissions]" and the like
            raise Unavailable(
                f"nvidia-smi tells no {field} of the {card['name']} ({card[field]}), as for a MIG "
                "slice: what fits cannot be planned. Take a whole card."
            )
    total, free = card["memory.total"], card["memory.free"]
    free = total if free.startswith("[") else free
    major, _, minor = card["compute_cap"].partition(".")
    mib, capability = 2**20, (int(major), int(minor))
    return Gpu(card["name"], int(total) * mib, int(free) * mib, capability, card["driver_version"])


def _listed_cards() -> list[dict[str, str]]:
    """Every card that the driver lists, in the order of the PCI bus."""
    way_out = "Start the container with `--gpus all` on a host with an NVIDIA GPU and driver."
    try:
        answer = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"],
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
    lines = answer.stdout.strip().splitlines()
    if answer.returncode != 0 or not lines:
        detail = (answer.stderr or answer.stdout).strip().splitlines()[:1]
        raise Unavailable(f"No usable GPU: {' '.join(detail) or 'none is listed'}. {way_out}")
    values = [[value.strip() for value in line.split(",")] for line in lines]
    return [dict(zip(_FIELDS, row, strict=True)) for row in values]


def _first_visible(cards: list[dict[str, str]], visible: str | None) -> dict[str, str]:
    """The card that CUDA counts as the first one, where `visible` is CUDA_VISIBLE_DEVICES.

    Its value is a list of indices or of beginnings of UUIDs; empty, it hides every card.
    """
    if visible is None:
        return cards[0]
    first = visible.split(",")[0].strip()
    for card in cards:
        by_uuid = first.startswith("GPU-") and card["uuid"].startswith(first)
        if first == card["index"] or by_uuid:
            return card
    names = ", ".join(f"{card['index']} ({card['name']})" for card in cards)
    raise Unavailable(
        f"CUDA_VISIBLE_DEVICES={visible!r} leaves no card: its first entry is none of {names}. "
        "Unset it, or let it begin with a whole card that is there."
    )


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

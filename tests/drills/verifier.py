"""Stands in for `job.train.verify`: the merged file must be base and adapter, to the byte."""

from __future__ import annotations

import time
from pathlib import Path

from job.channel import Channel, run_child
from job.errors import InternalError
from tests.drills.trainer import WEIGHTS
from tests.report.sample import done


def main(channel: Channel) -> None:
    channel.emit("ready")
    request = channel.receive()
    if (Path(request["probe"]).parent / "verifier-waits").exists():
        channel.emit("phase", phase="verify", message="waiting")
        time.sleep(600)
    if request["merged"]:
        base = (Path(request["model"]) / "model.safetensors").read_bytes()
        adapter = (Path(request["adapter"]) / WEIGHTS).read_bytes()
        if (Path(request["merged"]) / "model.safetensors").read_bytes() != base + adapter:
            raise InternalError("the merged weights are not base and adapter")
    known = done()
    channel.emit("verified", merge=known["merge"], samples=known["samples"])


if __name__ == "__main__":
    run_child(main)

"""Stands in for `job.train.merge_saved`."""

from __future__ import annotations

from pathlib import Path

from job.channel import Channel, run_child
from tests.drills.trainer import merge


def main(channel: Channel) -> None:
    channel.emit("ready")
    request = channel.receive()
    merge(Path(request["model"]), Path(request["adapter"]), Path(request["merged"]))
    channel.emit("artifact", part="merged")


if __name__ == "__main__":
    run_child(main)

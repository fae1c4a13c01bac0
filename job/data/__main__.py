"""The data process: source files → pools of tokenised rows → what is trained, in which order.

`python -m job.data`, started by the supervisor before the base model's weights are fetched: what is
wrong with the data is known before anything heavy is paid for. It has neither credentials nor
network, like the trainer.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from job.channel import Channel, run_child
from job.data.build import prepare
from job.data.choose.show import sample_rows
from job.data.mask.template import EncodeOptions
from job.data.mask.tokenizer import load_tokenizer, without_torch
from job.data.pools.pool import Pool, make_pool
from job.data.pools.workers import usable_cores
from job.data.request import data_sources, encode_options
from job.errors import DataError
from job.spec import read_spec


def main(channel: Channel) -> None:
    """Wait for the request, do it.

    The request: `spec` (public keys), `model` (a folder with config and tokenizer), `train` and
    `eval` (lists of sources), `template_date`, `cache` and `out` (folders), `show` (rows to show at
    the end), `quote` (whether messages may quote bad rows).
    """
    request = channel.receive()
    started = time.monotonic()
    without_torch()
    spec = read_spec({"JOB_SPEC": json.dumps(request["spec"])})
    options = encode_options(spec, request["template_date"])
    train = make_pools(options, request, "train", channel)
    held_out = make_pools(options, request, "eval", channel)
    prepared = prepare(spec, options, train, held_out, Path(request["model"]))
    prepared.save(Path(request["out"]))
    channel.emit("audit", audit=prepared.audit)
    channel.emit(
        "prepared",
        rows={pool.source.label: pool.read for pool in (*train, *held_out)},
        fingerprint=prepared.fingerprint,
        steps=prepared.steps,
        seconds=round(time.monotonic() - started, 1),
    )
    if request["show"]:
        tokenizer = load_tokenizer(Path(request["model"]))
        channel.emit("rows", rows=sample_rows(train, prepared.order, tokenizer, request["show"]))


def make_pools(
    options: EncodeOptions, request: dict[str, Any], use: str, channel: Channel
) -> list[Pool]:
    """The pools of one side, each from the cache where it is there.

    Raises:
        DataError: rows that cannot be trained on.
    """
    pools = []
    for source in data_sources(request[use]):

        def progress(done: int, total: int, label: str = source.label) -> None:
            channel.emit("progress", what=f"rows of {label}", done=done, total=total, unit="rows")

        pools.append(
            make_pool(
                source,
                Path(request["model"]),
                options,
                Path(request["cache"]),
                usable_cores(),
                progress,
                show_content=request["quote"],
            )
        )
    for pool in pools:
        if pool.format == "preference":
            raise DataError(
                f"{pool.source.label}: {pool.read} preference rows (chosen/rejected), all of them "
                "valid, but this job cannot train on preferences yet. Give conversations, or make "
                "them from the chosen answers."
            )
    return pools


if __name__ == "__main__":
    run_child(main)

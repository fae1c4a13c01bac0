"""The trainer: model → train → adapter → merge, in a process of its own.

`python -m job.train`, started by the supervisor, which sets the environment (no credentials, no
network, the stubs of device=cpu) and sends one request on stdin once everything is downloaded.
Unsloth is imported before that, since it takes half a minute.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from job.budget import Meter
from job.channel import Channel, run_child
from job.checkpoints import FOLDER
from job.errors import Unavailable
from job.pace import Pace
from job.spec import JobSpec, read_spec
from job.train.checkpoint import Keeper
from job.train.data import Rows
from job.train.watcher import look_at


def main(channel: Channel) -> None:
    """Import, wait for the request, do it."""
    started = time.monotonic()
    import_unsloth(on_cpu=os.environ.get("UNSLOTH_ALLOW_CPU") == "1")
    channel.emit("ready", seconds=round(time.monotonic() - started, 1))
    request = channel.receive()
    train(channel, request)


def import_unsloth(*, on_cpu: bool) -> None:
    """Import Unsloth before everything it patches."""
    from job.train import cpu

    if on_cpu:
        cpu.before_import()
    else:
        _require_cuda()
    import unsloth  # noqa: F401

    if on_cpu:
        cpu.after_import()


def _require_cuda() -> None:
    """Raise Unavailable unless torch can use the card that nvidia-smi showed."""
    import torch

    if not torch.cuda.is_available():
        raise Unavailable(
            "torch cannot use the GPU (torch.cuda.is_available() is false): the driver is too old "
            "for CUDA 12.8, or CUDA_VISIBLE_DEVICES hides the card."
        )


def train(channel: Channel, request: dict[str, Any]) -> None:
    """The story of one training, as the request tells it.

    The request: `spec` (public keys), `plan` (values), `model` and `rows` (folders), `out` (folder
    for adapter and merged), `base` (name and revision that the adapter shall carry), `run` (goes
    into each checkpoint), `budget` (see `job.budget.Meter`), `resume` (the checkpoint to go on
    from, or null).
    """
    from transformers import set_seed

    from job.train import data, evaluate, fit, load, merge

    spec = read_spec({"JOB_SPEC": json.dumps(request["spec"])})
    out = Path(request["out"])
    resume = Path(request["resume"]) if request["resume"] else None
    set_seed(spec.seed)

    rows = data.load_rows(Path(request["rows"]))
    meter = Meter(request["budget"], rows.steps, channel)
    data.write_probe(rows, out / "probe.json")
    trainer, tokenizer = loaded(channel, request, spec, rows)
    trainable = load.trainable_parameters(trainer.model)
    steps = trainer.args.max_steps
    meter.loaded()

    pace = Pace(rows.steps, rows.tokens)
    keeper = Keeper(out / FOLDER, request["run"], spec.checkpoint_minutes, channel)
    keeper.meter = meter
    if resume:
        keeper.resume(resume)
    else:
        look(trainer, 0, "before", channel, keeper, pace)
    message = f"{steps} steps of {spec.batch_size} rows, {trainable:,} trainable parameters"
    channel.emit("phase", phase="train", message=message)
    meter.start()
    result = fit.fit(trainer, rows, channel, keeper, pace, resume)
    look(trainer, meter.steps, "after", channel, keeper, pace)
    result |= {
        "trainable_parameters": trainable,
        **evaluate.summary(keeper.evals),
        "peak_memory_bytes": merge.peak_memory(),
    }
    channel.emit("trained", training=result)
    save(channel, request, spec, trainer.model, tokenizer)


def loaded(channel: Channel, request: dict[str, Any], spec: JobSpec, rows: Rows) -> tuple[Any, Any]:
    """The trainer with the model as planned, where its probes pass, and the tokenizer."""
    from job.train import fit, load, probe

    def warn(message: str) -> None:
        channel.emit("warning", message=message)

    plan = request["plan"]
    if plan["experts"]:
        plan = probe.checked(plan, warn)
    channel.emit("phase", phase="load", message=f"loading the model ({plan['precision']})")
    model, tokenizer = load.load_model(spec, plan, Path(request["model"]))
    if plan["packing"] and not plan["experts"]:
        plan = probe.packs(plan, spec, model, rows.train, warn)
    return fit.make_trainer(spec, plan, model, tokenizer, rows), tokenizer


def save(
    channel: Channel, request: dict[str, Any], spec: JobSpec, model: Any, tokenizer: Any
) -> None:
    """The adapter, and the merged weights where Unsloth merges."""
    from job.train import merge

    out = Path(request["out"])
    channel.emit("phase", phase="save", message="saving the adapter")
    merge.save_adapter(model, tokenizer, out / "adapter", request["base"])
    channel.emit("artifact", part="adapter")
    if "merged_16bit" in spec.save and request["plan"]["merge"] == "unsloth":
        channel.emit("phase", phase="merge", message="merging into 16-bit weights")
        merge.save_merged(model, tokenizer, out / "merged")
        channel.emit("artifact", part="merged")


def look(trainer: Any, step: int, when: str, channel: Channel, keeper: Keeper, pace: Pace) -> None:
    """Evaluate, if there are held-out rows; said before, since no step is done meanwhile."""
    if trainer.eval_dataset is not None:
        message = f"evaluating on {len(trainer.eval_dataset)} held-out rows {when} training"
        channel.emit("phase", phase="train", message=message)
    look_at(trainer, step, channel, keeper, pace)


if __name__ == "__main__":
    run_child(main)

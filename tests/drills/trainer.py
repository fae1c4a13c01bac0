"""Stands in for `job.train`: a toy model, trained step by step as the request and `drill.json` say.

Its weights after n steps are a function of the seed, and of every random number drawn on the way,
so that a resume that loses or repeats anything ends with other weights.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from job.budget import Meter
from job.channel import Channel, run_child
from job.checkpoints import FOLDER
from job.errors import Diverged, SpecError, Stopped
from job.spec import read_spec
from job.train.checkpoint import Keeper
from job.train.watcher import StopFlag
from tests.drills.boundaries import fill, kill_before

WEIGHTS = "adapter_model.safetensors"


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


class Toy:
    """What the keeper knows of a trainer: it can save each part of itself."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311
        self.weights = [self.dice.random() for _ in range(64)]
        self.momentum = [0.0] * 64
        self.state = SimpleNamespace(global_step=0, save_to_json=self._save_state)
        self.model = SimpleNamespace(parameters=list, save_pretrained=self._save_weights)

    def step(self) -> float:
        for n, weight in enumerate(self.weights):
            noise = self.dice.gauss(0, 0.01)
            self.momentum[n] = 0.9 * self.momentum[n] + weight + noise
            self.weights[n] -= 0.02 * self.momentum[n]
        self.state.global_step += 1
        return sum(weight * weight for weight in self.weights)

    def resume(self, folder: Path) -> None:
        packed = (folder / WEIGHTS).read_bytes()
        self.weights = [w for (w,) in struct.iter_unpack("d", packed)]
        self.momentum = json.loads((folder / "optimizer.pt").read_text())
        version, numbers, gauss = json.loads((folder / "rng_state.pth").read_text())
        self.dice.setstate((version, tuple(numbers), gauss))
        self.state.global_step = json.loads((folder / "trainer_state.json").read_text())

    def _save_weights(self, folder: Path) -> None:
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / WEIGHTS).write_bytes(b"".join(struct.pack("d", w) for w in self.weights))
        (Path(folder) / "adapter_config.json").write_text("{}")

    def _save_optimizer_and_scheduler(self, folder: str) -> None:
        Path(folder, "optimizer.pt").write_text(json.dumps(self.momentum))

    def _save_scaler(self, folder: str) -> None:
        pass

    def _save_rng_state(self, folder: str) -> None:
        Path(folder, "rng_state.pth").write_text(json.dumps(self.dice.getstate()))

    def _save_state(self, path: str) -> None:
        Path(path).write_text(json.dumps(self.state.global_step))


def main(channel: Channel) -> None:
    """As job.train does it, with what a drill orders on the way."""
    if _waiting(Path(os.environ["HOME"]).parent).get("dies_in") == "import":
        os._exit(9)
    channel.emit("ready", seconds=0.0)
    request = channel.receive()
    out = Path(request["out"])
    spec = read_spec({"JOB_SPEC": json.dumps(request["spec"])})
    order = _order(out)
    if "kill_before" in order:
        kill_before(order["kill_before"], str(out))
    (out / "probe.json").write_text("[[1]]")
    for phase in ("load", "train"):
        channel.emit("phase", phase=phase, message="")
        _pause(phase, order)
    toy, keeper = (
        Toy(spec.seed),
        Keeper(out / FOLDER, request["run"], spec.checkpoint_minutes, channel),
    )
    meter = keeper.meter = Meter(request["budget"], spec.max_steps, channel)
    meter.loaded()
    if request["resume"]:
        keeper.resume(Path(request["resume"]))
        toy.resume(Path(request["resume"]))
    else:
        keeper.evaluated({"step": 0, "loss": 1.0})
    meter.start()
    _train(channel, toy, keeper, meter, order, request["plan"]["micro_batch_size"])
    _pause("eval", order)
    channel.emit("trained", training=_totals(keeper))
    channel.emit("phase", phase="save", message="")
    _fill("save", order, out)
    toy.model.save_pretrained(out / "adapter")
    channel.emit("artifact", part="adapter")
    if "merged_16bit" in spec.save:
        channel.emit("phase", phase="merge", message="")
        _pause("merge", order)
        _fill("merge", order, out)
        merge(Path(request["model"]), out / "adapter", out / "merged")
        channel.emit("artifact", part="merged")


def _train(
    channel: Channel, toy: Toy, keeper: Keeper, meter: Meter, order: dict[str, Any], micro: int
) -> None:
    with StopFlag() as stop:
        keeper.start()
        while (done := toy.state.global_step) < meter.steps:
            slow = done >= order.get("slow_from", 10**9)
            time.sleep(order["slow_seconds"] if slow else order.get("step_seconds", 0))
            loss, step = toy.step(), toy.state.global_step
            if step == order.get("memory_ends_at") and micro > order.get("fits", 0):
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            if step == order.get("diverges_at"):
                raise Diverged(f"Step {step}: loss nan")
            point = {"step": step, "loss": loss, "learning_rate": 1e-3, "grad_norm": 1.0}
            point["tokens_per_second"] = 1.0
            channel.emit("step", **point, of=meter.steps, eta_seconds=0)
            keeper.history.append(point)
            if step == order.get("fills_at"):
                fill(Path(order["out"]))
            if step == order.get("dies_at"):
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                meter.stepped(step)
            except SpecError:
                keeper.keep(toy)
                raise
            if stop.is_set or meter.ended or keeper.is_due():
                keeper.keep(toy)
            if meter.ended and step < meter.steps:
                raise meter.stop(step)
            if stop.is_set and step < meter.steps:
                raise Stopped(f"Stopped by a signal after step {step}, which is kept.")


def _totals(keeper: Keeper) -> dict[str, Any]:
    losses = [point["loss"] for point in keeper.history]
    assert [p["step"] for p in keeper.history] == list(range(1, len(losses) + 1))
    totals = {
        "steps": len(losses),
        "planned_steps": keeper.meter.planned,
        "epochs": 1.0,
        "loss_first": losses[0],
        "loss_last": losses[-1],
    }
    totals |= {"tokens": 10 * len(losses), "seconds": 1.0, "trainable_parameters": 64}
    return totals | {"eval_loss_before": 1.0, "eval_loss_after": 0.5, "peak_memory_bytes": None}


def merge(base: Path, adapter: Path, merged: Path) -> None:
    """Base and adapter, one after the other, in one file."""
    merged.mkdir()
    whole = (base / "model.safetensors").read_bytes() + (adapter / WEIGHTS).read_bytes()
    (merged / "config.json").write_text("{}")
    (merged / "model.safetensors").write_bytes(whole)


def _order(out: Path) -> dict[str, Any]:
    """What the drill wants of this trainer; taken away, so that the next one gets none."""
    order = _waiting(out)
    if not order.get("always"):
        (out / "drill.json").unlink(missing_ok=True)
    return order


def _waiting(out: Path) -> dict[str, Any]:
    path = out / "drill.json"
    order: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return order


def _pause(phase: str, order: dict[str, Any]) -> None:
    if order.get("waits_in") == phase:
        time.sleep(600)


def _fill(phase: str, order: dict[str, Any], out: Path) -> None:
    if order.get("fills_in") == phase:
        while phase == "merge" and not (out / "stages.json").exists():
            time.sleep(0.01)  # the supervisor is about to say there that the adapter is finished
        fill(out)


if __name__ == "__main__":
    run_child(main)

"""What is in a checkpoint: all that decides the steps to come, and what was seen so far.

Files of PEFT and of the HF Trainer, which reads them again (`train(resume_from_checkpoint=…)`):

- `adapter_model.safetensors` and its config: the trained weights
- `optimizer.pt`, `scheduler.pt`, `scaler.pt` (float16 only)
- `rng_state.pth`: Python, NumPy, torch and CUDA
- `trainer_state.json`: steps, epochs and tokens done; the data go on from there
- `progress.json` is ours: every step's figures, evaluations, seconds

The Trainer's own saving is not used: it writes in place, by steps, with tokenizer and model card.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from job import checkpoints
from job.budget import Meter
from job.channel import Channel
from job.errors import Diverged

PROGRESS = "progress.json"


class Keeper:
    """Keeps a training's progress, and writes a checkpoint of it when one is due.

    Args:
        folder: of the checkpoints.
        run: goes into each checkpoint (see `job.checkpoints.Checkpoint`).
        minutes: of work that may be lost.

    Attributes:
        history: of each step its number, loss, learning rate, gradient norm, tokens per second.
        evals: of each evaluation its step, loss and accuracy.
        meter: keeps its plan and its clock in the checkpoints too.
    """

    def __init__(self, folder: Path, run: dict[str, Any], minutes: float, channel: Channel) -> None:
        self._folder, self._run, self._channel = folder, run, channel
        self._seconds_at_risk = minutes * 60
        self._started = self._kept = time.monotonic()
        self._seconds_before = 0.0
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.evals: list[dict[str, Any]] = []
        self.meter: Meter | None = None

    def resume(self, checkpoint: Path) -> None:
        """Take over the progress of an earlier process."""
        progress = json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))
        self.step, self._seconds_before = progress["step"], progress["seconds"]
        self.history, self.evals = progress["history"], progress["evals"]
        if self.meter and progress.get("budget"):
            self.meter.resume(progress["budget"])
        self._channel.emit("resumed", step=self.step, history=[*self.history], evals=self.evals)

    def evaluated(self, point: dict[str, Any] | None) -> None:
        """Remember how held-out rows were predicted, where there are such rows."""
        if point is not None:
            self.evals.append(point)

    def start(self) -> None:
        """The clock starts with the first step: what comes before is soon done again."""
        self._started = self._kept = time.monotonic()

    def seconds(self) -> float:
        """Seconds of training so far, those of earlier processes included."""
        return self._seconds_before + time.monotonic() - self._started

    def is_due(self) -> bool:
        """Whether as much work is at risk as may be."""
        return time.monotonic() - self._kept >= self._seconds_at_risk

    def keep(self, trainer: Any) -> None:
        """Write a checkpoint of the step just done.

        Raises:
            Diverged: a weight is not finite, so that nothing could go on from here.
        """
        began = time.monotonic()
        step = trainer.state.global_step
        if not _is_finite(trainer.model):
            raise Diverged(f"Step {step} made weights that are not finite; nothing was published.")
        with checkpoints.writing(self._folder, step, self._run) as aside:
            trainer.model.save_pretrained(aside)
            trainer._save_optimizer_and_scheduler(str(aside))
            trainer._save_scaler(str(aside))
            trainer._save_rng_state(str(aside))
            trainer.state.save_to_json(str(aside / "trainer_state.json"))
            progress = {
                "step": step,
                "seconds": self.seconds(),
                "history": self.history,
                "evals": self.evals,
                "budget": self.meter.facts() if self.meter else None,
            }
            (aside / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
        self._kept = time.monotonic()
        self._channel.emit("checkpoint", step=step, seconds=round(self._kept - began, 2))


def load_finished(trainer: Any, checkpoint: Path) -> None:
    """Put the weights and the state of a training that had done its last step into `trainer`."""
    from transformers import TrainerState

    trainer._load_from_checkpoint(str(checkpoint))
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))


def _is_finite(model: Any) -> bool:
    return all(bool(p.isfinite().all()) for p in model.parameters() if p.requires_grad)

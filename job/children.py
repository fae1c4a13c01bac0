"""The children of a run: data process, trainer, merger, verifier, each with its request."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from job import workplace
from job.checkpoints import FOLDER, Checkpoint, newest
from job.child import Child
from job.clock import Clock
from job.errors import CudaOutOfMemory, SpecError, Stopped
from job.events import EventLog
from job.memory import GIB, PARTS, on_card
from job.mirror import Mirror
from job.plan import Plan
from job.record import Record
from job.signals import Signals
from job.smaller import with_smaller_batch
from job.spec import JobSpec
from job.stages import Stages

DATA, TRAINER = "job.data", "job.train"
MERGER, VERIFIER = "job.train.merge_saved", "job.train.verify"


class Children:
    """Starts the children of one run and waits for them; the trainer imports while another works.

    Args:
        env: what they see of the environment.
        stages: hears of every part that is complete.
        mirror: hears of every checkpoint.
        signals: passes signals on to the child that works.
        clock: the run's, from which the trainer learns what it may still take.
    """

    def __init__(
        self,
        spec: JobSpec,
        env: dict[str, str],
        log: EventLog,
        record: Record,
        stages: Stages,
        mirror: Mirror,
        signals: Signals,
        clock: Clock,
    ) -> None:
        self.clock = clock
        self.spec, self.env, self.log, self.record = spec, env, log, record
        self.stages, self.mirror, self.signals = stages, mirror, signals
        self.folder = log.path.parent
        self.started: list[Child] = []

    def start(self, module: str) -> Child:
        """Start a child process; its events become ours."""
        with self.signals.held():
            child = Child(module, self.env, self.folder / "trainer.log", self._relay)
            self.started.append(child)
        return child

    def kill(self) -> None:
        """Leave nothing running."""
        for child in self.started:
            child.kill()

    def require_alive(self) -> None:
        """Raises what one of them died of, while others work: it would be noticed only later."""
        for child in self.started:
            child.require_alive()

    def prepare(self, tokenizer: Path, request: dict[str, Any]) -> None:
        """Have the data rendered, masked, tokenised and ordered."""
        self.log.enter("data", "rendering, masking and tokenising the rows")
        self._work(self.start(DATA), tokenizer, request)

    def train(
        self,
        trainer: Child,
        model: Path,
        plan: Plan,
        checkpoint: Checkpoint | None,
        request: dict[str, Any],
    ) -> None:
        """Train, and merge where Unsloth does that. What an earlier start left is removed first.

        The GPU's memory is found too small only while training: then once more with a smaller
        micro-batch, from the newest checkpoint.

        Args:
            trainer: was started before, since it imports for half a minute.
            request: what the plan, the checkpoint and the spec do not say.
        """
        for part in ("adapter", "merged", "report"):
            shutil.rmtree(self.folder / part, ignore_errors=True)
        self.log.enter("import", "waiting until the trainer has imported Unsloth")
        written = plan.estimates["results"]
        request |= {"plan": plan.values(), "resume": _path(checkpoint)}
        request["budget"] = self.clock.request(written)
        try:
            self._work(trainer, model, request)
        except CudaOutOfMemory as error:
            smaller = with_smaller_batch(plan)
            if smaller is None:
                raise _with_estimate(error, plan) from error
            self.log.emit("warning", message=f"{error.message} Trying once with less at a time.")
            self.log.emit("plan", settings=smaller.settings(), estimates=smaller.estimates)
            kept = newest(self.folder / FOLDER, self.spec.spec_hash, self._warn)
            request |= {"plan": smaller.values(), "resume": _path(kept)}
            request["budget"] = self.clock.request(written)
            try:
                self._work(self.start(TRAINER), model, request)
            except CudaOutOfMemory as again:
                raise _with_estimate(again, smaller) from again

    def merge(self, model: Path) -> None:
        """Merge in a process of its own, from the saved adapter."""
        self.log.enter("merge", "loading the base again, to merge the saved adapter into it")
        shutil.rmtree(self.folder / "merged", ignore_errors=True)
        folders = {part: str(self.folder / part) for part in ("adapter", "merged")}
        self._work(self.start(MERGER), model, folders)

    def verify(self, model: Path) -> None:
        """Load what was saved in a fresh process, compare, and answer the prompts."""
        merged = self.folder / "merged" if "merged" in self.record.artifacts else None
        request = {
            "adapter": str(self.folder / "adapter"),
            "merged": str(merged) if merged else None,
            "probe": str(self.folder / "probe.json"),
            "efforts": list(self.record.facts.get("audit", {}).get("reasoning_effort", {})),
        }
        self.log.enter("verify", "loading what was saved in a fresh process")
        self._work(self.start(VERIFIER), model, request)
        self.stages.finish("verified", self.record)

    def _work(self, child: Child, model: Path, request: dict[str, Any]) -> None:
        """Send a child its request and wait; a stop that came meanwhile ends the run here."""
        request |= {
            "spec": self.spec.public(),
            "model": str(model),
            "template_date": workplace.template_date(self.spec, self.folder),
        }
        self.signals.child = child
        try:
            child.run(request)
        except (Stopped, SpecError):  # the budget does not do: what is kept shall not be lost
            self._finish_mirroring()
            raise
        finally:
            self.signals.child = None
        if self.signals.came:
            raise Stopped("Stopped by a signal; nothing was published.")

    def _finish_mirroring(self) -> None:
        """Let the last checkpoint reach the destinations, if the grace and the user allow it."""

        def may_wait() -> bool:
            in_grace = not self.signals.came or self.signals.seconds_left() > 0
            return in_grace and not self.signals.hurry

        while self.mirror.is_busy and may_wait():
            time.sleep(0.05)

    def _relay(self, event: dict[str, Any]) -> None:
        kind = event.pop("event")
        self.log.emit(kind, **event)
        self.clock.tick()
        if kind == "artifact":
            self.stages.finish_part(event["part"], self.record)
        elif kind == "checkpoint":
            self.mirror.offer(event["step"])

    def _warn(self, message: str) -> None:
        self.log.emit("warning", message=message)


def _path(checkpoint: Checkpoint | None) -> str | None:
    return str(checkpoint.folder) if checkpoint else None


def _with_estimate(error: CudaOutOfMemory, plan: Plan) -> CudaOutOfMemory:
    """The same error with what was thought to be enough."""
    parts = {part: plan.estimates[part] / GIB for part in PARTS if plan.estimates[part]}
    listed = ", ".join(f"{size:.1f} GiB of {name}" for name, size in parts.items())
    tried = f"{plan.micro_batch_size.value} sequence(s) at a time"
    if plan.packing.value:
        tried = f"packed rows of {plan.packing.value} tokens"
    return CudaOutOfMemory(
        f"{error.message} It was tried with {tried}, "
        f"estimated at {on_card(plan.estimates) / GIB:.1f} GiB: {listed}."
    )

"""What a run came to, collected from its events: the `result` that report, card and receipt use."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from typing import Any

from job import __version__
from job.build import image
from job.errors import JobError
from job.events import Event
from job.spec import JobSpec

PACKAGES = (
    *("torch", "triton", "unsloth", "unsloth_zoo", "transformers", "trl", "peft", "bitsandbytes"),
    *("accelerate", "datasets", "tokenizers", "safetensors", "huggingface_hub", "boto3"),
)


class Record:
    """An event listener that keeps what the end of the run needs to know."""

    def __init__(self, spec: JobSpec) -> None:
        self.timings: dict[str, float] = {}
        self.facts: dict[str, Any] = {}
        self.artifacts: set[str] = set()  # parts that are complete in the run folder
        self._spec = spec
        self._phase = ""
        self._since = time.monotonic()

    def handle(self, event: Event) -> None:
        """Take over what one event tells."""
        kind = event["event"]
        if "cost_usd" in event:
            self.facts["cost_usd"] = event["cost_usd"]
        if kind == "phase":
            self._close_phase(str(event["phase"]))
            if event["phase"] == "load":  # a trainer begins, perhaps after one that failed
                self.facts.pop("training", None)
        elif kind == "artifact":
            self.artifacts.add(str(event["part"]))
        elif kind == "step":
            self._training().setdefault("history", []).append(_bare(event))
        elif kind == "eval":
            self._training().setdefault("evals", []).append(_bare(event))
        elif kind == "resumed":
            kept = {key: event[key] for key in ("history", "evals")}
            self._training().update(kept, resumed_from=event["step"])
        elif kind == "trained":
            self._training().update(event["training"])
        elif kind in ("audit", "prepared", "verified", "inputs", "plan"):
            self.facts |= _bare(event)

    def result(self, status: str) -> dict[str, Any]:
        """Everything known so far. `status` is `done` or `failed`."""
        self._close_phase(self._phase)
        facts = self.facts
        result = {
            "run": self._spec.run_name,
            "status": status,
            "spec": self._spec.public(),
            "versions": versions(),
            "image": image(),
            "timings": {phase: round(seconds, 1) for phase, seconds in self.timings.items()},
            "plan": facts.get("settings", {}),
            "estimates": facts.get("estimates", {}),
            "failure": None,
        }
        keys = ("model", "datasets", "device", "training", "audit", "merge", "samples", "cost_usd")
        return result | {key: facts[key] for key in keys if key in facts}

    def snapshot(self) -> dict[str, Any]:
        """All of it, JSON-able, to be kept with a finished stage."""
        return {
            "facts": self.facts,
            "timings": self.timings,
            "artifacts": sorted(self.artifacts),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from what an earlier start kept."""
        self.facts = snapshot["facts"]
        self.timings = snapshot["timings"]
        self.artifacts = set(snapshot["artifacts"])

    def _training(self) -> dict[str, Any]:
        """What is known of the training, also while it runs."""
        training: dict[str, Any] = self.facts.setdefault("training", {})
        return training

    def _close_phase(self, following: str) -> None:
        now = time.monotonic()
        if self._phase:
            self.timings[self._phase] = self.timings.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = following, now


def _bare(event: Event) -> Event:
    return {key: event[key] for key in event.keys() - {"event", "time", "cost_usd"}}


def describe(error: JobError, phase: str) -> dict[str, Any]:
    """A failure as it goes into failure.json, the report and the last line of stdout."""
    return {
        "code": error.name,
        "exit_code": error.exit_code,
        "phase": phase,
        "retryable": error.retryable,
        "message": error.message,
        "problems": error.problems,
    }


def versions() -> dict[str, str]:
    """The versions of what decides the numbers, read from the installed packages' metadata."""
    found = {"finetune-job": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        found[name] = importlib.metadata.version(name)
    return found

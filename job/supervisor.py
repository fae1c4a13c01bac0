"""The story of one run: from a valid spec to a verified receipt, or to a reported failure.

The supervisor is light (it never imports torch), holds the credentials, and survives whatever
happens to its children.
"""

from __future__ import annotations

import contextlib
import errno
import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from job import log_mirror, preflight, trackers, workplace
from job.attempts import Attempts
from job.budget import require_left
from job.checkpoints import FOLDER, names
from job.child import child_environment
from job.children import TRAINER, Children
from job.clock import Clock
from job.credentials import Credentials
from job.errors import InternalError, JobError, OutOfResources, Stopped, UsageError
from job.events import EventLog, clean
from job.log_mirror import LogMirror
from job.materials import Materials
from job.mirror import Mirror, find_checkpoint, remove_checkpoints
from job.publish import Publisher
from job.record import Record, describe
from job.signals import Signals, StopNow
from job.sources import FetchedModel
from job.spec import JobSpec
from job.stages import Stages
from job.store import open_destination
from job.trackers import Trackers
from job.webhook import told

Command = Literal["run", "merge", "publish"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended; becomes the last line of stdout and the exit code."""

    status: str  # done, failed, stopped
    exit_code: int
    phase: str
    retryable: bool
    message: str
    receipts: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)


def run_job(
    spec: JobSpec,
    credentials: Credentials,
    environ: Mapping[str, str],
    log: EventLog,
    command: Command = "run",
) -> Outcome:
    """Do the job and tell how it ended.

    Args:
        environ: what the children may see a part of.
        log: writes to the run's folder, which exists.
        command: `run` does what is not finished yet; `merge` merges anew and goes on from there;
            `publish` only publishes.

    Raises:
        DestinationTaken: another process is at work in that folder, so nothing is written there.
    """
    record, stages = Record(spec), Stages(log.path.parent, spec.spec_hash)
    log.listen(record.handle)
    destinations = [
        open_destination(ref, spec.run_name, spec.save, credentials, spec.hub_private, log.emit)
        for ref in spec.output
    ]
    publisher = Publisher(spec, log.path.parent, destinations, log, record, stages)
    run = Run(spec, credentials, environ, log, publisher, command)
    hook = told(spec.webhook_url, spec.run_name, credentials.webhook_secret, log)
    with workplace.one_process(run.folder), hook, run.signals.handled():
        try:
            return run.do()
        except UsageError:  # nothing was begun, so there is nothing to report
            raise
        except JobError as error:
            return run.fail(error)
        except StopNow as stop:
            return run.fail(Stopped(f"Stopped by {stop}; nothing was published."))
        except Exception as error:
            # What was paid for is kept, and the place of a bug is in the log.
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                return run.fail(OutOfResources(f"The disk under {spec.work_dir} is full."))
            log.emit("log", message=traceback.format_exc())
            return run.fail(InternalError(f"{type(error).__name__}: {error}"))
        finally:
            run.end()


class Run:
    """One run on its way."""

    def __init__(
        self,
        spec: JobSpec,
        credentials: Credentials,
        environ: Mapping[str, str],
        log: EventLog,
        publisher: Publisher,
        command: Command,
    ) -> None:
        self.spec, self.credentials, self.log, self.command = spec, credentials, log, command
        self.publisher, self.record, self.stages = publisher, publisher.record, publisher.stages
        self.folder = publisher.folder
        self.signals = Signals(spec.stop_grace)
        self.attempts = Attempts(self.folder, spec.max_attempts)
        self.clock = Clock(spec, self.folder)
        self.mirror = Mirror(self.folder / FOLDER, publisher.destinations, log)
        kernels, on_cpu = spec.work_dir / "cache", spec.device == "cpu"
        self.env = child_environment(environ, self.folder, on_cpu=on_cpu, kernels=kernels)
        self.children = Children(
            spec, self.env, log, self.record, self.stages, self.mirror, self.signals, self.clock
        )
        self.materials = Materials(
            spec, self.folder, credentials, log, self.record, self.children, self.clock
        )
        self.logs = LogMirror(self.folder, spec.spec_hash, publisher.destinations, log)
        self.trackers = Trackers(spec, environ, credentials, log)
        log.about(spec.run_name, spec.spec_hash, self.clock.cost)

    def do(self) -> Outcome:
        """The story."""
        self.log.enter("preflight", "trying everything that could fail later")
        (self.folder / "failure.json").unlink(missing_ok=True)  # of an earlier start
        if receipts := self.publisher.finished():
            return self.done(receipts)
        self.trackers.start()
        self.stages.restore(self.record)
        self.require_what_the_command_needs()
        self.attempts.begin(self.progress())
        trained, verified = "adapter" in self.stages, "verified" in self.stages
        found = None if trained else self.inspect()
        if trained:
            self.publisher.check(self.say)
        self.publisher.acquire(workplace.owner(self.folder))
        if receipts := self.publisher.finished():
            return self.done(receipts)
        self.logs.start()

        if not verified:
            model = self.make_adapter(found) if found else self.materials.find_base()
            if "merged_16bit" in self.spec.save and "merged" not in self.record.artifacts:
                self.children.merge(model.path)
            self.children.verify(model.path)
        self.mirror.close()
        facts = {"template_date": workplace.template_date(self.spec, self.folder)}
        return self.done(self.publisher.publish(facts), self.record.result("done"))

    def done(self, receipts: list[str], result: dict[str, Any] | None = None) -> Outcome:
        """The receipts are there; without a result, an earlier start has written them."""
        self.signals.ending = True
        message = "done" if result else "already done, nothing was trained"
        if not result:
            self.trackers.catch_up()
        self.log.emit("done", message=f"{message}: {', '.join(receipts)}", receipts=receipts)
        self.attempts.end(None, self.log.phase)
        with self.signals.interruptible():
            self.publisher.tidy()
        return Outcome("done", 0, self.log.phase, False, message, receipts, result or {})

    def require_what_the_command_needs(self) -> None:
        """`merge` and `publish` do a part of what `run` does.

        Raises:
            UsageError: what they start from is not there.
        """
        needed = {"run": None, "merge": "adapter", "publish": "verified"}[self.command]
        if needed and needed not in self.stages:
            raise UsageError(
                f"{self.command}: {self.folder} holds no {needed} result of this spec; "
                "`run` does all that is missing."
            )
        if self.command == "merge":
            self.stages.forget("merged", "verified", "reported")
            self.record.artifacts.discard("merged")

    def progress(self) -> str:
        """How far the run has come, to tell a start that gets on from one that does not."""
        stages = [stage for stage in ("adapter", "merged", "verified") if stage in self.stages]
        return " ".join([*names(self.folder / FOLDER)[-1:], *stages])

    def inspect(self) -> preflight.Findings:
        """Preflight, with a plan for rows as long as allowed."""
        places = self.publisher.destinations
        return preflight.inspect(self.spec, self.credentials, self.env, places, self.say)

    def make_adapter(self, found: preflight.Findings) -> FetchedModel:
        """Train, from the newest checkpoint if there is one; the base it was trained on."""
        self.log.enter("fetch", "downloading the data and the model's tokenizer")
        checkpoint = find_checkpoint(
            self.spec, self.folder / FOLDER, self.publisher.destinations, self.warn
        )
        if checkpoint:
            workplace.take_over_date(self.folder, checkpoint.run["template_date"])
            self.clock.take_over(checkpoint.folder)
        require_left(self.spec, self.clock.used(), self.clock.ended)
        trainer = self.children.start(TRAINER)  # imports Unsloth while data and model are fetched
        datasets = self.materials.prepare(found)
        found = found.knowing(self.spec, self.record.facts["audit"])
        self.log.emit("plan", settings=found.plan.settings(), estimates=found.plan.estimates)
        model = self.materials.fetch(found, datasets)
        run = self.materials.identity(model)
        if checkpoint and checkpoint.run != run:
            self.warn("model or data have changed since the last start: training begins anew")
            remove_checkpoints(self.folder / FOLDER, self.publisher.destinations)
            checkpoint = None
        request = {
            "rows": str(self.folder / "rows"),
            "out": str(self.folder),
            "run": run,
            "base": {
                "name": self.spec.model.uri.removeprefix("hf://"),
                "revision": found.model.revision if self.spec.model.scheme == "hf" else None,
            },
        }
        self.children.train(trainer, model.path, found.plan, checkpoint, request)
        return model

    def fail(self, error: JobError) -> Outcome:
        """Say why, here and at the destinations, and keep what may be kept."""
        self.signals.ending = True
        self.log.tell_anyway()
        phase = self.log.phase
        reason = clean(describe(error, phase), self.log.redact)
        failure = {"run": self.spec.run_name, "spec_hash": self.spec.spec_hash, **reason}
        result = self.record.result("failed") | {"failure": reason}
        with contextlib.suppress(OSError):  # on a full disk, the destinations are still told
            self.log.emit("failed", **reason)
            self.attempts.end(error, phase)
            text = json.dumps(failure, indent=2, ensure_ascii=False) + "\n"
            (self.folder / "failure.json").write_text(text, encoding="utf-8")
        if not self.signals.hurry:
            with contextlib.suppress(OSError), self.signals.interruptible():
                self.publisher.publish_failure(failure, result)
        status = "stopped" if isinstance(error, Stopped) else "failed"
        return Outcome(status, error.exit_code, phase, error.retryable, str(error), result=result)

    def end(self) -> None:
        """Leave nothing running and nothing claimed."""
        self.children.kill()
        self.clock.write()
        self.mirror.abandon()
        if not self.signals.hurry:
            with self.signals.interruptible():
                self.logs.finish(self.signals.within_grace(log_mirror.LAST_WORDS))
                self.publisher.release()
                self.trackers.close(self.signals.within_grace(trackers.LAST_WORDS))
        self.logs.abandon()
        self.trackers.kill()

    def say(self, message: str) -> None:
        """A line for the log."""
        self.log.emit("log", message=message)

    def warn(self, message: str) -> None:
        """A line that should be read."""
        self.log.emit("warning", message=message)

"""The story of one run: from a valid spec to a verified receipt, or to a reported failure.

The supervisor is light (it never imports torch), holds the credentials, and survives whatever
happens to its children.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job import preflight, workplace
from job.child import Child, child_environment
from job.credentials import Credentials
from job.errors import InternalError, JobError, OutOfResources, Stopped
from job.events import EventLog, clean
from job.inputs import Datasets, fetch_base, fetch_datasets, fetch_tokenizer
from job.publish import Publisher
from job.record import Record, describe
from job.spec import JobSpec
from job.store import open_destination


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
    spec: JobSpec, credentials: Credentials, environ: Mapping[str, str], log: EventLog
) -> Outcome:
    """Do the job and tell how it ended.

    Args:
        environ: what the children may see a part of.
        log: writes to the run's folder, which exists.

    Raises:
        DestinationTaken: another process is at work in that folder, so nothing is written there.
    """
    record = Record(spec)
    log.listen(record.handle)
    destinations = [
        open_destination(ref, spec.run_name, spec.save, credentials, spec.hub_private)
        for ref in spec.output
    ]
    publisher = Publisher(spec, log.path.parent, destinations, log, record)
    run = Run(spec, credentials, environ, log, record, publisher)
    with workplace.one_process(run.folder), run.stop_on_signals():
        try:
            return run.do()
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


class StopNow(KeyboardInterrupt):
    """Raised by a signal in whatever the main thread does; holds the signal's name.

    Not an Exception, which libraries catch: botocore wraps one and sends its request again.
    """


class Run:
    """One run on its way."""

    def __init__(
        self,
        spec: JobSpec,
        credentials: Credentials,
        environ: Mapping[str, str],
        log: EventLog,
        record: Record,
        publisher: Publisher,
    ) -> None:
        self.spec, self.credentials, self.log = spec, credentials, log
        self.record, self.publisher = record, publisher
        self.folder = publisher.folder
        self.env = child_environment(environ, self.folder, on_cpu=spec.device == "cpu")
        self.child: Child | None = None
        self.stop_requested = False
        self.working = False  # a child has its request, so a signal goes to it
        self.ending = False  # it is decided how this run ends, so a signal changes nothing

    def do(self) -> Outcome:
        """The story."""
        self.log.enter("preflight", "trying everything that could fail later")
        (self.folder / "failure.json").unlink(missing_ok=True)  # of an earlier start
        if receipts := self.publisher.finished():
            return self.done(receipts)
        found = preflight.inspect(
            self.spec, self.credentials, self.publisher.destinations, self.say
        )
        self.log.emit("plan", settings=found.plan.settings(), estimates=found.plan.estimates)
        self.publisher.acquire(workplace.owner(self.folder))
        if receipts := self.publisher.finished():
            return self.done(receipts)

        datasets = self.prepare(found)
        trainer = self.start("job.train")  # imports Unsloth while we download
        model = self.fetch(found, datasets)
        self.train(trainer, found, model)
        if "merged_16bit" in self.spec.save and found.plan.merge.value == "peft":
            self.merge(model)
        self.verify(model)
        facts = {"template_date": workplace.template_date(self.spec, self.folder)}
        return self.done(self.publisher.publish(facts), self.record.result("done"))

    def done(self, receipts: list[str], result: dict[str, Any] | None = None) -> Outcome:
        """The receipts are there; without a result, an earlier start has written them."""
        self.ending = True
        message = "done" if result else "already done, nothing was trained"
        self.log.emit("done", message=f"{message}: {', '.join(receipts)}", receipts=receipts)
        return Outcome("done", 0, self.log.phase, False, message, receipts, result or {})

    def prepare(self, found: preflight.Findings) -> Datasets:
        """Data first: a bad row shall be found before gigabytes of weights are fetched."""
        self.log.enter("fetch", "downloading the data and the model's tokenizer")
        credentials, progress = self.credentials, self.log.progress
        datasets = fetch_datasets(found, self.folder / "data", credentials, progress)
        into = self.folder / "tokenizer"
        tokenizer = fetch_tokenizer(self.spec, found, into, credentials, progress)
        self.log.enter("data", "rendering, masking and tokenising the rows")
        cache = self.spec.work_dir / "cache" / "rows"
        self.work(self.start("job.data"), tokenizer, datasets.request(cache, self.folder / "rows"))
        return datasets

    def fetch(self, found: preflight.Findings, datasets: Datasets) -> Path:
        """Download the base model and say what this run is made from."""
        self.log.enter("fetch", "downloading the model")
        into = self.spec.work_dir / "downloads"
        model = fetch_base(self.spec, found, into, self.credentials, self.log.progress)
        described = {
            "uri": found.model.uri,
            "revision": found.model.revision,
            "type": found.model.config.get("model_type"),
        }
        rows = self.record.facts["rows"]
        self.log.emit(
            "inputs",
            model=described,
            datasets=datasets.described(rows),
            device=found.device(),
        )
        return model.path

    def train(self, trainer: Child, found: preflight.Findings, model: Path) -> None:
        """Train and merge in the trainer process. What an earlier start left is removed first."""
        for part in ("adapter", "merged", "report"):
            shutil.rmtree(self.folder / part, ignore_errors=True)
        base = {
            "name": self.spec.model.uri.removeprefix("hf://"),
            "revision": found.model.revision if self.spec.model.scheme == "hf" else None,
        }
        request = {
            "plan": found.plan.values(),
            "rows": str(self.folder / "rows"),
            "out": str(self.folder),
            "base": base,
        }
        self.log.enter("import", "waiting until the trainer has imported Unsloth")
        self.work(trainer, model, request)

    def merge(self, model: Path) -> None:
        """Merge in a process of its own, from the saved adapter."""
        self.log.enter("merge", "loading the base again, to merge the saved adapter into it")
        folders = {part: str(self.folder / part) for part in ("adapter", "merged")}
        self.work(self.start("job.train.merge_mxfp4"), model, folders)

    def verify(self, model: Path) -> None:
        """Load what was saved in a fresh process, compare, and answer the prompts."""
        merged = self.folder / "merged" if "merged" in self.record.artifacts else None
        request = {
            "adapter": str(self.folder / "adapter"),
            "merged": str(merged) if merged else None,
            "probe": str(self.folder / "probe.json"),
        }
        self.log.enter("verify", "loading what was saved in a fresh process")
        self.work(self.start("job.train.verify"), model, request)

    def fail(self, error: JobError) -> Outcome:
        """Say why, here and at the destinations, and keep what may be kept."""
        self.ending = True
        phase = self.log.phase
        reason = clean(describe(error, phase), self.log.redact)
        failure = {"run": self.spec.run_name, "spec_hash": self.spec.spec_hash, **reason}
        result = self.record.result("failed") | {"failure": reason}
        with contextlib.suppress(OSError):  # on a full disk, the destinations are still told
            self.log.emit("failed", **reason)
            text = json.dumps(failure, indent=2, ensure_ascii=False) + "\n"
            (self.folder / "failure.json").write_text(text, encoding="utf-8")
        with contextlib.suppress(OSError):
            self.publisher.publish_failure(failure, result)
        status = "stopped" if isinstance(error, Stopped) else "failed"
        return Outcome(status, error.exit_code, phase, error.retryable, str(error), result=result)

    def end(self) -> None:
        """Leave nothing running and nothing claimed."""
        if self.child is not None:
            self.child.kill()
        self.publisher.release()

    # -- children and signals ------------------------------------------------------------------

    def start(self, module: str) -> Child:
        """Start a child process; its events become ours."""

        def relay(event: dict[str, Any]) -> None:
            self.log.emit(event.pop("event"), **event)

        self.child = Child(module, self.env, self.folder / "trainer.log", relay)
        return self.child

    def work(self, child: Child, model: Path, request: dict[str, Any]) -> None:
        """Send a child its request and wait; a stop that came meanwhile ends the run here."""
        request |= {
            "spec": self.spec.public(),
            "model": str(model),
            "template_date": workplace.template_date(self.spec, self.folder),
        }
        self.working = True
        try:
            child.run(request)
        finally:
            self.working = False
        if self.stop_requested:
            raise Stopped("Stopped by a signal; nothing was published.")

    @contextlib.contextmanager
    def stop_on_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT: a working child stops at its next step, anything else stops here."""

        def handle(number: int, _: Any) -> None:
            if self.ending:
                return
            first, self.stop_requested = not self.stop_requested, True
            if self.working and self.child is not None:
                self.child.stop()
                if first:  # leave a few seconds of the grace to say how it ended
                    timer = threading.Timer(max(self.spec.stop_grace - 5, 1), self.child.kill)
                    timer.daemon = True
                    timer.start()
            elif first:
                raise StopNow(signal.Signals(number).name)

        before = {n: signal.signal(n, handle) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, previous in before.items():
                signal.signal(number, previous)

    def say(self, message: str) -> None:
        """A line for the log."""
        self.log.emit("log", message=message)

"""The last phases: cards and report, every part to every destination, the receipt last."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from job.checkpoints import FOLDER
from job.errors import DestinationTaken, InternalError, JobError, Stopped, UploadFailed
from job.events import EventLog, clean
from job.hashing import FileRecord, hash_folder, holds
from job.receipt import build_receipt
from job.record import Record
from job.report import write_card, write_report
from job.spec import JobSpec
from job.stages import CARD, Stages
from job.store import Claim, Destination, Part, finished_receipt, misfits

NOT_IN_RECEIPT = ("run", "spec", "files", "samples", "audit")  # there already, or in the report
AFTER_TRAINING = ("merge", "verify", "publish")  # a failure here leaves a good adapter
_GONE = "missing or of another size"

Hashed = dict[Part, list[FileRecord]]  # each part's files, with paths relative to the part


def listed(hashed: Hashed) -> list[dict[str, Any]]:
    """All files in one list, named from the run's folder on, JSON-able."""
    return [
        {**asdict(record), "path": f"{part}/{record.path}"}
        for part, records in hashed.items()
        for record in records
    ]


def grouped(files: list[FileRecord]) -> Hashed:
    """The same files by part again, named from the part on."""
    hashed: Hashed = {}
    for file in files:
        part, _, path = file.path.partition("/")
        hashed.setdefault(cast(Part, part), []).append(replace(file, path=path))
    return hashed


@dataclass(frozen=True)
class Publisher:
    """The destinations of one run, and what is sent there.

    Attributes:
        folder: the run's folder, which holds `adapter/`, `merged/` and `report/`.
    """

    spec: JobSpec
    folder: Path
    destinations: list[Destination]
    log: EventLog
    record: Record
    stages: Stages

    def finished(self) -> list[str]:
        """The receipts, if every destination has one of this very spec; else nothing.

        Listed files that are gone or cut off are put back first, from the run's folder.

        Raises:
            DestinationTaken: a destination holds another spec's run under this name, or less
                than its receipt lists, and it cannot be put back.
        """
        found = [self._finished_at(destination) for destination in self.destinations]
        return [uri for uri in found if uri] if all(found) else []

    def check(self, say: Callable[[str], None]) -> None:
        """Try every destination.

        Raises:
            AccessRefused, NotFound, Unavailable: one would fail.
        """
        for destination in self.destinations:
            destination.check()
            say(f"destination: {destination.uri} can be written")

    def acquire(self, owner: str) -> None:
        """Claim every destination, so that no other process mixes in."""
        claim = Claim(owner=owner, spec_hash=self.spec.spec_hash)
        for destination in self.destinations:
            destination.acquire(claim)

    def publish(self, facts: dict[str, Any]) -> list[str]:
        """Send everything everywhere; the outcome at one destination does not touch another's.

        Args:
            facts: kept in the receipt beside the result.

        Returns:
            The URIs of the receipts.

        Raises:
            JobError: the first failure, after every destination was tried. All files are kept.
        """
        if "reported" not in self.stages:
            self._write_report()
        hashed = grouped(self.stages.files("reported"))
        result = self._result()
        receipts, failures = [], []
        for destination in self.destinations:
            try:
                receipts.append(self._publish_to(destination, hashed, result | facts))
            except JobError as error:
                self.log.emit("warning", message=f"{destination.uri}: {error.message}")
                failures.append(error)
        if failures:
            self.log.emit("warning", message=f"all files are kept in {self.folder}")
            raise failures[0]
        return receipts

    def publish_failure(self, failure: dict[str, Any], result: dict[str, Any]) -> None:
        """`failure.json` to every destination; with it the adapter, if only its merge went wrong.
        Then the report's page, to those that took it.

        A destination that refuses costs a warning: the failure itself is what will be reported.
        """
        keep_adapter = failure["phase"] in AFTER_TRAINING and "adapter" in self._parts()
        keep_adapter = keep_adapter and failure["code"] not in (Stopped.name, UploadFailed.name)
        folder = self.folder / "adapter"
        if keep_adapter:
            try:
                write_card(folder / CARD, clean(result, self.log.redact), "adapter")
            except OSError as error:  # a full disk; the failure is told all the same
                keep_adapter = False
                self.log.emit("warning", message=f"the adapter is only in {folder}: {error}")
        told = []
        for destination in self.destinations:
            try:
                if keep_adapter and destination.read_receipt() is None:
                    records = hash_folder(folder)
                    destination.publish("adapter", folder, records, self.log.progress)
                if destination.publish_failure(failure):
                    told.append(destination)
            except JobError as error:
                message = f"{destination.uri}: the failure was not written there: {error.message}"
                self.log.emit("warning", message=message)
        page = self._report_of_failure(result)
        for destination in told if page else []:
            try:
                destination.publish_page(page)
            except JobError as error:
                message = f"{destination.uri}: the report was not written there: {error.message}"
                self.log.emit("warning", message=message)

    def _report_of_failure(self, result: dict[str, Any]) -> bytes:
        """Write the report into the run's folder; its page, empty if it could not be written."""
        folder = self.folder / "report"
        try:
            write_report(folder, clean(result, self.log.redact))
            return (folder / "index.html").read_bytes()
        except Exception as error:  # the reason of the failure must not be lost to its report
            self.log.emit("warning", message=f"the report could not be written: {error!r}")
            return b""

    def tidy(self) -> None:
        """Remove the checkpoints of a run that is done, here and at every destination."""
        shutil.rmtree(self.folder / FOLDER, ignore_errors=True)
        for destination in self.destinations:
            try:
                destination.tidy()
            except JobError as error:
                message = f"{destination.uri}: checkpoints are left there: {error.message}"
                self.log.emit("warning", message=message)

    def release(self) -> None:
        """Give up every claim."""
        for destination in self.destinations:
            destination.release()

    def _finished_at(self, destination: Destination) -> str | None:
        receipt = finished_receipt(destination, self.spec.spec_hash)
        if receipt is None:
            return None
        if wrong := misfits(destination, receipt):
            self._put_back(destination, wrong)
        return f"{destination.uri}/receipt.json"

    def _put_back(self, destination: Destination, wrong: list[FileRecord]) -> None:
        """Send these files of a finished run again, or none of them if one is lost."""
        what = f"{destination.uri}: {len(wrong)} of the files that its receipt lists are {_GONE}"
        lost = [file.path for file in wrong if not holds(self.folder, file)]
        if lost:
            raise DestinationTaken(
                f"{what}, and {self.folder} does not hold them as they were. Remove "
                f"{destination.uri}/receipt.json to make the run anew, or choose another JOB_NAME.",
                problems=lost[:20],
            )
        names = ", ".join(file.path for file in wrong[:5])
        self.log.emit("warning", message=f"{what}; they are sent again: {names}")
        self.log.enter("publish", destination.uri)
        for file in wrong:
            destination.restore(file, self.folder / file.path, self.log.progress)

    def _parts(self) -> list[Part]:
        """What the spec wants published and the run folder holds complete, in the spec's order."""
        names: dict[str, Part] = {"lora": "adapter", "merged_16bit": "merged"}
        return [names[s] for s in self.spec.save if names[s] in self.record.artifacts]

    def _result(self) -> dict[str, Any]:
        """What the run came to, without secrets: a prompt may hold one."""
        result: dict[str, Any] = clean(self.record.result("done"), self.log.redact)
        return result

    def _write_report(self) -> None:
        """Cards and report; from here on no file changes any more."""
        self.log.enter("publish", "writing cards and report")
        if len(self._parts()) < len(self.spec.save):
            raise InternalError(
                f"The trainer ended well, and of {', '.join(self.spec.save)} it only left "
                f"{', '.join(self._parts()) or 'nothing'}; see trainer.log."
            )
        result = self._result()
        for part in self._parts():
            write_card(self.folder / part / CARD, result, part)
        hashed: Hashed = {part: hash_folder(self.folder / part) for part in self._parts()}
        result["files"] = listed(hashed)
        shutil.rmtree(self.folder / "report", ignore_errors=True)  # of a start that failed
        write_report(self.folder / "report", result)
        hashed["report"] = hash_folder(self.folder / "report")
        files = [FileRecord(**file) for file in listed(hashed)]
        self.stages.finish("reported", self.record, files)

    def _publish_to(self, destination: Destination, hashed: Hashed, facts: dict[str, Any]) -> str:
        """Publish to one destination unless this run is finished there; the receipt's URI."""
        if uri := self._finished_at(destination):
            return uri
        self.log.enter("publish", destination.uri)
        for part, records in hashed.items():
            destination.publish(part, self.folder / part, records, self.log.progress)
        destination.publish_receipt(self._receipt(hashed, facts))
        return f"{destination.uri}/receipt.json"

    def _receipt(self, hashed: Hashed, facts: dict[str, Any]) -> dict[str, Any]:
        kept = {k: v for k, v in facts.items() if k not in NOT_IN_RECEIPT}
        kept["training"] = {
            k: v for k, v in facts["training"].items() if k not in ("history", "evals")
        }
        kept["finished_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        return build_receipt(
            run=self.spec.run_name,
            spec_hash=self.spec.spec_hash,
            spec=facts["spec"],
            files=[FileRecord(**file) for file in listed(hashed)],
            facts=kept,
        )

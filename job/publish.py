"""The last phases: cards and report, every part to every destination, the receipt last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from job.errors import DestinationTaken, JobError, Stopped
from job.events import EventLog
from job.hashing import hash_folder
from job.receipt import build_receipt
from job.record import Record
from job.report import write_card, write_report
from job.spec import JobSpec
from job.store import Claim, Destination, Part


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

    def finished(self) -> list[str]:
        """The receipts, if every destination has one of this very spec; else nothing.

        Raises:
            DestinationTaken: a destination holds another spec's run under this name.
        """
        found = [self._finished_at(destination) for destination in self.destinations]
        return [uri for uri in found if uri] if all(found) else []

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
        result = self.record.result("done")
        write_report(self.folder / "report", result)
        self._write_cards(result)
        receipts, failures = [], []
        for destination in self.destinations:
            try:
                receipts.append(self._publish_to(destination, result | facts))
            except Stopped:
                raise
            except JobError as error:
                self.log.emit("warning", message=f"{destination.uri}: {error.message}")
                failures.append(error)
        if failures:
            self.log.emit("warning", message=f"all files are kept in {self.folder}")
            raise failures[0]
        return receipts

    def publish_failure(self, failure: dict[str, Any], result: dict[str, Any]) -> None:
        """`failure.json` to every destination; with it the adapter, if only its merge went wrong.

        A destination that refuses costs a warning: the failure itself is what will be reported.
        """
        keep_adapter = failure["phase"] in ("merge", "verify") and "adapter" in self._parts()
        keep_adapter = keep_adapter and failure["code"] != Stopped.name
        write_report(self.folder / "report", result)
        for destination in self.destinations:
            try:
                if keep_adapter:
                    self._send(destination, "adapter")
                destination.publish_failure(failure)
            except JobError as error:
                message = f"{destination.uri}: the failure was not written there: {error.message}"
                self.log.emit("warning", message=message)

    def release(self) -> None:
        """Give up every claim."""
        for destination in self.destinations:
            destination.release()

    def _finished_at(self, destination: Destination) -> str | None:
        receipt = destination.read_receipt()
        if receipt is None:
            return None
        theirs, ours = receipt["spec_hash"], self.spec.spec_hash
        if theirs != ours:
            raise DestinationTaken(
                f"{destination.uri} holds the finished run of another spec ({theirs[:12]}, this "
                f"one is {ours[:12]}). Choose another JOB_NAME or JOB_OUTPUT."
            )
        return f"{destination.uri}/receipt.json"

    def _parts(self) -> list[Part]:
        """What the spec wants published and the run folder holds complete, in the spec's order."""
        names: dict[str, Part] = {"lora": "adapter", "merged_16bit": "merged"}
        return [names[s] for s in self.spec.save if names[s] in self.record.artifacts]

    def _write_cards(self, result: dict[str, Any]) -> None:
        for part in self._parts():
            write_card(self.folder / part / "README.md", result, part)

    def _publish_to(self, destination: Destination, facts: dict[str, Any]) -> str:
        """Publish to one destination unless this run is finished there; the receipt's URI."""
        if uri := self._finished_at(destination):
            return uri
        self.log.enter("publish", destination.uri)
        for part in (*self._parts(), "report"):
            self._send(destination, part)
        destination.publish_receipt(self._receipt(facts))
        return f"{destination.uri}/receipt.json"

    def _send(self, destination: Destination, part: Part) -> None:
        folder = self.folder / part
        destination.publish(part, folder, hash_folder(folder), self.log.progress)

    def _receipt(self, facts: dict[str, Any]) -> dict[str, Any]:
        files = [f for part in (*self._parts(), "report")
                 for f in hash_folder(self.folder / part, f"{part}/")]  # fmt: skip
        kept = {k: v for k, v in facts.items() if k not in ("run", "spec", "samples", "audit")}
        kept["training"] = {k: v for k, v in facts["training"].items() if k != "history"}
        kept["finished_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        return build_receipt(
            run=self.spec.run_name,
            spec_hash=self.spec.spec_hash,
            spec=self.spec.public(),
            files=files,
            facts=kept,
        )

"""Where a run is published: a folder, an S3 bucket or the Hugging Face Hub behind one protocol.

The order of a run: `check` before anything is paid for, `acquire` before anything is written,
`publish` each part, `publish_receipt` last and once, `release` in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from job.errors import DestinationTaken
from job.hashing import FileRecord
from job.receipt import another_run
from job.store.claim import Claim
from job.store.retry import Emit, Policy, to_logging

if TYPE_CHECKING:
    from job.checkpoints import Checkpoint
    from job.credentials import Credentials
    from job.spec import DestinationRef
    from job.store.keys import Store

__all__ = [
    "Claim",
    "Destination",
    "Part",
    "Progress",
    "finished_receipt",
    "is_finished",
    "misfits",
    "open_destination",
    "open_store",
]

Part = Literal["adapter", "merged", "report"]
Progress = Callable[[str, int, int], None]
"""Called with what is being sent, bytes done, bytes in all."""

Receipt = dict[str, Any]


class Destination(Protocol):
    """One place where a run is published."""

    uri: str  # of the run: "s3://bucket/prefix/run-abc", "hf://org/name", "file:///folder/run-abc"

    def check(self) -> None:
        """Write, read and delete for real, leaving nothing behind (on the Hub: the repositories).

        Raises:
            AccessRefused, NotFound, Unavailable: this destination would fail at the end.
        """

    def read_receipt(self) -> Receipt | None:
        """The receipt of a finished run, None when there is none."""

    def acquire(self, claim: Claim) -> None:
        """Become the only run that publishes here, or learn that this run is finished already.

        May wait `claim.lease_seconds` for a holder that may be dead. Returns also when a receipt
        of the same spec is there: read the receipt afterwards.

        Raises:
            DestinationTaken: another spec's run is here, or a living process works on this one.
        """

    def publish(
        self, part: Part, folder: Path, files: Sequence[FileRecord], progress: Progress
    ) -> None:
        """Send one part and verify every file at the destination; what is there already stays.

        Args:
            folder: holds the part's files.
            files: of this part, with paths relative to `folder`.

        Raises:
            UploadFailed, AccessRefused, OutOfResources, DestinationTaken (the claim was lost).
        """

    def publish_receipt(self, receipt: Receipt) -> None:
        """Write the receipt, which ends the run here.

        Args:
            receipt: of `job.receipt.build_receipt`; its files are named `<part>/<path>`.

        Raises:
            DestinationTaken: there is a receipt already, or the claim was lost.
        """

    def read_failure(self) -> dict[str, Any] | None:
        """The `failure.json` of the last start, None when there is none that can be read."""

    def publish_failure(self, failure: Mapping[str, Any]) -> bool:
        """Write `failure.json`, unless a receipt or another process's claim is there.

        Returns:
            Whether it is there.
        """

    def publish_page(self, page: bytes) -> None:
        """Write the report's page to where a finished run has it, after `failure.json`; tried once.

        Nothing is done where a receipt or another process's claim has come meanwhile, and on the
        Hub, where it would be one more commit.
        """

    def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Copy a checkpoint here, whole or not at all for a reader; older ones are removed.

        Raises:
            as publish.
        """

    def checkpoints(self) -> list[str]:
        """The names of the complete checkpoints here, oldest first."""

    def get_checkpoint(self, name: str, into: Path) -> None:
        """Download one into an empty folder; its content is still to be verified."""

    def drop_checkpoints(self) -> None:
        """Remove all of them."""

    def read_log(self, name: str) -> bytes | None:
        """A file of `put_log`, None when there is none; tried once."""

    def put_log(self, files: Mapping[str, bytes]) -> None:
        """Replace `events.jsonl` and `status.json`, tried once; no receipt lists them.

        Nothing is done where no claim is held: before `acquire`, where the run is finished, and on
        the Hub, where each time would be a commit.

        Raises:
            DestinationTaken: the claim was lost. AccessRefused, Unavailable, UploadFailed.
        """

    def read_starts(self) -> bytes | None:
        """What `write_starts` keeps here, None when there is nothing."""

    def write_starts(self, content: bytes | None) -> None:
        """Keep a few bytes about the run's starts, or none any more; needs no claim.

        Raises:
            AccessRefused, Unavailable, UploadFailed: it was not done.
        """

    def tidy(self) -> None:
        """Once the receipt is there: remove checkpoints, and what killed processes have left."""

    def release(self) -> None:
        """Give the claim back and end its heartbeat. Never raises a JobError."""

    def sizes(self, receipt: Receipt) -> dict[str, int]:
        """What is stored of the listed files, in bytes, by the names that the receipt gives them.

        Costs a listing (on the Hub one for each part); there may be other names in it, too.
        """

    def restore(self, file: FileRecord, path: Path, progress: Progress) -> None:
        """Put back a listed file that is gone or cut off, and verify it there.

        Needs no claim: the receipt has settled what its bytes are.

        Args:
            file: as the receipt lists it.
            path: a copy with just that content.

        Raises:
            DestinationTaken: nothing can be put back there (a commit of the Hub). As publish.
        """

    def verify(self, receipt: Receipt) -> list[str]:
        """Read every listed file back and hash it; the problems found, none when all is well."""


def finished_receipt(destination: Destination, spec_hash: str) -> Receipt | None:
    """The receipt of the run with this spec, None when it is not finished there.

    Raises:
        DestinationTaken: the receipt is of another spec's run.
    """
    receipt = destination.read_receipt()
    if receipt is not None and receipt["spec_hash"] != spec_hash:
        raise DestinationTaken(another_run(destination.uri, receipt["spec_hash"], spec_hash))
    return receipt


def misfits(destination: Destination, receipt: Receipt) -> list[FileRecord]:
    """The listed files that are missing there, or of another size; costs a listing."""
    there = destination.sizes(receipt)
    listed = [FileRecord(f["path"], f["size"], f["sha256"]) for f in receipt["files"]]
    return [file for file in listed if there.get(file.path) != file.size]


def is_finished(destination: Destination, spec_hash: str) -> bool:
    """Whether there is a receipt of this spec's run; raises as `finished_receipt`."""
    return finished_receipt(destination, spec_hash) is not None


def open_store(
    scheme: Literal["s3", "file"],
    location: str,
    credentials: Credentials,
    emit: Emit = to_logging,
) -> Store:
    """The key-value store at `bucket/prefix` or `/folder`; `emit` hears of its retries."""
    if scheme == "file":
        from job.store.file import FileStore

        return FileStore(Path(location))
    from job.store.s3 import S3Store

    policy, again = Policy(emit=emit), credentials.again
    return S3Store(location, credentials.aws, policy, reread=lambda: again().aws)


def open_destination(
    ref: DestinationRef,
    run_name: str,
    saves: tuple[str, ...],
    credentials: Credentials,
    hub_private: bool,
    emit: Emit = to_logging,
) -> Destination:
    """The destination of one run. Nothing is asked of it yet.

    Args:
        ref: where all runs go.
        run_name: one safe path component; on the Hub, `ref` itself names the run's repository.
        saves: what the run publishes, which decides the layout on the Hub.
        emit: hears of each retry (`retry`) and each file that is there (`uploaded`).
    """
    if ref.scheme == "hf":
        from job.store.hub import HubDestination

        return HubDestination(
            ref.location,
            run_name,
            saves,
            credentials,
            private=hub_private,
            emit=emit,
        )
    from job.store.objects import ObjectDestination

    location = f"{ref.location.rstrip('/')}/{run_name}"
    return ObjectDestination(open_store(ref.scheme, location, credentials, emit), emit)

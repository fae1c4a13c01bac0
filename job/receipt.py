"""The receipt: the one file that says a run is done, and the check of what it says."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from job.errors import DestinationTaken, NotFound, UsageError
from job.hashing import FileRecord

if TYPE_CHECKING:
    from job.credentials import Credentials
    from job.store import Destination

VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


def build_receipt(
    *,
    run: str,
    spec_hash: str,
    spec: Mapping[str, Any],
    files: Iterable[FileRecord],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """A receipt, ready to be published.

    Args:
        spec: the public spec, without secrets.
        files: of all parts, named `<part>/<path>`.
        facts: whatever else is worth keeping: model, datasets, versions, training, timings.
    """
    listed = [dataclasses.asdict(record) for record in files]
    head = {"version": VERSION, "run": run, "spec_hash": spec_hash, "spec": dict(spec)}
    return {**head, "files": listed, **facts}


def parse_receipt(content: bytes, where: str) -> dict[str, Any]:
    """A stored receipt; its files are inside the run's folder.

    Raises:
        DestinationTaken: the content is not a receipt that this program writes.
    """
    try:
        receipt = json.loads(content)
        if not _is_receipt(receipt):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise DestinationTaken(f"{where} is not a receipt of this program") from None
    result: dict[str, Any] = receipt
    return result


def parse_failure(content: bytes) -> dict[str, Any] | None:
    """A stored `failure.json`; None when it is something else."""
    try:
        failure = json.loads(content)
    except ValueError:
        return None
    return failure if isinstance(failure, dict) and "exit_code" in failure else None


def _is_receipt(receipt: Any) -> bool:
    return (
        receipt["version"] == VERSION
        and isinstance(receipt["run"], str)
        and _SHA256.fullmatch(receipt["spec_hash"]) is not None
        and isinstance(receipt["spec"], dict)
        and all(_is_file(file) for file in receipt["files"])
    )


def another_run(uri: str, there: str, ours: str) -> str:
    """The message that names both spec hashes."""
    return (
        f"{uri} holds a run of another spec ({there}; this one is {ours}):"
        " choose another JOB_NAME or JOB_OUTPUT"
    )


def is_inside(path: str) -> bool:
    """Whether a relative POSIX path names something inside the folder it is relative to."""
    parts = PurePosixPath(path).parts
    hostile = path.startswith("/") or ".." in parts or "\\" in path or "\0" in path
    return bool(parts) and not hostile


def _is_file(file: Any) -> bool:
    return (
        is_inside(file["path"])
        and isinstance(file["size"], int)
        and _SHA256.fullmatch(file["sha256"]) is not None
    )


def verify_uri(uri: str, credentials: Credentials) -> tuple[dict[str, Any], list[str]]:
    """Read the receipt of a run and every file it lists.

    Args:
        uri: `s3://`, `file://`, `hf://` or an absolute path: of the run's folder, of its
            `receipt.json`, or of the folder above when only one finished run is in it.

    Returns:
        The receipt and the problems found, none when every file is there byte for byte.

    Raises:
        NotFound: no receipt there. UsageError: several, or a URI of another kind.
        AccessRefused, Unavailable: the store could not be read.
    """
    destination = _open(uri.removesuffix("/receipt.json").rstrip("/"), credentials)
    receipt = destination.read_receipt()
    if receipt is None:
        raise NotFound(f"no receipt at {destination.uri}: no run has finished there")
    return receipt, destination.verify(receipt)


def _open(uri: str, credentials: Credentials) -> Destination:
    from job.store import open_store
    from job.store.objects import ObjectDestination

    scheme, separator, location = uri.partition("://")
    if not separator and uri.startswith("/"):
        scheme, location = "file", uri
    if scheme == "hf":
        from job.store.hub import HubDestination

        return HubDestination(location, "", (), credentials, private=True)
    if scheme not in ("s3", "file") or not location.strip("/"):
        raise UsageError(f"not a destination: {uri!r}; allowed: s3://…, file:///…, hf://org/name")
    store = open_store("s3" if scheme == "s3" else "file", location, credentials)
    if store.get("receipt.json") is not None:
        return ObjectDestination(store)
    runs = [key for key in store.list() if re.fullmatch(r"[^/]+/receipt\.json", key)]
    if len(runs) > 1:
        names = [key.split("/")[0] for key in runs]
        raise UsageError(f"{store.uri} holds several runs: name one", problems=names[:20])
    inside = f"{location}/{runs[0].split('/')[0]}" if runs else location
    return ObjectDestination(open_store("s3" if scheme == "s3" else "file", inside, credentials))

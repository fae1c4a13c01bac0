"""The run's folder under the work dir: made, held by one process, and what it remembers."""

from __future__ import annotations

import contextlib
import fcntl
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from job.errors import InUse, OutOfResources
from job.spec import JobSpec


def make_run_folder(spec: JobSpec) -> Path:
    """`<work_dir>/<run name>`, made if missing: events, log, checkpoints and artefacts of the run.

    Raises:
        OutOfResources: the work dir cannot be written.
    """
    folder = spec.work_dir / spec.run_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lock").touch()
    except OSError as error:
        raise OutOfResources(
            f"JOB_WORK_DIR: {spec.work_dir} cannot be written ({error.strerror}). Mount a folder "
            "there that belongs to the container's user, or name another one."
        ) from None
    return folder


@contextlib.contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """Hold the run folder for this process; the kernel lets go when it ends, however it ends.

    Raises:
        InUse: another process on this machine is at work there.
    """
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"Another process is working on this run in {folder}."
            raise InUse(message) from None
        yield


def owner(folder: Path) -> str:
    """The random name under which this run claims its destinations; survives a restart."""
    return _remembered(folder / "owner", secrets.token_hex(16))


def template_date(spec: JobSpec, folder: Path) -> str:
    """The date for the chat template: the spec's, or that of this run's first start (UTC)."""
    if spec.template_date:
        return str(spec.template_date)
    return _remembered(folder / "template-date", datetime.now(UTC).date().isoformat())


def take_over_date(folder: Path, date: str) -> None:
    """Go on with the template's date of a run that began elsewhere."""
    (folder / "template-date").write_text(date, encoding="utf-8")


def _remembered(path: Path, value: str) -> str:
    """The text kept in `path`, which becomes `value` if there is none yet."""
    if not path.exists():
        path.write_text(value, encoding="utf-8")
    return path.read_text(encoding="utf-8")

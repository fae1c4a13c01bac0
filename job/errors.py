"""One error per exit code. Whoever finds a problem raises one of these; the supervisor reports it.

The numbers are sysexits(3) where one fits; 8x are our own. The table in the README is checked
against this file.
"""

from __future__ import annotations


class JobError(Exception):
    """A failure that was foreseen, told in a sentence that names the thing and the way out.

    Args:
        message: one sentence or a few lines for a person; never holds a secret or row content.
        problems: the single findings, when there is more than one (spec keys, bad rows).
    """

    exit_code = 70
    name = "bug"
    retryable = False

    def __init__(self, message: str, *, problems: list[str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.problems = problems or []

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  - {p}" for p in self.problems)])


class UsageError(JobError):
    """Wrong command line."""

    exit_code, name = 64, "usage"


class DataError(JobError):
    """A dataset that cannot be trained on as it is."""

    exit_code, name = 65, "data"


class NotFound(JobError):
    """A model, dataset, revision or bucket that does not exist."""

    exit_code, name = 66, "not-found"


class Unavailable(JobError):
    """No usable GPU, driver, memory or clock, or a service that is down: another host may do."""

    exit_code, name, retryable = 69, "unavailable", True


class InternalError(JobError):
    """A bug of ours or of a library, e.g. a merge that fails its verification."""

    exit_code, name = 70, "bug"


class OutOfResources(JobError):
    """Disk full, or the trainer was killed from outside (as the kernel does for memory)."""

    exit_code, name, retryable = 71, "resources", True


class DestinationTaken(JobError):
    """The destination holds another run, or a finished one with files lost, or is in use."""

    exit_code, name = 73, "destination-taken"


class InUse(DestinationTaken):
    """Another process is working on this run: once it has ended, the same spec may be started."""

    retryable = True


class UploadFailed(JobError):
    """A destination did not take or did not keep what was sent; all files are kept locally."""

    exit_code, name, retryable = 74, "upload", True


class Stopped(JobError):
    """Stopped by a signal, or by the end of its budget."""

    exit_code, name, retryable = 75, "stopped", True


class AccessRefused(JobError):
    """401, 403, gated repository, wrong or expired credentials."""

    exit_code, name = 77, "access"


class SpecError(JobError):
    """The job spec is invalid; every problem is listed."""

    exit_code, name = 78, "spec"


class CudaOutOfMemory(JobError):
    """The GPU's memory does not hold this configuration."""

    exit_code, name = 81, "gpu-memory"


class Diverged(JobError):
    """The loss or the gradient is not finite."""

    exit_code, name = 82, "diverged"


ERRORS: tuple[type[JobError], ...] = (
    UsageError,
    DataError,
    NotFound,
    Unavailable,
    InternalError,
    OutOfResources,
    DestinationTaken,
    UploadFailed,
    Stopped,
    AccessRefused,
    SpecError,
    CudaOutOfMemory,
    Diverged,
)
BY_CODE = {error.exit_code: error for error in ERRORS}

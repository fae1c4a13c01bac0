"""What boto3 raises when it reads, in the words of job.errors."""

from __future__ import annotations

from botocore.exceptions import (
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)

from job.errors import AccessRefused, NotFound, Unavailable
from job.sources.transfer import Incomplete

NETWORK = (ConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError)
GONE = ("NoSuchBucket", "NoSuchKey", "404", "NotFound")
# Status codes tell most; these have a 4xx status but pass (the first two), or a 400 and do not.
BUSY = ("RequestTimeout", "SlowDown")
REFUSED = ("ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "RequestTimeTooSkewed")


def code_of(error: ClientError) -> str:
    """The error's code, e.g. `NoSuchBucket`; for HEAD requests, which have none, the status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, ClientError):
        return _status(error) >= 500 or _status(error) == 429 or code_of(error) in BUSY
    return isinstance(error, NETWORK)


def told(error: BaseException, where: str, bucket: str) -> BaseException:
    """The error to raise instead: a JobError for what was foreseen, else `error` itself."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return AccessRefused(
            f"{where}: no credentials for S3. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    if isinstance(error, Incomplete):
        return Unavailable(f"{where}: {error}. Run the job again.")
    if not isinstance(error, ClientError):
        seen = type(error).__name__
        message = f"{where}: S3 cannot be reached ({seen}). Check AWS_ENDPOINT_URL_S3; try later."
        return Unavailable(message) if is_transient(error) else error
    code, status = code_of(error), _status(error)
    if code == "NoSuchBucket":
        return NotFound(f"{where}: there is no bucket {bucket!r}; correct it.")
    if code in GONE:
        return NotFound(f"{where}: an object is not there ({code}); correct the path.")
    if status in (401, 403) or code in REFUSED:
        return AccessRefused(
            f"{where}: S3 refused ({code}). The AWS_* credentials are wrong or expired, or may not "
            f"list and read this prefix of {bucket!r}."
        )
    if status == 412:
        return Unavailable(f"{where}: an object was replaced while it was read. Run the job again.")
    if is_transient(error):
        return Unavailable(f"{where}: S3 answers {status} ({code}). Try again later.")
    return error


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))

"""The S3 client: timeouts, addressing, and what each of its errors means to a person."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    TokenRetrievalError,
)
from urllib3.exceptions import HTTPError

from job.errors import AccessRefused, JobError, NotFound, Unavailable, UploadFailed
from job.store.retry import Damaged

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_REFUSED = {
    "AccessDenied": "allow this key s3:PutObject, GetObject, DeleteObject and ListBucket",
    "InvalidAccessKeyId": "the store does not know this AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID",
    "ExpiredToken": "AWS_SESSION_TOKEN has expired: give new credentials",
    "InvalidToken": "AWS_SESSION_TOKEN is not valid here",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION",
    "403": "the key may not do this, or is not known here",
}
_ABSENT = ("NoSuchKey", "404", "NotFound")
_TRANSIENT = ("SlowDown", "RequestTimeout", "Throttling", "OperationAborted")
_UNKNOWN_REQUEST = 501  # the one of the 5xx that says "never"
# The store's word for a body that is not the one whose checksum came with it.
DAMAGED = ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch")
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired")
_CONNECTION = (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    HTTPError,  # urllib3's, when a body breaks off while it is read
    IncompleteReadError,
    ReadTimeoutError,
)
_NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
ERRORS = (BotoCoreError, ClientError, HTTPError, Damaged)


def s3_client(aws: Mapping[str, str], read_timeout: float = 60) -> S3Client:
    """A client with timeouts and without retries of its own, which nobody would hear of.

    Args:
        aws: AWS_* variables. Without keys boto3 looks for them itself, e.g. an instance's role.
            With an endpoint of one's own, buckets are part of the path, and the checksums that
            many such stores do not know are left out (boto3 issue 4392).
        read_timeout: seconds of silence after which a request is given up.
    """
    endpoint = aws.get("AWS_ENDPOINT_URL_S3") or aws.get("AWS_ENDPOINT_URL")
    region = aws.get("AWS_REGION") or aws.get("AWS_DEFAULT_REGION")
    config = Config(
        connect_timeout=10,
        read_timeout=read_timeout,
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=16,
    )
    if endpoint:
        config = config.merge(
            Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            )
        )
    session = boto3.session.Session(
        aws_access_key_id=aws.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=aws.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=aws.get("AWS_SESSION_TOKEN"),
        region_name=region or ("us-east-1" if endpoint else None),
    )
    return session.client("s3", endpoint_url=endpoint, config=config)


def code_of(error: BaseException) -> str:
    """`NoSuchKey`, `AccessDenied`, … or the status of a HEAD, which has no body; else empty."""
    if not isinstance(error, ClientError):
        return ""
    return error.response.get("Error", {}).get("Code", "")


def is_absent(error: ClientError) -> bool:
    """Whether the store says that there is no such object."""
    return code_of(error) in _ABSENT


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, ClientError):
        status = _status_of(error)
        if status >= 500:
            return status != _UNKNOWN_REQUEST
        return status == 429 or code_of(error) in _TRANSIENT
    return isinstance(error, (*_CONNECTION, Damaged))


def why(error: BaseException) -> str:
    """What went wrong, in a word or two that hold no foreign text."""
    if isinstance(error, Damaged):
        return f"damaged on the way, {error}"
    code = code_of(error)
    return f"{code}, HTTP {_status_of(error)}" if code else type(error).__name__


def _status_of(error: BaseException) -> int:
    found = error.response.get("ResponseMetadata", {}) if isinstance(error, ClientError) else {}
    return int(found.get("HTTPStatusCode", 0))


def translated(error: BaseException, uri: str, writing: bool) -> JobError:
    """The JobError for what is left after all retries.

    Args:
        uri: what was asked for, for the message.
        writing: whether something was being sent: then an outage is an UploadFailed.
    """
    code = code_of(error)
    if isinstance(error, _NO_CREDENTIALS):
        return AccessRefused(f"{uri}: no credentials; set AWS_ACCESS_KEY_ID and its secret")
    if code in _REFUSED:
        return AccessRefused(f"{uri}: {_REFUSED[code]} ({code})")
    if code in ("NoSuchBucket", "InvalidBucketName", *_ABSENT):
        return NotFound(f"{uri}: the bucket does not exist ({code}); create it first")
    if code == "RequestTimeTooSkewed":
        wrong = f"this machine's clock is {_skew(error)} ({code})"
        return Unavailable(f"{uri}: {wrong}; set it and try again")
    if isinstance(error, Damaged):
        return UploadFailed(f"{uri}: what the store has is not what was sent ({error})")
    what = code or type(error).__name__
    if writing:
        return UploadFailed(f"{uri}: the store did not take it ({what})")
    return Unavailable(f"{uri}: the store did not answer ({what})")


def _skew(error: BaseException) -> str:
    """How far this clock is from the store's, by the date of its answer."""
    answer = error.response if isinstance(error, ClientError) else {}
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not date:
        return "wrong"
    theirs = parsedate_to_datetime(date).replace(tzinfo=UTC)  # HTTP dates are in UTC, all of them
    seconds = round((datetime.now(UTC) - theirs).total_seconds())
    minutes, direction = round(abs(seconds) / 60), "ahead of" if seconds > 0 else "behind"
    amount = f"{minutes // 60} h {minutes % 60} min" if minutes else f"{abs(seconds)} s"
    return f"{amount} {direction} the store's"

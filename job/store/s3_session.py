"""One client for all that is asked of a bucket: retries, and credentials that are read anew."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from botocore.exceptions import ClientError

from job.errors import SpecError
from job.store.retry import Budget, Damaged, Policy, retrying
from job.store.s3_client import (
    DAMAGED,
    ERRORS,
    EXPIRED,
    code_of,
    is_transient,
    s3_client,
    translated,
    why,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")
Reread = Callable[[], Mapping[str, str]]
_SLOW_SECONDS = 600  # a store may put an object's parts together in silence for minutes
_SAME_ROLE_SECONDS = 60


class Session:
    """A client, and what is done when it fails.

    Args:
        aws: AWS_* variables, see `s3_client`.
        reread: gives them as they are now: a file that one was read from may have been renewed.
    """

    def __init__(self, aws: Mapping[str, str], policy: Policy, reread: Reread | None) -> None:
        self.policy = policy
        self._shared = _Shared(aws, reread)

    def within(self, seconds: float) -> Session:
        """The same client with another patience."""
        session = copy.copy(self)
        session.policy = self.policy.within(seconds)
        return session

    def do(
        self,
        what: str,
        operation: Callable[[S3Client], T],
        budget: Budget | None = None,
        *,
        writing: bool = True,
        slow: bool = False,
    ) -> T:
        """Run the operation, again while the store is away.

        Args:
            what: its URI, for messages.
            budget: shared by all that is done for one object; else one of its own.
            writing: whether something is sent: then an outage is an UploadFailed.
            slow: the store may be silent for minutes.

        Raises:
            JobError: see `translated`.
        """
        budget = budget or self.policy.budget()

        def attempt() -> T:
            while True:
                client = self._shared.client(slow)
                try:
                    result = operation(client)
                except ClientError as error:
                    if code_of(error) in DAMAGED:
                        raise Damaged(code_of(error)) from error
                    if code_of(error) in EXPIRED and self._shared.renew(client):
                        message = f"{what}: the credentials had expired and were read again"
                        self.policy.emit("log", message=message)
                        continue
                    raise
                budget.refill()
                return result

        try:
            return retrying(what, budget, self.policy, is_transient, why)(attempt)
        except ERRORS as error:
            raise translated(error, what, writing) from error


class _Shared:
    """The clients of one set of credentials; safe to use from any thread."""

    def __init__(self, aws: Mapping[str, str], reread: Reread | None) -> None:
        self._aws, self._reread = aws, reread
        self._lock = threading.Lock()
        self._client, self._slow = s3_client(aws), s3_client(aws, _SLOW_SECONDS)
        self._made = float("-inf")

    def client(self, slow: bool) -> S3Client:
        return self._slow if slow else self._client

    def renew(self, used: S3Client) -> bool:
        """Whether there are other credentials than the ones that this client was refused with."""
        with self._lock:
            if used not in (self._client, self._slow):
                return True  # another thread was faster
            try:
                fresh = self._reread() if self._reread else self._aws
            except SpecError:  # the file is gone or empty
                return False
            # Without keys of ours boto3 asks again where it got them, e.g. the instance's role.
            is_role = "AWS_ACCESS_KEY_ID" not in fresh
            if fresh == self._aws and not (is_role and self._age() > _SAME_ROLE_SECONDS):
                return False
            self._aws, self._made = fresh, time.monotonic()
            self._client, self._slow = s3_client(fresh), s3_client(fresh, _SLOW_SECONDS)
            return True

    def _age(self) -> float:
        return time.monotonic() - self._made

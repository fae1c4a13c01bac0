"""The Hub client: timeouts, and what each of its errors means to a person."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx
from huggingface_hub import set_client_factory
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils._http import default_client_factory
from huggingface_hub.utils.tqdm import disable_progress_bars

from job.errors import (
    AccessRefused,
    DestinationTaken,
    JobError,
    NotFound,
    Unavailable,
    UploadFailed,
)
from job.store.retry import Policy, retrying

T = TypeVar("T")
TIMEOUT = httpx.Timeout(120, connect=10)  # the library's own is none: a commit may never answer
_NETWORK = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
# What uploads raise: RuntimeError wraps the LFS client's errors and is how hf_xet reports its own;
# JSONDecodeError comes from a gateway's error page.
_TRANSIENT = (*_NETWORK, ConnectionError, TimeoutError, RuntimeError, json.JSONDecodeError)
_ERRORS = (*_TRANSIENT, HfHubHTTPError, PermissionError)  # the last is hf_xet's for a bad token


@dataclass(frozen=True)
class Asking(Policy):
    """How the Hub is asked.

    Attributes:
        renew: reads the token anew; whether it is another one now.
    """

    renew: Callable[[], bool] = lambda: False


@functools.cache
def prepare_client() -> None:
    """Once per process: requests that end, and no progress bars of the library's."""

    def factory() -> httpx.Client:
        client = default_client_factory()
        client.timeout = TIMEOUT
        return client

    set_client_factory(factory)
    disable_progress_bars()


def status_of(error: BaseException | None) -> int:
    """The HTTP status behind an error, 0 when there is none."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else 0


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    cause = _cause(error)
    if isinstance(cause, HfHubHTTPError):
        return status_of(cause) >= 500 or status_of(cause) in (408, 429)
    return isinstance(cause, _TRANSIENT)


def why(error: BaseException) -> str:
    """What went wrong, in a word or two that hold no foreign text."""
    status = status_of(_cause(error))
    return f"HTTP {status}" if status else type(_cause(error)).__name__


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error


def ask(what: str, asking: Asking, question: Callable[[], T], *, writing: bool = False) -> T:
    """Ask the Hub, again while it is away.

    Args:
        what: `hf://org/name`, for messages.
        writing: whether something is being sent: then an outage is an UploadFailed.

    Raises:
        AccessRefused, NotFound, DestinationTaken, UploadFailed, Unavailable.
    """

    def attempt() -> T:
        try:
            return question()
        except HfHubHTTPError as error:
            if status_of(error) != 401 or not asking.renew():
                raise
            asking.emit("log", message=f"{what}: HF_TOKEN was refused and read again")
            return question()

    try:
        return retrying(what, asking.budget(), asking, is_transient, why)(attempt)
    except _ERRORS as error:
        raise translated(error, what, writing) from error


def translated(error: BaseException, what: str, writing: bool) -> JobError:
    """The JobError for what is left after all retries."""
    cause = _cause(error)
    status = status_of(cause)
    if status == 404 or (status == 401 and isinstance(cause, RepositoryNotFoundError)):
        return NotFound(f"{what} is not on the Hub, or HF_TOKEN may not see it")
    if status == 401:
        return AccessRefused(f"{what}: the Hub does not accept HF_TOKEN; make a new one")
    if status == 403 or isinstance(cause, PermissionError):
        return AccessRefused(f"{what}: HF_TOKEN may not do this; it needs write access there")
    if status == 412:
        return DestinationTaken(f"{what}: somebody else has committed to it during this run")
    if writing:
        return UploadFailed(f"{what}: the Hub did not take it ({why(error)})")
    return Unavailable(f"{what}: the Hub did not answer ({why(error)})")

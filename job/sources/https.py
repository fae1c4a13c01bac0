"""One data file from an https:// address, fetched with distrust.

TLS only, public addresses only and each hop anew, connected to the address that was checked, no
proxy from the environment, a limit on bytes and on time. Messages show addresses without their
query: it may hold a signature.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx

from job.errors import AccessRefused, DataError, NotFound, Unavailable
from job.sources import SMALL, FetchedDataset, RemoteFile, ResolvedDataset, transfer
from job.sources.address import Address, IsAllowed, is_global, resolve
from job.sources.files import fetched_dataset, inside
from job.sources.splits import READ, SUFFIXES
from job.sources.transfer import Incomplete, Patience, Tally, retrying

if TYPE_CHECKING:
    from job.events import Progress
    from job.spec import Source

REDIRECTS = 5
TIMEOUT = httpx.Timeout(connect=10, read=30, write=10, pool=10)  # seconds
HEADERS = {"User-Agent": "finetune-job", "Accept": "*/*", "Accept-Encoding": "identity"}
BY_CONTENT_TYPE = {
    "application/json": ".json",
    "application/jsonl": ".jsonl",
    "application/jsonlines": ".jsonl",
    "application/x-jsonlines": ".jsonl",
    "application/x-ndjson": ".jsonl",
    "application/vnd.apache.parquet": ".parquet",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
}


@dataclass(frozen=True)
class Limits:
    """What a download may reach and cost; tests allow loopback and bring their own CA."""

    is_allowed: IsAllowed = is_global
    verify: ssl.SSLContext | bool = True
    max_bytes: int = 5 << 30
    max_seconds: float = 2 * 3600


LIMITS = Limits()
SMALL_LIMITS = Limits(max_bytes=SMALL, max_seconds=30)


Watch = Callable[[str, dict[str, Any]], None]


class Busy(Exception):
    """The server answered that it cannot now (5xx, 408, 429)."""


def resolve_dataset(source: Source, limits: Limits = LIMITS) -> ResolvedDataset:
    """As job.sources.resolve_dataset. Asks with GET: signed addresses often allow nothing else."""
    where, deadline = f"Dataset {source.uri}", time.monotonic() + limits.max_seconds

    def look() -> RemoteFile:
        with _open(source.uri, {}, limits, where, deadline) as answer:
            size = int(answer.headers.get("Content-Length", 0))
            _check_size(size, limits, where)
            return RemoteFile(_file_name(source.uri, answer, where), size, etag=_mark(answer))

    with transfer.in_words_of(lambda error: _told(error, where)):
        file = retrying(_is_transient, Patience(transfer.LOOK_PATIENCE))(look)
    revision = file.etag.replace('"', "") if file.etag else None
    return ResolvedDataset(source, (file,), revision)


def fetch_dataset(
    resolved: ResolvedDataset, into: Path, progress: Progress, limits: Limits = LIMITS
) -> FetchedDataset:
    """As job.sources.fetch_dataset; a file that changed since the look is refused."""
    source, file = resolved.source, resolved.files[0]
    where, deadline = f"Dataset {source.uri}", time.monotonic() + limits.max_seconds
    target = inside(into, file.name, where)

    @contextmanager
    def open_at(offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        is_strong = file.etag is not None and file.etag.startswith('"')
        wanted = {"Range": f"bytes={offset}-", "If-Range": str(file.etag)}
        extra = wanted if offset and is_strong else {}
        with _open(source.uri, extra, limits, where, deadline) as answer:
            if _mark(answer) != file.etag:
                raise Unavailable(f"{where} changed while it was read. Run the job again.")
            start = offset if answer.status_code == httpx.codes.PARTIAL_CONTENT else 0
            yield start, _limited(answer, start, limits, where, deadline)

    def task(tally: Tally) -> None:
        with transfer.in_words_of(lambda error: _told(error, where)):
            transfer.stream(open_at, target, None, file.size, tally, _is_transient)

    transfer.run_all([task], file.size, "dataset", progress)
    return fetched_dataset(resolved, [target])


def read_small(uri: str, where: str, limits: Limits = SMALL_LIMITS) -> bytes:
    """As job.sources.text.fetch_text."""

    def read() -> bytes:
        deadline = time.monotonic() + limits.max_seconds
        with _open(uri, {}, limits, where, deadline) as answer:
            return b"".join(_limited(answer, 0, limits, where, deadline))

    with transfer.in_words_of(lambda error: _told(error, where)):
        return retrying(_is_transient, Patience(transfer.LOOK_PATIENCE))(read)


def _mark(answer: httpx.Response) -> str | None:
    mark: str | None = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    return mark


def _limited(
    answer: httpx.Response, start: int, limits: Limits, where: str, deadline: float
) -> Iterator[bytes]:
    done = start
    # No chunk size: httpx would hold bytes back until a chunk is full.
    for chunk in answer.iter_raw():
        done += len(chunk)
        _check_size(done, limits, where)
        _check_time(deadline, limits, where)
        yield chunk


@contextmanager
def _open(
    uri: str, extra: dict[str, str], limits: Limits, where: str, deadline: float
) -> Iterator[httpx.Response]:
    """GET with redirects followed by hand; yields an answer of 200 or 206, its body unread."""
    url = httpx.URL(uri)
    with httpx.Client(
        verify=limits.verify, trust_env=False, follow_redirects=False, timeout=TIMEOUT
    ) as client:
        for _ in range(REDIRECTS + 1):
            _check_time(deadline, limits, where)
            with _cut_off(deadline) as watch:
                answer = _send(client, url, extra, watch, limits, where)
            try:
                if answer.has_redirect_location:
                    url = url.join(answer.headers["Location"])
                    continue
                _check_status(answer, where)
                yield answer
                return
            finally:
                answer.close()
    raise NotFound(f"{where} redirects more than {REDIRECTS} times; give its final address.")


@contextmanager
def _cut_off(deadline: float) -> Iterator[Watch]:
    """Ends the connection at the deadline: a timeout of httpx begins anew with every byte.

    Yields what httpx calls at each step of a request (its extension `trace`).
    """
    sockets: list[socket.socket] = []

    def watch(step: str, info: dict[str, Any]) -> None:
        if step == "connection.start_tls.complete":
            sockets.append(info["return_value"].get_extra_info("socket"))

    def cut() -> None:
        for connected in sockets:
            with suppress(OSError):  # closed already
                socket.socket.shutdown(connected, socket.SHUT_RDWR)  # wakes the thread that reads

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), cut)
    timer.start()
    try:
        yield watch
    finally:
        timer.cancel()


def _send(
    client: httpx.Client,
    url: httpx.URL,
    extra: dict[str, str],
    watch: Watch,
    limits: Limits,
    where: str,
) -> httpx.Response:
    """One request, to an address of the host that was checked just now."""
    host = url.raw_host.decode()
    if url.scheme != "https" or url.userinfo:
        raise AccessRefused(f"{where} leads to {url.scheme}://{host}; only https:// is read.")
    addresses = resolve(host, url.port or 443, limits.is_allowed, where)
    for is_last, address in zip([False] * (len(addresses) - 1) + [True], addresses, strict=True):
        try:
            request = _request(client, url, address, extra)
            request.extensions["trace"] = watch
            return client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if is_last:
                raise
    raise AssertionError("a host has at least one address")


def _request(
    client: httpx.Client, url: httpx.URL, address: Address, extra: dict[str, str]
) -> httpx.Request:
    """To `address`, while Host, TLS name and certificate check stay those of the URL."""
    headers = {**HEADERS, **extra, "Host": url.netloc.decode()}
    pinned = url.copy_with(host=str(address))
    return client.build_request(
        "GET", pinned, headers=headers, extensions={"sni_hostname": url.raw_host.decode()}
    )


def _check_status(answer: httpx.Response, where: str) -> None:
    status = answer.status_code
    if status in (401, 403, 407):
        raise AccessRefused(
            f"{where}: the server refused ({status}). Addresses with a login are not read: use "
            "s3://, hf://, or a mounted path for private data."
        )
    if status in (404, 410):
        raise NotFound(f"{where} is not there ({status}); correct the address.")
    if status >= 500 or status in (408, 429):
        raise Busy(str(status))
    if status not in (200, 206):
        raise NotFound(f"{where}: the server answered {status}, which is no file.")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise DataError(f"{where}: the server sends it compressed; give an uncompressed file.")


def _check_size(size: int, limits: Limits, where: str) -> None:
    if size > limits.max_bytes:
        raise DataError(
            f"{where} has more than {limits.max_bytes:,} bytes, the most that is read over "
            "https://: put it on S3 or the Hub."
        )


def _check_time(deadline: float, limits: Limits, where: str) -> None:
    if time.monotonic() > deadline:
        raise Unavailable(
            f"{where} took longer than {limits.max_seconds:,.0f} s. Try a nearer one."
        )


def _file_name(uri: str, answer: httpx.Response, where: str) -> str:
    """The name to keep it under, with a suffix that is read: from the path, else Content-Type."""
    name = PurePosixPath(unquote(httpx.URL(uri).path)).name
    if name.lower().endswith(SUFFIXES):
        return name
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if PurePosixPath(name).suffix in ("", ".ndjson") and kind in BY_CONTENT_TYPE:
        return f"{PurePosixPath(name).stem}{BY_CONTENT_TYPE[kind]}"
    raise DataError(
        f"{where}: what it is cannot be told from its name or its type ({kind or 'none given'}); "
        f"read are {READ}."
    )


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, httpx.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    return isinstance(error, Busy | httpx.TransportError)


def _told(error: BaseException, where: str) -> BaseException:
    if isinstance(error, httpx.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return AccessRefused(f"{where}: the server's certificate is not valid for this name.")
    if isinstance(error, httpx.InvalidURL | UnicodeError):  # idna's errors are UnicodeErrors
        return NotFound(f"{where} leads to an address that is none; correct it.")
    if isinstance(error, Busy):
        return Unavailable(f"{where}: the server answers {error}. Try again later.")
    if isinstance(error, httpx.TransportError | Incomplete):
        return Unavailable(f"{where}: the connection fails ({type(error).__name__}). Try later.")
    return error

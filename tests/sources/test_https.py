from __future__ import annotations

import hashlib
import ipaddress
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from job.errors import AccessRefused, DataError, JobError, NotFound, Unavailable
from job.sources import FetchedDataset, transfer
from job.sources.address import Address, is_global
from job.sources.https import Limits, fetch_dataset, read_small, resolve_dataset
from job.sources.text import fetch_text
from tests.sources.parts import NOBODY, Watch, source
from tests.sources.web import Web, web_server

ROWS = b'{"text": "a row"}\n' * 50_000
HOST = "data.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with web_server(tmp_path_factory.mktemp("web"), (HOST, "127.0.0.1")) as web:
        yield web


@pytest.fixture
def web(server: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """The server under the name data.example; retries end soon."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: object, **kwargs: object) -> object:
        return real("127.0.0.1" if host == HOST else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(transfer, "LOOK_PATIENCE", 1.0)
    monkeypatch.setattr(transfer, "PATIENCE", 1.0)
    server.answers.clear()
    server.asked.clear()
    return server


def near(address: Address) -> bool:
    """The server's own address, and what is allowed outside of tests."""
    return address == ipaddress.ip_address("127.0.0.1") or is_global(address)


def limits_of(web: Web, **changes: float) -> Limits:
    return Limits(is_allowed=near, verify=web.trust, **changes)


def fetch(web: Web, path: str, into: Path, query: str = "", **changes: float) -> FetchedDataset:
    limits = limits_of(web, **changes)
    resolved = resolve_dataset(source(web.url(path, HOST) + query), limits)
    return fetch_dataset(resolved, into, Watch(), limits)


def test_a_file_comes_whole_with_its_etag_and_digest(web: Web, tmp_path: Path):
    web.serve("/rows/train.jsonl", ROWS)
    fetched = fetch(web, "/rows/train.jsonl", tmp_path)
    assert fetched.files == (tmp_path / "train.jsonl",)
    assert fetched.files[0].read_bytes() == ROWS
    assert fetched.revision == "v1"
    assert fetched.size == len(ROWS)
    assert fetched.sha256 == hashlib.sha256(ROWS).hexdigest()


def test_the_connection_goes_to_the_checked_address_under_the_hosts_name(web: Web, tmp_path: Path):
    web.serve("/train.jsonl", ROWS)
    fetch(web, "/train.jsonl", tmp_path)
    assert {host for _, host, _ in web.asked} == {f"{HOST}:{web.port}"}


def test_a_certificate_for_another_name_is_refused(web: Web, tmp_path: Path):
    web.serve("/train.jsonl", ROWS)
    with pytest.raises(AccessRefused, match="certificate is not valid for this name"):
        resolve_dataset(source(web.url("/train.jsonl", "localhost")), limits_of(web))


def test_a_certificate_of_an_unknown_authority_is_refused(web: Web):
    web.serve("/train.jsonl", ROWS)
    with pytest.raises(AccessRefused, match="certificate"):
        resolve_dataset(source(web.url("/train.jsonl", HOST)), Limits(is_allowed=near))


def test_last_modified_or_nothing_is_recorded_without_an_etag(web: Web, tmp_path: Path):
    date = "Mon, 02 Jan 2023 03:04:05 GMT"
    web.serve("/dated.jsonl", ROWS, etag=None, Last_Modified=date)
    web.serve("/bare.jsonl", ROWS, etag=None)
    assert fetch(web, "/dated.jsonl", tmp_path).revision == date
    assert fetch(web, "/bare.jsonl", tmp_path).revision is None


def test_a_private_address_is_refused_without_a_request(web: Web):
    web.serve("/train.jsonl", ROWS)
    with pytest.raises(AccessRefused, match=r"is 127\.0\.0\.1, which is no public address"):
        resolve_dataset(source(web.url("/train.jsonl", HOST)), Limits(verify=web.trust))
    assert web.asked == []


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://169.254.169.254/latest/meta-data/", r"169\.254\.169\.254, which is no public"),
        ("https://[::ffff:10.0.0.1]/x.jsonl", "no public address"),
        ("https://127.0.0.2/x.jsonl", "no public address"),
        ("https://localhost.localdomain.invalid/x", "no host"),
        ("https://xn--a.b/x.jsonl", "an address that is none"),
        ("http://127.0.0.1/x.jsonl", "only https:// is read"),
        ("file:///etc/passwd", "only https:// is read"),
        ("https://user:secret@data.example/x.jsonl", "only https:// is read"),
    ],
)
def test_a_redirect_to_where_nobody_may_go_is_refused(web: Web, location: str, told: str):
    web.redirect("/train.jsonl", location)
    with pytest.raises(JobError, match=told) as caught:
        resolve_dataset(source(web.url("/train.jsonl", HOST)), limits_of(web))
    assert isinstance(caught.value, AccessRefused | NotFound)
    assert "secret" not in str(caught.value)
    assert len(web.asked) == 1


def test_a_redirect_between_the_look_and_the_download_is_checked_again(web: Web, tmp_path: Path):
    web.serve("/train.jsonl", ROWS)
    resolved = resolve_dataset(source(web.url("/train.jsonl", HOST)), limits_of(web))
    web.redirect("/train.jsonl", "https://169.254.169.254/")
    with pytest.raises(AccessRefused, match="no public address"):
        fetch_dataset(resolved, tmp_path, Watch(), limits_of(web))


def test_redirects_are_followed_also_relative_ones_and_their_query_is_never_told(
    web: Web, tmp_path: Path
):
    web.redirect("/train.jsonl", "/elsewhere/file?X-Amz-Signature=abc")
    web.serve("/elsewhere/file", ROWS)
    assert fetch(web, "/train.jsonl", tmp_path).files == (tmp_path / "train.jsonl",)
    web.answer("/elsewhere/file", 403)
    with pytest.raises(AccessRefused) as caught:
        fetch(web, "/train.jsonl", tmp_path)
    assert "Signature" not in str(caught.value)


def test_redirects_in_a_circle_end(web: Web):
    web.redirect("/train.jsonl", "/train.jsonl")
    with pytest.raises(NotFound, match="redirects more than 5 times"):
        resolve_dataset(source(web.url("/train.jsonl", HOST)), limits_of(web))
    assert len(web.asked) == 6


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (401, AccessRefused, "refused \\(401\\).*s3://"),
        (403, AccessRefused, "refused \\(403\\)"),
        (404, NotFound, "is not there \\(404\\)"),
        (410, NotFound, "is not there"),
        (204, NotFound, "answered 204"),
        (503, Unavailable, "answers 503"),
        (429, Unavailable, "answers 429"),
    ],
)
def test_a_status_is_told_in_our_words(web: Web, status: int, error: type[JobError], told: str):
    web.answer("/train.jsonl", status)
    with pytest.raises(error, match=told):
        resolve_dataset(source(web.url("/train.jsonl", HOST)), limits_of(web))
    assert (len(web.asked) > 1) == error.retryable


def test_a_server_that_is_not_there_is_unavailable():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{unused.getsockname()[1]}/train.jsonl"
        limits = Limits(is_allowed=near)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transfer, "LOOK_PATIENCE", 0.0)
            with pytest.raises(Unavailable, match="the connection fails"):
                resolve_dataset(source(url), limits)


def test_a_file_that_says_it_is_too_big_is_refused_unread(web: Web):
    web.serve("/train.jsonl", ROWS)
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        resolve_dataset(source(web.url("/train.jsonl", HOST)), limits_of(web, max_bytes=1000))


def test_a_file_that_hides_its_size_is_cut_off_at_the_limit(web: Web, tmp_path: Path):
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(ROWS)

    web.answers["/train.jsonl"] = endless
    with pytest.raises(DataError, match="more than 3,000,000 bytes"):
        fetch(web, "/train.jsonl", tmp_path, max_bytes=3_000_000)
    assert not (tmp_path / "train.jsonl").exists()


def test_a_server_that_drips_is_cut_off_in_time(web: Web, tmp_path: Path):
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(b"x" * 20_000)

    web.answers["/train.jsonl"] = drip
    with pytest.raises(Unavailable, match="took longer than 0 s"):
        fetch(web, "/train.jsonl", tmp_path, max_seconds=0.3)


def test_a_server_that_drips_its_headers_is_cut_off_in_time(web: Web, tmp_path: Path):
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            request.wfile.write(b"x")
            time.sleep(0.05)

    web.answers["/train.jsonl"] = drip
    with pytest.raises(Unavailable, match="took longer than 0 s"):
        fetch(web, "/train.jsonl", tmp_path, max_seconds=0.4)


@pytest.mark.parametrize(("etag", "ranges"), [('"v1"', 1), (None, 0), ('W/"v1"', 0)])
def test_a_download_that_breaks_goes_on_where_the_server_can(
    web: Web, tmp_path: Path, etag: str | None, ranges: int
):
    web.serve("/whole", ROWS, etag=etag)
    whole, broken = web.answers["/whole"], [0, 0]

    def breaks_once(request: BaseHTTPRequestHandler) -> None:
        broken[0] += 1
        if broken[0] != 2:  # the first is the look
            return whole(request)
        request.send_response(200)
        if etag:
            request.send_header("ETag", etag)
        request.send_header("Content-Length", str(len(ROWS)))
        request.end_headers()
        request.wfile.write(ROWS[:300_000])
        return None

    web.answers["/train.jsonl"] = breaks_once
    fetched = fetch(web, "/train.jsonl", tmp_path)
    assert fetched.files[0].read_bytes() == ROWS
    assert sum(wanted is not None for _, _, wanted in web.asked) == ranges


def test_a_file_that_changes_between_look_and_download_is_refused(web: Web, tmp_path: Path):
    web.serve("/train.jsonl", ROWS)
    resolved = resolve_dataset(source(web.url("/train.jsonl", HOST)), limits_of(web))
    web.serve("/train.jsonl", ROWS[::-1], etag='"v2"')
    with pytest.raises(Unavailable, match="changed while it was read"):
        fetch_dataset(resolved, tmp_path, Watch(), limits_of(web))


def test_a_wrong_digest_is_refused_with_both(web: Web, tmp_path: Path):
    web.serve("/train.jsonl", ROWS)
    digest = hashlib.sha256(ROWS).hexdigest()
    assert fetch(web, "/train.jsonl", tmp_path, f"?sha256={digest}").sha256 == digest
    with pytest.raises(DataError, match=f"{digest}, the spec asks for {'a' * 64}"):
        fetch(web, "/train.jsonl", tmp_path, f"?sha256={'a' * 64}")


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        ("/export", "application/x-ndjson; charset=utf-8", "export.jsonl"),
        ("/export", "application/json", "export.json"),
        ("/a%20b.parquet", "binary/octet-stream", "a b.parquet"),
    ],
)
def test_the_suffix_comes_from_the_path_or_the_content_type(
    web: Web, tmp_path: Path, path: str, kind: str, name: str
):
    web.serve(path, ROWS, Content_Type=kind)
    assert fetch(web, path, tmp_path).files == (tmp_path / name,)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/export", "text/html"), ("/rows.xlsx", "text/csv"), ("/rows.tar.gz", "application/json")],
)
def test_what_cannot_be_read_is_refused(web: Web, path: str, kind: str):
    web.serve(path, ROWS, Content_Type=kind)
    with pytest.raises(DataError, match=r"read are \.parquet, .*\.gz or \.zst"):
        resolve_dataset(source(web.url(path, HOST)), limits_of(web))


def test_a_proxy_of_the_environment_is_not_used(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    web.serve("/train.jsonl", ROWS)
    assert fetch(web, "/train.jsonl", tmp_path).size == len(ROWS)


def test_a_small_file_is_read_by_the_same_rules(web: Web):
    web.serve("/job.yaml", b"model: x")
    address = web.url("/job.yaml?sig=abc", HOST)
    where, limits = "JOB_SPEC https://data.example/job.yaml", limits_of(web, max_bytes=100)
    assert read_small(address, where, limits) == b"model: x"
    with pytest.raises(AccessRefused, match=r"JOB_SPEC .*no public address"):
        read_small(address, where, Limits(verify=web.trust))
    web.serve("/job.yaml", b"x" * 101)
    with pytest.raises(DataError, match="more than 100 bytes"):
        read_small(address, where, limits)
    with pytest.raises(AccessRefused, match=r"^JOB_SPEC https://127\.0\.0\.1/job\.yaml: "):
        fetch_text("https://127.0.0.1/job.yaml?sig=abc", NOBODY)

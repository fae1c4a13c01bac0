"""Canaries in every secret, and where a person may have put one: in no byte that comes out."""

from __future__ import annotations

import base64
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pyarrow.parquet
import pytest

from job.credentials import SECRETS
from tests import s3
from tests.conftest import BUCKET
from tests.hub_double import HubDouble
from tests.jobs import ROOT, Ended
from tests.store.s3_proxy import S3Proxy
from tests.test_webhook import Receiver

KEYS = (
    *("WANDB_API_KEY", "RUNPOD_API_KEY", "RUNPOD_TERMINATE_API_KEY", "JOB_WEBHOOK_SECRET"),
    "MLFLOW_TRACKING_TOKEN",
)
HEADERS = ("HF_TOKEN", "AWS_SESSION_TOKEN")  # sent as one, so in ASCII
# Each with letters that URLs, JSON and base64 spell in another way.
CANARIES = {name: f'canary/{name.lower()}+"ü\\{name[::-1]}=' for name in KEYS}
CANARIES |= {name: f'canary/{name.lower()}+"\\{name[::-1]}=' for name in HEADERS}
REPO = "org/tuned"


def spellings(secret: str) -> set[bytes]:
    """Every form in which it might be found."""
    raw = secret.encode()
    texts = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    texts |= {quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}
    found = {text.encode() for text in texts}
    for shift in range(3):  # inside of a longer text that is encoded as a whole
        encoded = base64.b64encode(bytes(shift) + raw)[4:-4]
        found |= {encoded, encoded.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def contents(path: Path) -> list[bytes]:
    """A file's bytes, and what is packed in them."""
    found = [path.read_bytes()]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            found += [packed.read(name) for name in packed.namelist()]
    if path.suffix == ".parquet":
        found.append(str(pyarrow.parquet.read_table(path).to_pydict()).encode())
    if path.suffix in (".png", ".gz"):
        parts = found[0].split(b"IDAT")[1:]
        found += [zlib.decompressobj().decompress(part) for part in parts[:1]]
    return found


def leaks(secrets: list[str], ended: list[Ended], *folders: Path) -> list[str]:
    """Where a secret was found; its name is not said."""
    forms = set().union(*(spellings(secret) for secret in secrets))
    outputs = {"stdout and stderr": [(end.stdout + end.stderr).encode() for end in ended]}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                outputs[str(path)] = [str(path).encode(), *contents(path)]
    assert len(outputs) > 5
    return [
        where for where, texts in outputs.items() if any(f in text for f in forms for text in texts)
    ]


def download(env: dict[str, str], prefix: str, into: Path) -> Path:
    """Every object below a prefix, as files."""
    client = s3.client(env)
    for item in client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", []):
        path = into / item["Key"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read())
    assert into.exists()
    return into


def held(hub: HubDouble, into: Path) -> Path:
    """Every file of every commit on the Hub, and what the commits say, as files."""
    into.mkdir()
    told = []
    for repo in hub.repos.values():
        for commit in [*repo.commits, *(c for branch in repo.branches.values() for c in branch)]:
            told += [commit.title, commit.description]
            for name, blob in commit.files.items():
                path = into / commit.oid / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(blob.content)
    (into / "commits.txt").write_text("\n".join([*told, *(path for _, path in hub.requests)]))
    return into


def posted(receiver: Receiver, into: Path) -> Path:
    """What the webhook was sent, headers and bodies, as a file."""
    assert receiver.got
    assert all("v1=" in headers["X-Signature"] for headers, _ in receiver.got)
    into.mkdir()
    texts = [str(headers).encode() + body for headers, body in receiver.got]
    (into / "posts.txt").write_bytes(b"\n".join(texts))
    return into


@pytest.fixture
def hub() -> Iterator[HubDouble]:
    with HubDouble() as hub:
        hub.add_account(CANARIES["HF_TOKEN"], orgs=("org",))
        yield hub


@pytest.fixture
def store(s3_env: dict[str, str]) -> Iterator[S3Proxy]:
    """Before the real server, which takes no session token that it has not made."""
    with S3Proxy(s3_env["AWS_ENDPOINT_URL_S3"]) as proxy:
        yield proxy


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.mark.parametrize("as_files", [False, True], ids=["variables", "files"])
def test_no_secret_is_in_any_byte_of_success_failure_or_stop(
    drill, s3_env, store, hub, receiver, tmp_path, as_files
):
    secrets, given = dict(CANARIES), dict(CANARIES)
    secrets["AWS_SECRET_ACCESS_KEY"] = s3_env["AWS_SECRET_ACCESS_KEY"]
    s3 = s3_env | {"AWS_ENDPOINT_URL_S3": store.url}
    if as_files:
        given = {}
        for name, value in secrets.items():
            (tmp_path / f"secret-{len(given)}").write_text(value)
            given[f"{name}_FILE"] = str(tmp_path / f"secret-{len(given)}")
        del s3["AWS_SECRET_ACCESS_KEY"]
    prefix = f"secrets-{as_files}"
    outside = {name: tmp_path / name for name in ("home", "tmp")}
    for folder in outside.values():
        folder.mkdir()
    said = [f"What is {value}?" for value in CANARIES.values()]
    given |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "DRILL_WEBHOOK": receiver.url}
    run = drill(
        {**s3, **given, "HOME": str(outside["home"]), "TMPDIR": str(outside["tmp"])},
        JOB_OUTPUT=f"file://{tmp_path}/out,s3://{BUCKET}/{prefix},hf://{REPO}",
        JOB_WEBHOOK_URL="https://hooks.example/run",
        JOB_PROMPTS=json.dumps(said),
    )
    before = sorted(p.name for p in ROOT.iterdir())
    values, folders = list(secrets.values()), (run.run_folder, tmp_path / "out")

    run.order(dies_at=3)
    failed = run.run()
    assert failed.code == 71, failed.text
    run.order(step_seconds=0.3)
    process = run.start()
    run.until_said("resumed")
    run.until_said("step", step=5)
    process.terminate()
    stopped = Ended(process.wait(60), *process.communicate())
    assert stopped.code == 75, stopped.text
    stored = download(s3_env, prefix, tmp_path / "stored-1")  # checkpoints among it
    assert "checkpoints" in hub.repos["models", REPO].branches
    others = held(hub, tmp_path / "hub-1"), posted(receiver, tmp_path / "posted-1")
    assert leaks(values, [failed, stopped], *folders, stored, *others) == []

    ended = run.run()
    assert ended.code == 0, ended.text
    stored = download(s3_env, prefix, tmp_path / "stored-2")
    others = held(hub, tmp_path / "hub-2"), posted(receiver, tmp_path / "posted-2")
    assert leaks(values, [ended], *folders, stored, *others) == []
    assert "receipt.json" in hub.files(REPO)
    assert "done" in [state["state"] for state in receiver.taken]
    receipt = json.loads((run.place / "receipt.json").read_text())
    assert "[redacted]" in json.dumps(receipt["spec"]["prompts"])
    assert [list(folder.iterdir()) for folder in outside.values()] == [[], []]
    assert sorted(p.name for p in ROOT.iterdir()) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("JOB_MODEL", "{folder}/{canary}"),
        ("JOB_DATASET", "{folder}/{canary}.jsonl"),
        ("JOB_DATASET", "https://user:{canary}@host.example/rows.jsonl"),
        ("JOB_DATASET", "https://host.example/rows.jsonl?token={canary}"),
        ("JOB_OUTPUT", "s3://{canary}/x"),
        ("JOB_NAME", "../{canary}"),
        ("JOB_SEED", "{canary}"),
        ("JOB_WEBHOOK_SECRET", "{canary}"),
    ],
)
def test_an_error_that_quotes_a_secret_quotes_it_redacted(drill, tmp_path, key, value):
    given = {name: f"canary/0123456789{name}value" for name in SECRETS}
    del given["JOB_WEBHOOK_SECRET"]  # which is refused as long as nothing is sent anywhere
    canary = "".join(given.values())
    run = drill({**given, key: value.format(folder=tmp_path, canary=canary)})
    ended = run.run()
    assert ended.code in (66, 78), ended.text
    found = [path for path in run.run_folder.rglob("*") if path.is_file()]
    texts = [ended.text.encode(), *(path.read_bytes() for path in found)]
    forms = set().union(*(spellings(secret) for secret in given.values()))
    assert not any(form in text for form in forms for text in texts), ended.text

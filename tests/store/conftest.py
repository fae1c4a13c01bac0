"""A place to publish to: a folder and a prefix of the real S3 server, behind one set of handles."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path

import huggingface_hub.constants
import pytest

from job.credentials import Credentials
from job.hashing import FileRecord, hash_folder
from job.spec import DestinationRef
from job.store import Claim, Destination, open_destination, retry
from tests import s3
from tests.conftest import BUCKET

OURS, OTHERS = "a" * 64, "b" * 64


def claim(owner: str, spec_hash: str = OURS) -> Claim:
    """A claim whose lease is over in half a second."""
    return Claim(owner, spec_hash, beat_seconds=0.1, lease_seconds=0.5)


@dataclass
class Place:
    """Where tests publish, and hands that reach into it behind the program's back."""

    ref: DestinationRef
    aws: dict[str, str] = field(default_factory=dict)

    def open(self, name: str = "run-a") -> Destination:
        return open_destination(self.ref, name, ("lora",), Credentials(aws=self.aws), True)

    def read(self, key: str) -> bytes:
        if self.ref.scheme == "file":
            return (Path(self.ref.location) / key).read_bytes()
        return self._s3().get_object(Bucket=BUCKET, Key=self._key(key))["Body"].read()

    def write(self, key: str, content: bytes) -> None:
        if self.ref.scheme == "file":
            path = Path(self.ref.location) / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        else:
            self._s3().put_object(Bucket=BUCKET, Key=self._key(key), Body=content)

    def delete(self, key: str) -> None:
        if self.ref.scheme == "file":
            (Path(self.ref.location) / key).unlink()
        else:
            self._s3().delete_object(Bucket=BUCKET, Key=self._key(key))

    def keys(self) -> list[str]:
        if self.ref.scheme == "file":
            folder = Path(self.ref.location)
            return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))
        prefix = self._key("")
        found = self._s3().list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return sorted(item["Key"].removeprefix(prefix) for item in found)

    def files(self) -> list[str]:
        """The keys without the folders that only a file system has."""
        keys = self.keys()
        return [key for key in keys if not any(other.startswith(f"{key}/") for other in keys)]

    def _key(self, key: str) -> str:
        return f"{self.ref.location.partition('/')[2]}/{key}"

    def _s3(self):
        return s3.client(self.aws)


def file_place(folder: Path) -> Place:
    return Place(DestinationRef(uri=f"file://{folder}", scheme="file", location=str(folder)))


def s3_place(env: dict[str, str]) -> Place:
    location = f"{BUCKET}/{uuid.uuid4().hex}"
    return Place(DestinationRef(uri=f"s3://{location}", scheme="s3", location=location), env)


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "file":
        return file_place(tmp_path / "out")
    return s3_place(request.getfixturevalue("s3_env"))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder of three files, one of them below another folder, one empty."""
    folder = tmp_path / "adapter"
    (folder / "more").mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "more" / "empty.txt").write_bytes(b"")
    return folder


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that waits for more than this has found a fault."""
    monkeypatch.setattr(retry, "UPLOAD_SECONDS", 20.0)


@pytest.fixture(autouse=True)
def without_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub double speaks LFS."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)


def no_progress(what: str, done: int, total: int) -> None:
    pass


def receipt_of(folder: Path, part: str = "adapter", run: str = "run-a") -> dict:
    """A receipt for one published part."""
    from job.receipt import build_receipt

    files: list[FileRecord] = hash_folder(folder, f"{part}/")
    return build_receipt(
        run=run, spec_hash=OURS, spec={"model": "org/base"}, files=files, facts={"status": "done"}
    )

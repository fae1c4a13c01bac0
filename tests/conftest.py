"""Fixtures shared by all tests: a real S3 server, one for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.with_s3 import s3_server

BUCKET = "test-bucket"


@pytest.fixture(scope="session")
def s3_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """AWS_* variables of a SeaweedFS server on loopback that holds the bucket `test-bucket`."""
    folder: Path = tmp_path_factory.mktemp("weed")
    with s3_server(BUCKET, folder) as env:
        yield env

"""A look at the tests' S3 server with boto3's own client, past the program's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3


def client(env: Mapping[str, str]) -> Any:
    """For the store and the keys that AWS_* variables name."""
    return boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )

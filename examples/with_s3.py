"""Run a command beside a real S3 server (SeaweedFS) that lives on the loopback address only.

    python examples/with_s3.py BUCKET -- python entrypoint.py run

The command finds AWS_ENDPOINT_URL_S3 and working keys in its environment. The server and all it
stores are gone when the command ends, unless --keep DIR names a folder for its data.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY, SECRET_KEY = "loopback-key", "loopback-secret"


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different, and their +10000 twins (gRPC) too."""
    ports: list[int] = []
    while len(ports) < count:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port < 55000 and port not in ports:
            ports.append(port)
    return ports


@contextlib.contextmanager
def s3_server(bucket: str, folder: Path) -> Iterator[dict[str, str]]:
    """Start `weed mini` with one bucket; yield the AWS_* variables that reach it.

    Raises:
        RuntimeError: the server did not answer within 30 s (its log is in the message).
    """
    weed = Path(sys.executable).with_name("weed")
    names = ["s3.port", "master.port", "volume.port", "filer.port", "admin.port"]
    grpc = ["s3.port.grpc", "master.port.grpc", "volume.port.grpc", "filer.port.grpc"]
    names += [*grpc, "admin.port.grpc"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    env = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{ports['s3.port']}",
    }
    command = [str(weed), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-bucket={bucket}", "-webdav=false", "-admin.ui=false", "-master.telemetry=false"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "weed.log").open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **env}, stdout=log, stderr=log)
    try:
        _wait_for_bucket(server, bucket, env, folder / "weed.log")
        yield env
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for_bucket(
    server: subprocess.Popen[bytes], bucket: str, env: dict[str, str], log: Path
) -> None:
    """The server answers some time before it has made its bucket."""
    client = boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=env["AWS_DEFAULT_REGION"],
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        try:
            client.head_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the S3 server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def main() -> int:
    """Parse the command line, run the command, return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bucket")
    parser.add_argument("--keep", type=Path, help="folder for the server's data")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp(prefix="s3-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with s3_server(args.bucket, folder) as env:
            return subprocess.run(args.command, env={**os.environ, **env}).returncode
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

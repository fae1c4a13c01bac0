"""The real command line and supervisor, with children that stand in for torch and Unsloth.

`python -m tests.drills.stand_in run`. The children (`preparer`, `trainer`, `merger`, `verifier`
beside this file) keep real checkpoints, by the trainer's own keeper, of a toy model that learns in
milliseconds. `DRILL_KILL_BEFORE=n` kills the supervisor at a file boundary, `DRILL_KILL_AT=n` at a
boundary of a store; `DRILL_FILL` is a folder whose disk fills when the receipt is written;
`DRILL_PATIENCE`, `DRILL_HUB_TIMEOUT`, `DRILL_PART_BYTES` and `DRILL_EVERY` change what would take
too long; `DRILL_WEBHOOK` is where webhooks go instead of a public address.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx

from job import children, cli, log_mirror, publish, space, webhook
from job.store import hub_client, retry, s3
from tests.drills.boundaries import fill_at_receipt, kill_at, kill_before

children.DATA = "tests.drills.preparer"
children.TRAINER = "tests.drills.trainer"
children.MERGER = "tests.drills.merger"
children.VERIFIER = "tests.drills.verifier"

space.REST = 2**20  # caches of compiled kernels, of which there are none


def write_report(folder: Path, result: dict[str, Any]) -> None:
    """Two files at once instead of the real report, whose plot takes longer than all the rest."""
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text(f"<title>{result['status']}</title>")
    (folder / "data.json").write_text(json.dumps(result.get("training", {})))


publish.write_report = write_report


def _post_to(url: str) -> None:
    """The webhook's receiver is on this machine, and a test does not wait for long."""
    real = webhook.Webhook

    def near(_: str, *rest: Any) -> webhook.Webhook:
        return real(url, *rest, is_allowed=lambda _: True, first_wait=0.05, timeout=0.5)

    webhook.Webhook = near  # type: ignore[assignment, misc]


def main() -> int:
    environ = dict(os.environ)
    if number := environ.get("DRILL_KILL_BEFORE"):
        kill_before(int(number), *environ["DRILL_FOLDERS"].split(":"))
    if number := environ.get("DRILL_KILL_AT"):
        kill_at(int(number))
    if folder := environ.get("DRILL_FILL"):
        fill_at_receipt(Path(folder))
    if seconds := environ.get("DRILL_HUB_TIMEOUT"):
        hub_client.TIMEOUT = httpx.Timeout(float(seconds))
    if seconds := environ.get("DRILL_PATIENCE"):
        retry.UPLOAD_SECONDS = float(seconds)
    log_mirror.EVERY = float(environ.get("DRILL_EVERY", log_mirror.EVERY))
    if url := environ.get("DRILL_WEBHOOK"):
        _post_to(url)
    s3.PART_BYTES = int(environ.get("DRILL_PART_BYTES", s3.PART_BYTES))
    return cli.main(sys.argv[1:], environ)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as entrypoint.py does

"""`check`: everything that a run does before its first GPU minute, and the plan it would follow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from job import preflight
from job.credentials import Credentials
from job.plan import GIB
from job.sources import fetch_dataset
from job.spec import JobSpec
from job.store import is_finished, open_destination


def check_job(spec: JobSpec, credentials: Credentials, say: Callable[[str], None]) -> None:
    """Try it all and print what was found; datasets are fetched to a temporary folder.

    Raises:
        JobError: the job would fail.
    """
    say(f"run: {spec.run_name}")
    destinations = [
        open_destination(ref, spec.run_name, spec.save, credentials, spec.hub_private)
        for ref in spec.output
    ]
    for destination in destinations:
        if is_finished(destination, spec.spec_hash):
            say(f"{destination.uri} holds this very run, finished: `run` would do nothing")
    found = preflight.inspect(spec, credentials, destinations, say)
    with tempfile.TemporaryDirectory() as folder:
        fetched = [
            fetch_dataset(dataset, Path(folder) / str(i), credentials, lambda *_: None)
            for i, dataset in enumerate((*found.train, *found.eval))
        ]
        for source, rows in preflight.check_rows(fetched).items():
            say(f"rows: {rows} in {source}")
    say("plan:")
    for name, setting in found.plan.settings().items():
        say(f"  {name} = {setting['value']}  ({setting['reason']})")
    for name, size in found.plan.estimates.items():
        say(f"  estimate: {name} {size / GIB:.2f} GiB")

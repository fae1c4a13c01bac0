"""`check`: everything that a run does before its first GPU minute, and the plan it would follow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from job import preflight
from job.child import Child, child_environment
from job.credentials import Credentials
from job.errors import InternalError
from job.inputs import fetch_datasets, fetch_tokenizer
from job.plan import GIB
from job.report import audit_lines, row_lines
from job.spec import JobSpec
from job.store import is_finished, open_destination

SHOWN = 3  # rows of the data


@dataclass(frozen=True)
class Screen:
    """Where it is printed.

    Attributes:
        width: columns.
        colour: whether it shows colours.
        quote: whether messages about bad rows may quote them.
    """

    say: Callable[[str], None]
    width: int
    colour: bool
    quote: bool


def check_job(
    spec: JobSpec, credentials: Credentials, environ: Mapping[str, str], screen: Screen
) -> None:
    """Try it all and print what was found; everything is fetched to a temporary folder.

    Args:
        environ: what the data process may see a part of.

    Raises:
        JobError: the job would fail.
    """
    say = screen.say
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
        _check_data(spec, found, Path(folder), credentials, environ, screen)
    say("plan:")
    for name, setting in found.plan.settings().items():
        say(f"  {name} = {setting['value']}  ({setting['reason']})")
    for name, size in found.plan.estimates.items():
        say(f"  estimate: {name} {size / GIB:.2f} GiB")


def _check_data(
    spec: JobSpec,
    found: preflight.Findings,
    folder: Path,
    credentials: Credentials,
    environ: Mapping[str, str],
    screen: Screen,
) -> None:
    """Every row rendered, masked and tokenised as the run would; then the audit and a few rows."""
    datasets = fetch_datasets(found, folder / "data", credentials, lambda *_: None)
    into = folder / "tokenizer"
    tokenizer = fetch_tokenizer(spec, found, into, credentials, lambda *_: None)

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "audit":
            screen.say("\n".join(audit_lines(event["audit"], screen.width)))
        elif event["event"] == "rows":
            lines = row_lines(event["rows"], screen.width, colour=screen.colour)
            screen.say("\n".join(lines))

    log = folder / "log"
    env = child_environment(environ, folder, on_cpu=True)
    today = datetime.now(UTC).date().isoformat()
    request = {
        "spec": spec.public(),
        "model": str(tokenizer),
        "template_date": str(spec.template_date or today),
        **datasets.request(folder / "cache", folder / "rows", show=SHOWN, quote=screen.quote),
    }
    try:
        Child("job.data", env, log, on_event).run(request)
    except InternalError:
        # The log is gone with the folder.
        screen.say(log.read_text(encoding="utf-8", errors="replace"))
        raise

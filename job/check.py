"""`check`: everything that a run does before its first GPU minute, and the plan it would follow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from job import preflight
from job.cards import fits, training_seconds
from job.child import Child, child_environment
from job.credentials import Credentials
from job.errors import InternalError
from job.inputs import fetch_datasets, fetch_tokenizer
from job.memory import GIB, PARTS, on_card
from job.report import audit_lines, row_lines
from job.spec import JobSpec
from job.store import finished_receipt, misfits, open_destination
from job.trackers import require

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
        environ: what the data process may see a part of; CUDA_VISIBLE_DEVICES may hide cards.

    Raises:
        JobError: the job would fail.
    """
    say = screen.say
    say(f"run: {spec.run_name}")
    require(spec, environ, credentials)
    destinations = [
        open_destination(ref, spec.run_name, spec.save, credentials, spec.hub_private)
        for ref in spec.output
    ]
    for destination in destinations:
        receipt = finished_receipt(destination, spec.spec_hash)
        if receipt and (wrong := misfits(destination, receipt)):
            what = f"{len(wrong)} of the files that its receipt lists are missing or cut off"
            say(f"{destination.uri} holds this very run, finished, but {what}")
        elif receipt:
            say(f"{destination.uri} holds this very run, finished: `run` would do nothing")
    found = preflight.inspect(spec, credentials, environ, destinations, say)
    with tempfile.TemporaryDirectory() as folder:
        audit = _check_data(spec, found, Path(folder), credentials, environ, screen)
    _show_plan(spec, found.knowing(spec, audit), audit, say)


def _show_plan(
    spec: JobSpec, found: preflight.Findings, audit: dict[str, Any], say: Callable[[str], None]
) -> None:
    """Settings and why, what they take of card, disk and time, and what other cards would give."""
    plan, model, gpu = found.plan, found.model, found.gpu
    say("plan:")
    for name, setting in plan.settings().items():
        say(f"  {name} = {setting['value']}  ({setting['reason']})")
    there = f" of {gpu.memory / GIB:.1f} GiB on the {gpu.name}" if gpu else " of main memory"
    say(f"estimated memory: {on_card(plan.estimates) / GIB:.2f} GiB{there}")
    for part in PARTS:
        say(f"  {part:<12}{plan.estimates[part] / GIB:8.2f} GiB")
    tokens = audit["run"]["tokens"]
    seconds = training_seconds(plan, model.config, gpu, tokens)
    if seconds is None:
        say("estimated time: no speed was measured for this model on this card")
    else:
        say(
            f"estimated time to train {tokens:,} tokens: {seconds / 60:.0f} min, at a speed "
            "measured on such a card with rows of about 1,000 tokens, loading and saving apart"
        )
    say("on other cards, estimated:")
    longest = audit["percentiles"]["max"]
    for name, told in fits(spec, model.config, model.weight_bytes, longest):
        say(f"  {name:<26}{told}")


def _check_data(
    spec: JobSpec,
    found: preflight.Findings,
    folder: Path,
    credentials: Credentials,
    environ: Mapping[str, str],
    screen: Screen,
) -> dict[str, Any]:
    """Every row rendered, masked and tokenised as the run would; then the audit and a few rows.

    Returns:
        The audit.
    """
    datasets = fetch_datasets(found, folder / "data", credentials, lambda *_: None)
    into = folder / "tokenizer"
    tokenizer = fetch_tokenizer(spec, found, into, credentials, lambda *_: None)

    audit: dict[str, Any] = {}

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "audit":
            audit.update(event["audit"])
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
    return audit

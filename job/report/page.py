"""One self-contained page on a run: no network, light and dark, phone, desktop and paper."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from job.report import advice, audit, languages, memory, tiles, view, words
from job.report.plots import Plot

Result = dict[str, Any]


def render_page(result: Result, plots: Sequence[Plot]) -> str:
    """The report as HTML.

    Args:
        result: what the supervisor knows of the run, done or failed.
        plots: of `job.report.plots.draw_plots`.
    """
    failure = result.get("failure") if result["status"] != "done" else None
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            run=result["run"],
            headline=view.headline(result),
            subject=view.what_was_done(result),
            failure=failure,
            first_step=advice.first_step(failure) if failure else "",
            tiles=tiles.tiles(result),
            next_steps=advice.next_steps(result),
            plots=plots,
            resumed=view.resumed(result),
            samples=_by_prompt(result.get("samples") or []),
            languages=languages.sentence(result.get("samples") or []),
            data=_with_bars(audit.facts(result.get("audit"))),
            datasets=result.get("datasets") or [],
            plan=view.settings(result.get("plan")),
            memory=memory.facts(result),
            settings=_settings(result["spec"]),
            merge=view.merge_facts(result.get("merge")),
            merge_sentence=view.merge_sentence(result.get("merge")),
            took=words.duration(sum((result.get("timings") or {}).values())),
            timings=_bars(result.get("timings") or {}),
            versions=result.get("versions") or {},
            model=result.get("model") or {},
            files=_files(result.get("files") or []),
            outputs=_outputs(result),
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("job.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=words.count,
        size=words.size,
        number=words.number,
        answer=words.answer_text,
        stop=words.stop_reason,
        language=languages.found,
        decoding=languages.decoding,
        codes=_codes,
    )
    return environment


def _codes(text: str) -> Markup:
    """Escaped text in which `these` are set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


def _settings(spec: Result) -> dict[str, Any]:
    """The spec's keys that say something; the prompts have their own place."""
    empty: tuple[Any, ...] = (None, "", [], {})
    return {key: value for key, value in spec.items() if value not in empty and key != "prompts"}


def _bars(timings: dict[str, float]) -> list[tuple[str, float, str]]:
    """The phases as (name, percent of the longest one, time)."""
    longest = max(timings.values(), default=0.0) or 1.0
    return [
        (name, 100 * seconds / longest, words.duration(seconds))
        for name, seconds in timings.items()
    ]


def _with_bars(data: dict[str, Any]) -> dict[str, Any]:
    """The audit's facts with the lengths as (name, percent of the most, rows)."""
    lengths = [
        (name, percent, f"{words.count(rows)} rows") for name, rows, percent in data["lengths"]
    ]
    return data | {"lengths": lengths}


def _by_prompt(samples: list[Result]) -> list[tuple[list[Result], list[Result]]]:
    """The samples as (prompt, its answers by how they were made)."""
    groups = itertools.groupby(samples, key=lambda sample: sample["prompt"])
    return [(prompt, list(variants)) for prompt, variants in groups]


def _files(files: list[Result]) -> list[tuple[str, int, list[Result]]]:
    """The published files by part as (part, bytes, files)."""
    parts: dict[str, list[Result]] = {}
    for file in files:
        parts.setdefault(file["path"].split("/")[0], []).append(file)
    return [(part, sum(file["size"] for file in found), found) for part, found in parts.items()]


def _outputs(result: Result) -> list[tuple[str, list[tuple[str, str]]]]:
    """Where a finished run is, as (destination, its places)."""
    if result["status"] != "done":
        return []
    found = []
    for uri in words.items(result["spec"].get("output")):
        base = uri if uri.startswith("hf://") else f"{uri.rstrip('/')}/{result['run']}"
        found.append((base, view.places(base, result["spec"].get("save", ""))))
    return found

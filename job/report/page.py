"""One self-contained page on a run: no network, light and dark, phone, desktop and paper."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from job.report import audit, view, words

Result = dict[str, Any]


def render_page(result: Result, plots: dict[str, bytes]) -> str:
    """The report as HTML.

    Args:
        result: what the supervisor knows of the run, done or failed.
        plots: the loss plot as PNG by the screen it is for (see plots.py and page.css).
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
            first_step=view.first_step(failure) if failure else "",
            tiles=view.tiles(result),
            plots=plots,
            samples=result.get("samples") or [],
            data=audit.facts(result.get("audit")),
            datasets=result.get("datasets") or [],
            plan=view.settings(result.get("plan")),
            estimates=view.estimates(result.get("plan")),
            settings=_settings(result["spec"]),
            merge=view.merge_facts(result.get("merge")),
            timings=_bars(result.get("timings") or {}),
            versions=result.get("versions") or {},
            model=result.get("model") or {},
            files=_files(result.get("files") or []),
            outputs=_outputs(result),
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def data_uri(png: bytes) -> str:
    """An image as part of the page itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("job.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        data_uri=data_uri,
        count=words.count,
        size=words.size,
        duration=words.duration,
        number=words.number,
        answer=words.answer_text,
        stop=words.stop_reason,
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


def _bars(timings: dict[str, float]) -> list[tuple[str, float, float]]:
    """The phases as (name, seconds, percent of the longest one)."""
    longest = max(timings.values(), default=0.0) or 1.0
    return [(name, seconds, 100 * seconds / longest) for name, seconds in timings.items()]


def _files(files: list[Result]) -> list[tuple[str, int, list[Result]]]:
    """The published files by part as (part, bytes, files)."""
    parts: dict[str, list[Result]] = {}
    for file in files:
        parts.setdefault(file["path"].split("/")[0], []).append(file)
    return [(part, sum(file["size"] for file in found), found) for part, found in parts.items()]


def _outputs(result: Result) -> list[tuple[str, str]]:
    """Where a finished run is, for each destination."""
    if result["status"] != "done":
        return []
    found = []
    for uri in words.items(result["spec"].get("output")):
        base = uri if uri.startswith("hf://") else f"{uri.rstrip('/')}/{result['run']}"
        found += view.places(base, result["spec"].get("save", ""))
    return found

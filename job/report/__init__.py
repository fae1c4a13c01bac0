"""What a person sees: progress while the job runs; the page, plot, card and summary at its end.

Importing this package is light. rich, matplotlib, jinja2 and yaml load only when something that
needs them is made, so that a wrong spec is still answered in a fraction of a second.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from job.report.progress import JsonReporter, LineReporter, Reporter, open_reporter

__all__ = [
    "JsonReporter",
    "LineReporter",
    "Reporter",
    "audit_lines",
    "fit",
    "open_reporter",
    "row_lines",
    "summary",
    "write_card",
    "write_report",
]


def write_report(folder: Path, result: dict[str, Any]) -> None:
    """Write the report of a finished or failed run into `folder` (made when missing).

    Leaves index.html and result.json always; loss.png, speed.png, samples.json and data.json when
    the run got that far; README.md (the model card) when it is done. Parts that `result` lacks are
    left out, so a run that failed in its first phase has a page too.
    """
    from job.report.page import render_page
    from job.report.plots import draw_plots

    folder.mkdir(parents=True, exist_ok=True)
    plots = draw_plots(result.get("training") or {})
    for plot in plots:
        (folder / f"{plot.name}.png").write_bytes(plot.png)
    (folder / "index.html").write_text(render_page(result, plots), encoding="utf-8")
    parts = {"result": result, "samples": result.get("samples"), "data": result.get("audit")}
    for name, part in parts.items():
        if part:
            text = json.dumps(part, ensure_ascii=False, indent=2)
            (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    if result.get("status") == "done":
        merged = "merged_16bit" in result["spec"].get("save", "")
        write_card(folder / "README.md", result, "merged" if merged else "adapter")


def write_card(path: Path, result: dict[str, Any], kind: str) -> None:
    """Write the model card of a Hub repository or folder.

    Args:
        path: the README.md to write.
        result: the result of a run that saved these weights.
        kind: "adapter" or "merged": what lies beside the card.
    """
    from job.report.card import render_card

    path.write_text(render_card(result, kind), encoding="utf-8")


def summary(result: dict[str, Any], receipts: Sequence[str]) -> str:
    """The end of the run for the terminal, a few lines without colour.

    Args:
        result: the result of a finished or failed run.
        receipts: the URIs of the receipts that were written and verified, one a destination.
    """
    from job.report.closing import summarise

    return summarise(result, receipts)


def fit(text: str, width: int) -> str:
    """The summary for a terminal of this width; after secrets were taken out, not before."""
    from job.report import closing

    return closing.fit(text, width)


def audit_lines(audit: dict[str, Any], width: int = 80) -> list[str]:
    """The data audit as lines for a terminal or a log, without colour."""
    from job.report import data_text

    return data_text.audit_lines(audit, width)


def row_lines(rows: list[dict[str, Any]], width: int = 80, *, colour: bool = False) -> list[str]:
    """Sample rows, trained tokens told apart: by colour, or by brackets for a log."""
    from job.report import rows_text

    return rows_text.row_lines(rows, width, colour=colour)

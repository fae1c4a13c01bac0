"""The data audit for a terminal or a log: a screenful of lines without colour."""

from __future__ import annotations

import textwrap
from typing import Any

from rich.cells import cell_len, set_cell_size

from job.report import audit as audits
from job.report import words

Audit = dict[str, Any]

LABEL = 22  # columns for what a line is about
SOURCES = 10  # sources that are listed
BAR = 40  # columns of the longest bar
GAP = "  "


def audit_lines(audit: Audit, width: int = 80) -> list[str]:
    """The audit as lines of at most `width` columns, which are 80 or more."""
    lines = ["Data"]
    for label, text in audits.main_facts(audit):
        lines += _entry(label.ljust(LABEL), text, width)
    lines += ["By source", *_sources(audit, width), "Length of the rows in tokens"]
    lines += _bars(audit)
    for warning in audit.get("warnings") or []:
        lines += _entry("WARNING  ", warning, width, indent="")
    return lines


def _entry(label: str, text: str, width: int, indent: str = GAP) -> list[str]:
    """A label and its text, which goes on below itself."""
    first = indent + label
    return textwrap.wrap(
        words.printable(text), width, initial_indent=first, subsequent_indent=" " * len(first)
    )


def _sources(audit: Audit, width: int) -> list[str]:
    """A table: numbers to the right, and the end of a name where it is too long."""
    sources = audit.get("sources") or []
    columns = ("name", "format", "rows", "tokens", "trained", "share", "asked")
    table: list[tuple[str, ...]] = [("", *columns[1:])]
    for source in sources[:SOURCES]:
        cells = audits.source_cells(source, audit)
        cells["name"] = words.shorten(words.hub_id(source["source"]) or source["source"], 500)
        table.append(tuple(cells[column] for column in columns))
    if not any(row[-1] for row in table[1:]):  # no source has a weight
        table = [row[:-1] for row in table]
    widths = [max(cell_len(row[column]) for row in table) for column in range(len(table[0]))]
    room = width - len(GAP) * len(widths) - sum(widths[1:])
    widths[0] = min(widths[0], max(room, 12))
    lines = [_table_line(row, widths) for row in table]
    if (more := len(sources) - SOURCES) > 0:
        lines.append(f"{GAP}and {more} more")
    return lines


def _table_line(row: tuple[str, ...], widths: list[int]) -> str:
    name, format, *numbers = row
    cut = cell_len(name) - widths[0]
    name = set_cell_size(f"…{name[cut + 1 :]}" if cut > 0 else name, widths[0])
    cells = [name, format.ljust(widths[1])]
    cells += [number.rjust(size) for number, size in zip(numbers, widths[2:], strict=True)]
    return (GAP + GAP.join(cells)).rstrip()


def _bars(audit: Audit) -> list[str]:
    bars = audits.length_bars(audit)
    wide = max((len(name) for name, _, _ in bars), default=0)
    return [
        f"{GAP}{name.rjust(wide)}  {_bar(percent) if rows else ''} {words.count(rows)}"
        for name, rows, percent in bars
    ]


def _bar(percent: float) -> str:
    return "█" * round(BAR * percent / 100) or "▏"

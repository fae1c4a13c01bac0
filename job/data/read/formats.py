"""Dataset files to rows: recognises the format from the columns and reads every row of it.

Covers Multilingual-Thinking, messages, ShareGPT, Alpaca, prompt/completion, plain text and
preference rows (chosen/rejected).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from job.data.read import conversations
from job.data.read.fields import kind_of
from job.data.read.files import records
from job.data.read.preferences import preference
from job.data.read.recognise import NEEDS, check_columns, recognise
from job.data.rows import BadRow, Findings, Row
from job.errors import DataError

__all__ = ["FORMATS", "Row", "open_rows", "read_rows"]

_LOOKED_AT = 10
"""The columns of so many rows decide what the format is."""

_EFFORTS = ("low", "medium", "high")
_LANGUAGE = re.compile(r"^\s*reasoning language:[ \t]*(\w[\w ()-]{0,39})", re.I | re.M)

Columns = dict[str, Any]
Parser = Callable[[Columns], Columns]

_PARSERS: dict[str, Parser] = {
    "multilingual-thinking": conversations.multilingual_thinking,
    "messages": conversations.messages,
    "sharegpt": conversations.sharegpt,
    "alpaca": conversations.alpaca,
    "prompt-completion": conversations.prompt_completion,
    "text": conversations.text,
    "preference": preference,
}
FORMATS: dict[str, tuple[frozenset[str], Parser]] = {
    name: (NEEDS[name], parse) for name, parse in _PARSERS.items()
}
"""Name -> the columns it is recognised by, and the function from a record to a Row's fields."""


def open_rows(
    files: Sequence[Path], format: str | None, label: str
) -> tuple[str, Iterator[tuple[str, Row | BadRow]]]:
    """Open one dataset source; its rows come one by one and are not kept.

    Args:
        files: its files, in order.
        format: a key of `FORMATS`, or None to recognise it.
        label: how messages name the source.

    Returns:
        The format's name, and the rows in the order of the files, each as (place for a message,
        the row or what is wrong with it).

    Raises:
        DataError: nothing to read, no format or several fit, or a file is broken as a whole; the
            last also while the rows are read.
    """
    if format is not None and format not in FORMATS:
        raise DataError(f"{label}: format={format} is unknown; known are {', '.join(FORMATS)}.")
    found = _all_records(files, label)
    first = list(islice(found, _LOOKED_AT))
    if not first:
        raise DataError(f"{label}: holds no rows.")
    name = format or _recognised(first, label)
    if format:
        check_columns([record for _, record in first], format, label)
    return name, _rows(chain(first, found), name, label)


def read_rows(files: Sequence[Path], format: str | None, label: str) -> tuple[str, list[Row]]:
    """As `open_rows`, with all rows in memory.

    Raises:
        DataError: as `open_rows`, or at least one row is bad; then the first bad rows are listed
            with their place and never with their content.
    """
    name, found = open_rows(files, format, label)
    rows, findings = list[Row](), Findings()
    for place, row in found:
        if isinstance(row, Row):
            rows.append(row)
        else:
            findings.add(place, row)
    findings.check(label, len(rows) + findings.count)
    return name, rows


def _all_records(files: Sequence[Path], label: str) -> Iterator[tuple[str, Any]]:
    for path in files:
        try:
            for where, record in records(path):
                yield (f"{path.name} {where}".strip() if len(files) > 1 else where), record
        except DataError as error:
            raise DataError(f"{label}: {error.message}") from error


def _recognised(first: list[tuple[str, Any]], label: str) -> str:
    """The format of the first records, when there is a record with columns among them."""
    rows = [record for _, record in first]
    if not any(isinstance(row, dict) for row in rows):
        findings = Findings()
        for number, (where, record) in enumerate(first, 1):
            error = record if isinstance(record, BadRow) else _not_an_object(record)
            findings.add(_place(label, number, where), error)
        findings.check(f"{label}, its beginning", len(first))
    return recognise(rows, label)


def _rows(
    found: Iterator[tuple[str, Any]], name: str, label: str
) -> Iterator[tuple[str, Row | BadRow]]:
    _, parse = FORMATS[name]
    for number, (where, record) in enumerate(found, 1):
        try:
            row: Row | BadRow = _row(record, parse, label, number, name)
        except BadRow as error:
            row = error
        yield _place(label, number, where), row


def _row(record: Any, parse: Parser, label: str, number: int, name: str) -> Row:
    if isinstance(record, BadRow):
        raise record
    if not isinstance(record, dict):
        raise _not_an_object(record)
    try:
        effort = record.get("reasoning_effort") or None
        if effort is not None and effort not in _EFFORTS:
            raise BadRow(f"must be one of {', '.join(_EFFORTS)}", "reasoning_effort")
        fields: Columns = {"messages": None, "text": None, **parse(record)}
    except BadRow as error:
        raise BadRow(error.what, error.column, _value_at(record, error.column)) from None
    language = _language(record, fields["messages"])
    return Row(
        reasoning_effort=effort,
        source=label,
        number=number,
        format=name,
        language=language,
        **fields,
    )


def _not_an_object(record: Any) -> BadRow:
    return BadRow(f"is {kind_of(record)}, not an object with columns", content=record)


def _place(label: str, number: int, where: str) -> str:
    return f"{label}, row {number} ({where})" if where else f"{label}, row {number}"


def _value_at(record: Any, column: str) -> Any:
    """What stands at a path such as messages[2].content, as far as the path leads."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", column):
        if index and isinstance(record, list) and int(index) < len(record):
            record = record[int(index)]
        elif name and isinstance(record, dict) and name in record:
            record = record[name]
    return record


def _language(record: Columns, messages: Any) -> str | None:
    """The language of the reasoning: its column, or what the system turn asks for."""
    stated = record.get("reasoning_language")
    if isinstance(stated, str) and stated.strip():
        return stated.strip()[:40]
    first = messages[0] if messages else {"role": "user"}
    asked = _LANGUAGE.search(first["content"]) if first["role"] == "system" else None
    return asked[1].strip() if asked else None

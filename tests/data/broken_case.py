"""One broken input, and short ways to write one; the table of them is in broken.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CANARY = "canary-7c1f9e"
"""Stands in the rows; a message that holds it shows what it must not."""


@dataclass(frozen=True)
class Broken:
    """One broken input.

    Attributes:
        write: makes the files in an empty folder; returns environment variables.
        exit_code: of a run, or of `check`.
        says: what the message must hold.
        found_by: reading the files, or encoding the rows with a tokenizer.
    """

    name: str
    write: Callable[[Path], dict[str, str]]
    exit_code: int
    says: tuple[str, ...]
    found_by: Literal["reading", "encoding"] = "reading"


def uri(text: str, **environ: str) -> Callable[[Path], dict[str, str]]:
    """A dataset that is no file of ours."""
    return lambda folder: {"JOB_DATASET": text, **environ}


def file(
    name: str, content: bytes | Callable[[], bytes], query: str = "", **environ: str
) -> Callable[[Path], dict[str, str]]:
    """A dataset of one file, and what else is set."""

    def write(folder: Path) -> dict[str, str]:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content())
        return {"JOB_DATASET": f"{folder / name}{query}", **environ}

    return write


def folder_of(**files: bytes) -> Callable[[Path], dict[str, str]]:
    """A dataset of a folder; `__` in a name is a dot."""

    def write(folder: Path) -> dict[str, str]:
        (folder / "rows").mkdir()
        for name, content in files.items():
            (folder / "rows" / name.replace("__", ".")).write_bytes(content)
        return {"JOB_DATASET": str(folder / "rows")}

    return write


def lines(*rows: Any) -> bytes:
    """JSON Lines; a row that is text stands there as it is."""
    return "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows).encode()


def data_error(name: str, write: Callable[[Path], dict[str, str]], *says: str) -> Broken:
    return Broken(name, write, 65, says)


def bad_file(name: str, file_name: str, content: bytes | Callable[[], bytes], *says: str) -> Broken:
    return data_error(name, file(file_name, content), file_name, *says)


GOOD = {"messages": [{"role": "user", "content": CANARY}, {"role": "assistant", "content": "Yes"}]}
USER, ANSWER = GOOD["messages"]

"""Training rows for a person to look at, with the tokens that are trained told apart.

On a terminal they are green and the others dim; elsewhere they stand in ⟦brackets⟧.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from rich.console import Console
from rich.containers import Lines
from rich.text import Text

from job.report import words

Part = tuple[str, bool | None]  # its text, and whether it is trained; None for a note of ours

OPEN, CLOSE = "⟦", "⟧"
STYLES = {True: "green", False: "dim", None: "italic"}
ROW = 38
"""Lines of a row at most, by a few."""

LIMITS = ((11, 15), (7, 9), (5, 5))
"""Lines of a masked and of a trained piece; the next pair where a row is too long as a whole."""


def row_lines(rows: list[dict[str, Any]], width: int = 80, *, colour: bool = False) -> list[str]:
    """The rows of `job.data.choose.show.sample_rows`, each as at most about 40 lines.

    Args:
        width: columns of the terminal.
        colour: whether the lines may hold the escape sequences of colours.
    """
    how = "trained tokens are green" if colour else f"trained tokens stand in {OPEN}{CLOSE}"
    lines = [f"Sample rows; {how}"]
    for row in rows:
        share = words.share(row["trained_tokens"], row["tokens"])
        lines += [
            "",
            f"== {words.shorten(row['source'], 500)}, row {row['row']}: "
            f"{words.count(row['tokens'])} tokens, {share} of them trained",
            *_body(row["pieces"], width, colour=colour),
        ]
    return lines


def visible(text: str) -> str:
    """The text with every character that a terminal would obey shown and not sent to it.

    Line ends stay. C0 controls have pictures in Unicode; others are named by number.
    """

    def show(found: Any) -> str:
        number = ord(found[0])
        return chr(0x2400 + number) if number < 0x20 else f"<U+{number:04X}>"

    return words.CONTROL.sub(show, text.expandtabs(4))


def _body(pieces: list[Any], width: int, *, colour: bool) -> list[str]:
    # The caller decides about colour; rich's own look at the environment would leave no marks.
    system: Any = "standard" if colour else None
    console = Console(width=width, force_terminal=colour, color_system=system, no_color=False)
    parts: list[Part] = []
    for masked, trained in LIMITS:
        parts = [_part(text, kept, trained if kept else masked, console) for text, kept in pieces]
        if _height(parts, console) <= ROW:
            break
    shown = Text.assemble(*((text, STYLES[kind]) for text, kind in _within(parts, console)))
    with console.capture() as captured:
        console.print(shown, overflow="fold", highlight=False)
    return [line.rstrip() for line in captured.get().rstrip("\n").split("\n")]


def _part(text: str, trained: bool, limit: int, console: Console) -> Part:
    """A piece as it is shown, its middle lines left out where it has more than `limit`."""
    text, marked = visible(text), trained and console.color_system is None
    if console.color_system is None:
        text = text.replace(OPEN, "<U+27E6>").replace(CLOSE, "<U+27E7>")
    lines = [line.plain for line in _wrapped(text, console)]
    if len(lines) > limit:
        head, tail = limit // 2, (limit - 1) // 2
        note = f"… {words.count(len(lines) - head - tail)} lines …"
        text = "\n".join([*lines[:head], note, *lines[-tail:]])
    return (f"{OPEN}{text}{CLOSE}" if marked else text), trained


def _height(parts: list[Part], console: Console) -> int:
    """Lines of the parts; a little more than they take, since parts share lines."""
    return sum(len(_wrapped(text, console)) for text, _ in parts)


def _within(parts: list[Part], console: Console) -> list[Part]:
    """The parts with those in the middle left out where all together are longer than `ROW`."""
    if _height(parts, console) <= ROW:
        return parts
    sizes = [_height([part], console) for part in parts]
    head = sum(size <= 2 * ROW // 3 for size in accumulate(sizes))
    tail = sum(size <= ROW // 3 for size in accumulate(reversed(sizes)))
    note = f"\n… {len(parts) - head - tail} parts …\n"
    return [*parts[:head], (note, None), *parts[-tail:]]


def _wrapped(text: str, console: Console) -> Lines:
    return Text(text).wrap(console, console.width, overflow="fold")

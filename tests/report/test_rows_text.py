"""Sample rows: trained text is told apart, long text is short, and nothing steers the terminal."""

from __future__ import annotations

from typing import Any

import pytest
from rich.text import Text

from job.report import row_lines


def row(*pieces: tuple[str, bool], source: str = "rows.jsonl") -> dict[str, Any]:
    return {
        "source": source,
        "row": 7,
        "tokens": 40,
        "trained_tokens": 10,
        "pieces": [list(piece) for piece in pieces],
    }


CHAT = (
    ("<|user|>\nWhat is 2 + 2?<|end|>\n<|assistant|>\n", False),
    ("Four.<|end|>", True),
    ("\n", False),
)


def body(*pieces: tuple[str, bool], width: int = 80) -> list[str]:
    return row_lines([row(*pieces)], width)[3:]


def test_trained_text_stands_in_brackets() -> None:
    assert row_lines([row(*CHAT)]) == [
        "Sample rows; trained tokens stand in ⟦⟧",
        "",
        "== rows.jsonl, row 7: 40 tokens, 25 % of them trained",
        "<|user|>",
        "What is 2 + 2?<|end|>",
        "<|assistant|>",
        "⟦Four.<|end|>⟧",
    ]


def test_on_a_terminal_trained_text_is_green_and_the_rest_dim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")  # which is the caller's to heed
    lines = row_lines([row(*CHAT)], colour=True)
    assert "\x1b[32mFour.<|end|>\x1b[0m" in lines[-1]
    assert "\x1b[2mWhat is 2 + 2?<|end|>\x1b[0m" in lines
    assert Text.from_ansi("\n".join(lines[2:])).plain.splitlines() == [
        line.strip("⟦⟧") for line in row_lines([row(*CHAT)])[2:]
    ]


def test_markup_in_a_row_is_text() -> None:
    assert body(("[bold]x[/bold] :smile: [/]", True)) == ["⟦[bold]x[/bold] :smile: [/]⟧"]


def test_the_middle_of_long_text_is_left_out() -> None:
    masked = "".join(f"line {n}\n" for n in range(500))
    lines = body((masked, False), ("yes", True))
    assert len(lines) <= 14
    assert lines[0] == "line 0"
    assert lines[-1] in ("⟦yes⟧", "line 499⟦yes⟧")
    assert any(line.startswith("… 49") and line.endswith(" lines …") for line in lines)


def test_a_row_has_at_most_about_forty_lines() -> None:
    turns = [(f"turn {n}\n" * 3, n % 2 == 1) for n in range(100)]
    lines = body(*turns)
    assert 20 <= len(lines) <= 42
    assert lines[0] == "turn 0"
    assert any("parts …" in line for line in lines)
    assert "turn 99" in "\n".join(lines[-4:])


def test_no_piece_of_a_row_with_few_pieces_is_left_out() -> None:
    long = [("word " * 5000, False), ("yes " * 5000, True)] * 2 + [("\n", False)]
    lines = body(*long)
    assert len(lines) <= 42
    assert sum("⟦yes" in line for line in lines) == 2
    assert not any("parts" in line for line in lines)


def test_brackets_are_balanced_and_only_ours() -> None:
    turns = [(f"⟦turn⟧ {n}\n" * 30, n % 2 == 1) for n in range(100)]
    text = "\n".join(body(*turns))
    depth = [character for character in text if character in "⟦⟧"]
    assert depth == ["⟦", "⟧"] * (len(depth) // 2)
    assert "<U+27E6>turn<U+27E7>" in text


def test_lines_fit_the_terminal_also_in_wide_scripts() -> None:
    lines = body(("日本語" * 200, False), width=60)
    assert max(len(Text(line).plain) for line in lines) <= 30


def test_a_row_cannot_steer_the_terminal() -> None:
    hostile = "a\x1b[2J\x07\r\n\x9b31m\u202eb\x7f\x00"
    for colour in (False, True):
        text = "\n".join(row_lines([row((hostile, True), source=hostile)], colour=colour))
        rest = text.replace("\x1b[32m", "").replace("\x1b[0m", "")
        assert not any(character in rest for character in "\x1b\x07\r\x9b\u202e\x7f\x00")
        assert "␛[2J␇␍" in rest
        assert "<U+009B>31m<U+202E>b<U+007F>␀" in rest

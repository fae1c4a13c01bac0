"""The audit on a terminal: all of it, in a screenful, whatever the width and the names."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from job.report import audit_lines
from tests.report import sample


def test_the_audit_is_told_in_a_screenful() -> None:
    lines = audit_lines(sample.audit())
    assert 15 <= len(lines) <= 32
    text = " ".join(" ".join(lines).split())
    for fact in (
        "75 rows, 39,700 tokens, 64 % of them trained on",
        "Rows available 91 rows",
        "Held-out rows 3 rows",
        "60 steps of 16 rows: 12.8 epochs, 508,400 tokens",
        "median 431 tokens, 99 % have at most 1,702, the longest 5,120",
        "Reasoning 60 % of the rows, 75 % of the tokens",
        "2 rows longer than max_seq_length",
        "1 row equal to another, 2 rows equal but for case and spaces",
        "<|return|> ends 75 rows",
        "medium 65, high 10",
        "Japanese 20, French 16, Arabic 12",
        "3 earlier turns, by the chat template",
        "WARNING 60 % of the rows hold reasoning.",
    ):
        assert fact in text


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    audit = sample.audit()
    audit["sources"][0]["source"] = "/data/" + "数据" * 60 + "/rows.jsonl"
    audit["languages"] = {f"Language{n}": n for n in range(30)}
    for line in audit_lines(audit, width):
        assert cell_len(line) <= width


def test_sources_stand_in_a_table_with_what_was_asked() -> None:
    lines = audit_lines(sample.audit(), 120)
    start = lines.index("By source")
    rows = [" ".join(line.split()) for line in lines[start + 1 : start + 4]]
    assert rows == [
        "format rows tokens trained share asked",
        "HuggingFaceH4/Multilingual-Thinking multilingual-thinking 45 29,800 70 % 60 % 60 %",
        "/data/private/notes.jsonl messages 30 9,900 47 % 40 % 40 %",
    ]
    assert len({len(line) for line in lines[start + 1 : start + 4]}) == 1


def test_the_end_of_a_long_name_tells_files_apart() -> None:
    lines = audit_lines(sample.audit(), 80)
    assert any(line.strip().startswith("…") and "/notes.jsonl" in line for line in lines)


def test_without_weights_nothing_was_asked() -> None:
    audit = sample.audit()
    for source in audit["sources"]:
        source["asked"] = None
    assert not any("asked" in line for line in audit_lines(audit))


def test_an_asked_share_of_reasoning_stands_beside_the_realised_one() -> None:
    audit = sample.audit()
    audit["kinds"]["reasoning"]["asked"] = 0.6
    assert any("60 % of the rows (asked: 60 %)" in line for line in audit_lines(audit))


def test_many_sources_are_counted_after_the_first_ones() -> None:
    audit = sample.audit()
    audit["sources"] = [audit["sources"][0] | {"source": f"s{n}"} for n in range(15)]
    lines = audit_lines(audit)
    assert "  and 5 more" in lines
    assert not any(line.startswith("  s10") for line in lines)


def test_bars_are_as_long_as_the_bins_are_full() -> None:
    audit = sample.audit()
    audit["lengths"] += [{"from": 5121, "to": 6000, "rows": 0}]
    bars = [line for line in audit_lines(audit) if "–" in line]
    assert [line.count("█") for line in bars] == [8, 40, 21, 5, 0]
    assert "5121–6000   0" in bars[-1]


def test_leakage_that_was_left_out_is_told_by_what_was_the_same() -> None:
    audit = sample.audit()
    audit["leakage"]["left_out"] = {"exact": 3, "normalized": 0, "conversation": 2}
    text = " ".join(" ".join(audit_lines(audit)).split())
    assert "none; left out of training: 3 equal to one, 2 of the same conversation" in text
    audit["leakage"]["remaining"]["exact"] = 1
    assert any("1 row!" in line for line in audit_lines(audit))


def test_a_name_cannot_steer_the_terminal() -> None:
    audit = sample.audit()
    hostile = "a\x1b[2J\x07\u202eb\nc"
    audit["sources"][0] |= {"source": hostile, "format": "x"}
    audit["stop_tokens"] = {hostile: 3}
    audit["warnings"] = [hostile]
    for line in audit_lines(audit):
        assert not any(character in line for character in "\x1b\x07\u202e\n")

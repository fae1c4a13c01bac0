"""The example dataset keeps the schema and the languages that the examples rely on."""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).resolve().parents[1] / "examples" / "multilingual-thinking.jsonl"
KEYS = ["reasoning_language", "developer", "user", "analysis", "final", "messages"]
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
# Frequent words of two letters or more; "è", "é", "y" and "o" are letters in formulas too.
FREQUENT_WORDS = {
    "English": "the is are and it that of with this to there which its",
    "French": "le la les est et il elle donc une un du des pas sont de en se à",
    "Spanish": "el la los las es una un con del hay son de en se que por lo",
    "German": "der die das und ist ich den dem es also man ein eine sind vier auf mit",
    "Italian": "il la gli le di che una un sono per si del della in più quindi",
    "Portuguese": "os as uma um do da não em são dos de que com mais na no ou",
}


def read_rows() -> list[dict[str, Any]]:
    lines = DATA.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return read_rows()


def assistant_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [m for m in row["messages"] if m["role"] == "assistant"]


def words_of(text: str) -> Counter[str]:
    return Counter(re.findall(r"[^\W\d_]+", text.lower()))


def hits(words: Counter[str], language: str) -> int:
    return sum(words[word] for word in FREQUENT_WORDS[language].split())


def test_the_file_is_plain_utf8_with_unix_line_ends() -> None:
    raw = DATA.read_bytes()
    assert raw.endswith(b"\n")
    assert b"\r" not in raw
    assert b"\n\n" not in raw
    assert b"\\u" not in raw
    raw.decode("utf-8")


def test_every_row_holds_the_schema(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert list(row) == KEYS
        for key in KEYS[:-1]:
            assert isinstance(row[key], str)
            assert row[key] == row[key].strip() != ""
        assert len(row["messages"]) % 2 == 1
        roles = [m["role"] for m in row["messages"]]
        exchanges = len(row["messages"]) // 2
        assert exchanges >= 1
        assert roles == ["system"] + ["user", "assistant"] * exchanges
        for message in row["messages"]:
            assert list(message) == ["role", "content", "thinking"]
            assert message["content"] == message["content"].strip() != ""
            if message["role"] == "assistant":
                assert message["thinking"] == message["thinking"].strip() != ""
            else:
                assert message["thinking"] is None


def test_there_are_enough_rows_of_every_language(rows: list[dict[str, Any]]) -> None:
    counts = Counter(row["reasoning_language"] for row in rows)
    assert set(counts) == {"Japanese", *FREQUENT_WORDS}
    assert len(rows) >= 104
    assert min(counts.values()) >= 12
    assert counts["Japanese"] >= 24


def test_languages_alternate_through_the_file(rows: list[dict[str, Any]]) -> None:
    languages = [row["reasoning_language"] for row in rows]
    assert all(one != following for one, following in pairwise(languages))


def test_the_system_turn_asks_for_the_reasoning_language(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        asked = f"reasoning language: {row['reasoning_language']}\n\n{row['developer']}"
        assert row["messages"][0]["content"] == asked


def test_the_columns_repeat_the_first_question_and_the_last_answer(
    rows: list[dict[str, Any]],
) -> None:
    for row in rows:
        assert row["user"] == row["messages"][1]["content"]
        assert row["analysis"] == row["messages"][-1]["thinking"]
        assert row["final"] == row["messages"][-1]["content"]


def test_japanese_thinking_is_mostly_kana_and_kanji(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["reasoning_language"] == "Japanese":
            for turn in assistant_turns(row):
                letters = re.sub(r"\s", "", turn["thinking"])
                assert len(CJK.findall(letters)) > 0.5 * len(letters), turn["thinking"]
                assert re.search(r"[\u3040-\u309f]", letters), turn["thinking"]


def test_other_thinking_uses_frequent_words_of_its_language(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        language = row["reasoning_language"]
        if language != "Japanese":
            for turn in assistant_turns(row):
                assert not CJK.search(turn["thinking"]), turn["thinking"]
                words = words_of(turn["thinking"])
                own = hits(words, language)
                assert own > 0, turn["thinking"]
                assert own == max(hits(words, other) for other in FREQUENT_WORDS), turn["thinking"]


def test_many_rows_ask_in_another_language_than_they_reason_in(
    rows: list[dict[str, Any]],
) -> None:
    def question_is_in_reasoning_language(row: dict[str, Any]) -> bool:
        if row["reasoning_language"] == "Japanese":
            return re.search(r"[\u3040-\u309f]", row["user"]) is not None
        words = words_of(row["user"])
        scores = {language: hits(words, language) for language in FREQUENT_WORDS}
        return scores[row["reasoning_language"]] == max(scores.values())

    different = [row for row in rows if not question_is_in_reasoning_language(row)]
    assert len(different) >= 30


def test_several_rows_hold_two_or_three_exchanges(rows: list[dict[str, Any]]) -> None:
    exchanges = Counter(len(assistant_turns(row)) for row in rows)
    assert set(exchanges) == {1, 2, 3}
    assert exchanges[2] + exchanges[3] >= 14


def test_no_question_and_no_thinking_occurs_twice(rows: list[dict[str, Any]]) -> None:
    messages = [message for row in rows for message in row["messages"]]
    questions = Counter(m["content"] for m in messages if m["role"] == "user")
    thoughts = Counter(m["thinking"] for m in messages if m["role"] == "assistant")
    assert [text for text, times in (questions + thoughts).items() if times > 1] == []


def test_rows_are_short_enough_for_a_small_model(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        text = "".join(m["content"] + (m["thinking"] or "") for m in row["messages"])
        wide = len(re.findall(r"[\u2e80-\uffff]", text))
        # About 1.7 tokens a Japanese character and three latin characters a token.
        assert 1.7 * wide + (len(text) - wide) / 3 < 450, row["user"]

"""The language of a reasoning, and the one that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from job.languages import LANGUAGES, asked_language, reasoning_language

ROWS = Path(__file__).parent.parent / "examples" / "multilingual-thinking.jsonl"


@pytest.mark.parametrize(
    ("role", "text", "code"),
    [
        ("system", "reasoning language: French\n\nYou are a helpful teacher.", "fr"),
        ("system", "Be brief.\nReasoning Language: japanese", "ja"),
        ("developer", "reasoning language: de", "de"),
        ("system", "You are a helpful teacher.", None),
        ("system", "reasoning language: Klingon", None),
        ("user", "reasoning language: French", None),
    ],
)
def test_the_language_asked_for_is_read_from_the_prompt(
    role: str, text: str, code: str | None
) -> None:
    assert asked_language([{"role": role, "content": text}]) == code


def test_every_example_row_reasons_in_the_language_it_names() -> None:
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    assert len({row["reasoning_language"] for row in rows}) >= 7
    for row in rows:
        asked = LANGUAGES[row["reasoning_language"].lower()]
        assert reasoning_language(row["analysis"], asked)["as_asked"], row["analysis"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("We need to solve the equation with Newton's method.", "en"),
        ("まず方程式を書き直します。", "ja"),
        ("我们先把方程改写一下。", "zh"),
        ("방정식을 다시 씁니다.", "ko"),
        ("السؤال عن العاصمة.", "ar"),
        ("सवाल राजधानी के बारे में है।", "hi"),
        ("x^5 + 3x^4 = 13", None),
        ("", None),
    ],
)
def test_a_language_is_known_by_its_script_and_words(text: str, code: str | None) -> None:
    assert reasoning_language(text, None)["code"] == code


def test_a_mixed_reasoning_is_told_with_its_shares() -> None:
    french = "Nous devons trouver la réponse avec une méthode simple."
    found = reasoning_language(f"{french} So the answer is six.\nx = 6", "fr")
    assert found["as_asked"]
    assert 0.6 < found["share"] == found["asked_share"] < 0.9
    english = reasoning_language(f"{french} So the answer is six.\nx = 6", "en")
    assert not english["as_asked"]
    assert english["asked_share"] == pytest.approx(1 - found["share"], abs=0.01)


def test_no_reasoning_is_not_as_asked_and_not_judged_when_nothing_was_asked() -> None:
    assert reasoning_language("", "fr")["as_asked"] is False
    assert reasoning_language("", None)["as_asked"] is None

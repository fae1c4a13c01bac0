from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.data.mask.control import Hidden, any_of, is_control, starts

SHORT = st.text("<|ab>[\n.*", min_size=1, max_size=5)


@given(texts=st.sets(SHORT, max_size=8), text=st.text("<|ab>[\n.*", max_size=30))
def test_the_longest_of_the_texts_matches_wherever_one_begins(texts, text):
    longest_first = sorted(texts, key=len, reverse=True)
    plain = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
    assert any_of(texts).findall(text) == plain.findall(text)


@given(texts=st.sets(SHORT, min_size=1, max_size=8), text=st.text("<|ab>[\n.*", max_size=30))
def test_what_is_hidden_comes_back_and_nothing_of_it_is_whole_meanwhile(texts, text):
    pattern = any_of(texts)
    hidden = Hidden(pattern, iter("①②③④⑤⑥⑦⑧⑨"))
    ((key, values),) = hidden.hide({text: [text, 1, None]}).items()
    assert not pattern.search(key)
    assert hidden.show(key) == text
    assert values == [key, 1, None]


def test_a_text_inside_another_is_found_too():
    assert list(starts(any_of(["<a>", "a><b", "<b>"]), "<a><b>")) == [0, 1, 3]


@pytest.mark.parametrize(
    ("token", "special", "expected"),
    [
        ("<|im_end|>", True, True),
        ("<|im_end|>", False, True),
        ("<｜User｜>", False, True),
        ("[INST]", False, True),
        ("<unused7>", False, True),
        ("<think>", False, True),
        ("</tool_call>", False, True),
        ("<end_of_turn>", False, True),
        ("<table>", False, False),
        ("</h1>", False, False),
        ("<table>", True, True),
        ("\n\n", False, False),
        ("  ", True, False),
        ("東京", False, False),
    ],
)
def test_control_tokens_are_told_from_frequent_texts(token, special, expected):
    assert is_control(token, special, source="") == expected


def test_a_tag_that_the_template_writes_is_a_control_token():
    assert is_control("<table>", special=False, source="{{ '<table>' + message.content }}")

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.data.pools.identity import SIZE, conversation, exact, folded, normalized
from tests.data.examples import WEATHER, assistant, call, row, system, user

ROW = row(system("Be brief."), user("What is 2 + 2?"), assistant("Four.", thinking="2 + 2 = 4"))
TEXT = row(user("x"), assistant("y"))
TEXT = replace(TEXT, messages=None, text="A text to continue.")


def alike(one, other):
    """In what two rows are the same, by the names of the digests."""
    return {f.__name__ for f in (exact, normalized, conversation) if f(one) == f(other)}


ALL = {"exact", "normalized", "conversation"}


def test_where_a_row_stands_makes_no_difference():
    moved = replace(ROW, source="other.jsonl", number=99, format="sharegpt", language="French")
    assert alike(ROW, moved) == ALL
    assert all(len(f(ROW)) == SIZE for f in (exact, normalized, conversation))


@pytest.mark.parametrize(
    "other",
    [
        row(system("BE  brief."), user("what is 2 + 2?\n"), *ROW.messages[2:]),
        row(*ROW.messages[:2], assistant("ＦＯＵＲ.", thinking="2 + 2 =\t4")),
    ],
)
def test_case_spaces_and_forms_of_characters_make_no_other_words(other):
    assert alike(ROW, other) == {"normalized", "conversation"}


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        (row(*ROW.messages[:2], assistant("Four.")), {"conversation"}),
        (row(*ROW.messages, user("Sure?"), assistant("Yes.")), {"conversation"}),
        (row(*ROW.messages[:2], assistant("Five.", thinking="2 + 2 = 4")), set()),
        (row(system("Be long."), *ROW.messages[1:]), set()),
        (row(*ROW.messages[1:]), set()),
        (row(*ROW.messages, reasoning_effort="high"), {"normalized", "conversation"}),
        (row(*ROW.messages, context=2), {"normalized", "conversation"}),
        (row(*ROW.messages, rejected=(assistant("Five."),)), {"conversation"}),
    ],
)
def test_what_else_two_rows_may_share(other, shared):
    assert alike(ROW, other) == shared


def test_other_later_turns_are_the_same_conversation():
    one = row(*ROW.messages, user("And 3 + 3?"), assistant("Six."))
    other = row(*ROW.messages, user("And 3 + 3?"), assistant("It is six."), user("ok"))
    assert alike(one, other) == {"conversation"}


def test_a_greeting_is_not_yet_a_conversation():
    greeting = assistant("Hello! How can I help?")
    one = row(greeting, user("What is 2 + 2?"), assistant("Four."))
    other = row(greeting, user("What is 3 + 3?"), assistant("Six."))
    assert alike(one, other) == set()


def test_calls_of_tools_are_said_too():
    other = (WEATHER[0], assistant("", tool_calls=[call("weather", city="Bergen")]), *WEATHER[2:])
    assert alike(row(*WEATHER), row(*other)) == set()
    assert alike(row(*WEATHER), row(*WEATHER[:2], *WEATHER[2:3], assistant("No."))) == {
        "conversation"
    }


def test_rejected_answers_of_a_preference_row_count():
    one, other = (row(*ROW.messages, rejected=(assistant(text),)) for text in ("Five.", "Six."))
    assert alike(one, other) == {"conversation"}


def test_text_is_the_same_as_a_whole_only():
    assert alike(TEXT, replace(TEXT, text="a TEXT to  continue.")) == {"normalized", "conversation"}
    assert alike(TEXT, replace(TEXT, text="A text to continue. More.")) == set()
    assert alike(TEXT, row(user(TEXT.text), assistant(""))) == set()


TEXTS = st.text(max_size=30)
MESSAGES = st.lists(
    st.builds(
        lambda role, content, thinking: (
            {"role": role, "content": content} | ({"thinking": thinking} if thinking else {})
        ),
        st.sampled_from(["system", "user", "assistant", "tool"]),
        TEXTS,
        TEXTS,
    ),
    min_size=1,
    max_size=5,
)


@given(MESSAGES, st.sampled_from([str.upper, str.lower, lambda t: f" {t}\n"]))
def test_rows_written_otherwise_are_equal_when_normalised_and_then_one_conversation(
    messages, written
):
    changed = [{**message, "content": written(message["content"])} for message in messages]
    if [folded(m["content"]) for m in messages] == [folded(m["content"]) for m in changed]:
        assert {"normalized", "conversation"} <= alike(row(*messages), row(*changed))
    else:
        assert normalized(row(*messages)) != normalized(row(*changed))


@given(TEXTS, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_folding_ignores_composition_and_is_stable(text, form):
    assert folded(unicodedata.normalize(form, text)) == folded(text)
    assert folded(folded(text)) == folded(text)


@given(MESSAGES, MESSAGES)
def test_other_words_are_other_rows(one, other):
    same = one == other
    assert (exact(row(*one)) == exact(row(*other))) == same

from __future__ import annotations

import re
from pathlib import Path

import pytest

from job.data.read import conversations, formats, preferences
from job.data.read.formats import FORMATS, read_rows
from job.data.read.recognise import READ
from job.errors import DataError
from job.spec import sources

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_columns_that_fit_several_formats_ask_for_the_one_meant(write_rows):
    path = write_rows([{"instruction": "a", "output": "b", "text": "a b"}])
    with pytest.raises(DataError, match="format=alpaca or format=text"):
        read_rows([path], None, "demo")
    assert read_rows([path], "alpaca", "demo")[0] == "alpaca"


def test_columns_that_fit_no_format_list_what_each_needs(write_rows):
    with pytest.raises(
        DataError, match=r"no known format fits its columns \(answer, question\)"
    ) as e:
        read_rows([write_rows([{"question": "a", "answer": "b"}])], None, "demo")
    assert "alpaca needs instruction, output" in e.value.problems
    assert len(e.value.problems) == 7
    assert "Rename question to prompt and answer to completion." in e.value.message


@pytest.mark.parametrize(
    ("columns", "advice"),
    [
        ("Prompt completion", "Rename 'Prompt' to prompt."),
        ("instruction response", "Rename instruction to prompt and response to completion."),
        ("prompt response", "Rename response to completion."),
        ("dialogue topic", "Rename dialogue to messages"),
        ("article date", "Rename article to text"),
    ],
)
def test_columns_that_come_near_are_answered_with_what_to_rename(write_rows, columns, advice):
    path = write_rows([dict.fromkeys(columns.split(), "x")])
    with pytest.raises(DataError) as caught:
        read_rows([path], None, "demo")
    assert advice in caught.value.message


def test_a_format_that_was_asked_for_names_the_columns_that_are_missing(write_rows):
    path = write_rows([{"instruction": "a", "answer": "b"}])
    with pytest.raises(DataError) as caught:
        read_rows([path], "alpaca", "demo")
    assert "needs the columns instruction, output; missing: output" in caught.value.message
    assert "there are: answer, instruction" in caught.value.message


def test_other_columns_change_nothing(write_rows):
    record = {"prompt": "Hi", "completion": "Hello", "id": 7, "meta": {"a": [1]}, "score": None}
    _, (row,) = read_rows([write_rows([record])], None, "demo")
    assert list(row.messages) == CHAT


def test_every_column_that_a_parser_reads_is_read_from_parquet_too():
    source = "".join(
        Path(module.__file__).read_text() for module in (conversations, preferences, formats)
    )
    asked = set(re.findall(r'record\.get\("(\w+)"\)', source))
    assert {"system", "tools", "input", "reasoning_effort", "reasoning_language"} <= asked <= READ


def test_the_formats_are_those_of_the_spec():
    assert tuple(FORMATS) == sources.FORMATS


def test_an_unknown_format_name_lists_the_known_ones(write_rows):
    with pytest.raises(
        DataError, match="format=chatml is unknown; known are multilingual-thinking"
    ):
        read_rows([write_rows([{"text": "a"}])], "chatml", "demo")


@pytest.mark.parametrize("beside", [{}, {"messages": CHAT}, {"prompt": "Hi", "completion": "Yo"}])
def test_rows_with_chosen_and_rejected_are_preferences_whatever_else_they_hold(write_rows, beside):
    pair = {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"}
    name, (row,) = read_rows([write_rows([pair | beside])], None, "demo")
    assert (name, list(row.messages), row.context) == ("preference", CHAT, 1)
    assert row.rejected == ({"role": "assistant", "content": "Go away"},)

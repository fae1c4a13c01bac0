"""One example for each turn of the assistant, so that no reasoning is lost."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given, settings

from tests.data import families
from tests.data.examples import (
    TALK,
    WEATHER,
    assistant,
    call,
    encode_all,
    row,
    tool,
    trained_runs,
    user,
)
from tests.data.talk import CLEAN, conversations

tokenizer_of = lru_cache(families.stand_in)


def expand(family, given_row, **changed):
    (found,) = encode_all(tokenizer_of(family), [given_row], expand_turns=True, **changed)
    return found


def runs(family, examples):
    """The trained text of each example, which is in one piece."""
    found = [trained_runs(tokenizer_of(family), example) for example in examples]
    assert all(len(pieces) == 1 for pieces in found)
    return [pieces[0] for pieces in found]


@pytest.mark.parametrize(
    ("family", "first", "second"),
    [
        (
            "gptoss",
            "<|channel|>analysis<|message|>A greeting.<|end|><|start|>assistant"
            "<|channel|>final<|message|>Hello<|return|>",
            "<|channel|>analysis<|message|>It ends.<|end|><|start|>assistant"
            "<|channel|>final<|message|>See you<|return|>",
        ),
        (
            "qwen3",
            "<think>\nA greeting.\n</think>\n\nHello<|im_end|>",
            "<think>\nIt ends.\n</think>\n\nSee you<|im_end|>",
        ),
        (
            "llama3",  # keeps all thinking, and gives as many examples
            "<think>\nA greeting.\n</think>\n\nHello<|eot_id|>",
            "<think>\nIt ends.\n</think>\n\nSee you<|eot_id|>",
        ),
    ],
)
def test_each_turn_is_trained_with_its_reasoning_in_an_example_of_its_own(family, first, second):
    examples = expand(family, row(*TALK))
    assert [example.turn for example in examples] == [1, 3]
    assert runs(family, examples) == [first, second]
    assert [example.dropped_thinking for example in examples] == [0, 0]
    assert all(example.reasoning for example in examples)
    assert "Bye" not in tokenizer_of(family).decode(examples[0].input_ids)
    assert "Hello" in tokenizer_of(family).decode(examples[1].input_ids)


def test_without_it_a_row_is_one_example():
    (found,) = encode_all(tokenizer_of("gptoss"), [row(*TALK)])
    assert [example.turn for example in found] == [0]


def test_the_reasoning_of_calls_is_shown_until_the_answer_comes():
    turns = (
        user("Both?"),
        assistant("", "First.", tool_calls=[call("weather")]),
        {"role": "tool", "name": "weather", "content": "clear"},
        assistant("", "Second.", tool_calls=[call("clock")]),
        {"role": "tool", "name": "clock", "content": "12:00"},
        assistant("Clear at noon.", "Third."),
    )
    examples = expand("gptoss", row(*turns))
    assert [example.turn for example in examples] == [1, 3, 5]
    thoughts = [
        [thought for thought in ("First.", "Second.", "Third.") if thought in text]
        for text in (tokenizer_of("gptoss").decode(example.input_ids) for example in examples)
    ]
    assert thoughts == [["First."], ["First.", "Second."], ["Third."]]


def test_the_calls_of_one_message_are_one_example():
    calls = [call("weather"), call("clock")]
    turns = (
        user("Both?"),
        assistant("", "Two.", tool_calls=calls),
        {"role": "tool", "name": "weather", "content": "clear"},
        {"role": "tool", "name": "clock", "content": "12:00"},
        assistant("Clear at noon."),
    )
    examples = expand("gptoss", row(*turns, tools=(tool("weather"), tool("clock"))))
    assert [example.turn for example in examples] == [1, 4]
    assert [len(example.stops) for example in examples] == [2, 1]


def test_turns_of_a_given_prompt_are_no_examples_and_their_lost_reasoning_counts():
    (only,) = expand("gptoss", row(*TALK, context=3))
    assert only.turn == 3
    assert only.dropped_thinking == 1


def test_a_turn_without_a_trained_token_is_no_example():
    examples = expand("qwen3", row(*WEATHER), train_on="final")
    assert [example.turn for example in examples] == [3]


def test_a_row_without_a_trained_token_is_one_example_that_shows_it():
    (only,) = expand("qwen3", row(*WEATHER[:2]), train_on="final")
    assert only.trained == 0


def test_with_all_tokens_trained_each_example_is_trained_as_a_whole():
    for example in expand("qwen3", row(*TALK), train_on="all"):
        assert example.labels == example.input_ids


def test_one_bad_turn_makes_the_row_bad():
    found = expand("gemma", row(user("a"), assistant("b"), user("c"), user("d"), assistant("e")))
    assert "roles must alternate" in found.what


@pytest.mark.parametrize("family", ["gptoss", "qwen3", "qwen2_5", "cohere2"])
def test_an_example_is_what_its_beginning_alone_would_be(family):
    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(messages=conversations(CLEAN, tools=family != "cohere2"))
    def check(messages):
        tokenizer, tools = tokenizer_of(family), (tool("weather"),)
        examples = expand(family, row(*messages, tools=tools))
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        assert [example.turn for example in examples] == turns
        for example in examples:
            beginning = row(*messages[: example.turn + 1], tools=tools, context=example.turn)
            ((alone,),) = encode_all(tokenizer, [beginning])
            assert (example.input_ids, example.labels) == (alone.input_ids, alone.labels)

    check()

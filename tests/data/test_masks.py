"""What is trained, for real chat templates, against references that find it by other means."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given, settings

from job.data.mask.encode import IGNORED
from tests.data import families, oracle
from tests.data.examples import (
    CLOCK,
    WEATHER,
    assistant,
    encode,
    rendered,
    row,
    tool,
    trained_runs,
    user,
)
from tests.data.talk import CLEAN, conversations

tokenizer_of = lru_cache(families.stand_in)
sentencepiece_of = lru_cache(families.sentencepiece)
SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
TOOLS = (tool("weather"),)


def trained(found):
    return [index for index, label in enumerate(found.labels) if label != IGNORED]


def in_words_of(template, messages):
    """The conversation as its template takes it: stripped, with reasoning under its own name."""
    found = []
    for message in messages:
        message = dict(message, content=message["content"].strip())
        thinking = message.pop("thinking", "").strip()
        if thinking and template == "tags":
            message["content"] = f"<think>\n{thinking}\n</think>\n\n{message['content']}"
        elif thinking:
            message[template] = thinking
        found.append(message)
    return found


@pytest.mark.parametrize("family", oracle.TRL)
def test_masks_equal_the_generation_marks_of_trl_training_templates(family):
    tokenizer = tokenizer_of(family)
    strategy = conversations(
        CLEAN, tools=family in ("gptoss", "qwen2_5"), systems=family != "gemma"
    )

    @SETTINGS
    @given(messages=strategy)
    def check(messages):
        tools = TOOLS if any(m["role"] == "tool" for m in messages) else None
        said = in_words_of("thinking" if family == "gptoss" else "tags", messages)
        ids, expected = oracle.trl(tokenizer, family, said, tools and list(tools))
        found = encode(tokenizer, row(*messages, tools=tools))
        assert found.input_ids == ids
        assert trained(found) == expected

    check()


# family -> (stop token, how the template takes reasoning or "" for none, whether calls are drawn:
# Qwen 3.5's shows an earlier call otherwise once a later question is there).
INCREMENTAL = {
    "qwen3": ("<|im_end|>", "reasoning_content", True),
    "qwen3_think": ("<|im_end|>", "reasoning_content", False),
    "llama3_1": ("<|eot_id|>", "tags", True),
    "deepseek_v3": ("<｜end▁of▁sentence｜>", "", False),
    "mistral": ("</s>", "tags", False),
    "first": ("</s>", "tags", False),
    "always": ("</s>", "tags", False),
    "smollm2": ("<|im_end|>", "tags", False),
}


@pytest.mark.parametrize("family", INCREMENTAL)
def test_masks_equal_those_of_a_conversation_rendered_turn_by_turn(family, smollm2):
    stop, reasoning, calls = INCREMENTAL[family]
    tokenizer = smollm2 if family == "smollm2" else None
    if family in ("first", "always"):
        tokenizer = sentencepiece_of(family)
    tokenizer = tokenizer or tokenizer_of(family)
    systems = family not in ("mistral", "first", "always")

    @SETTINGS
    @given(messages=conversations(CLEAN, thinking=bool(reasoning), tools=calls, systems=systems))
    def check(messages):
        tools = TOOLS if any(m["role"] == "tool" for m in messages) else None
        said = in_words_of(reasoning, messages)
        ids, expected = oracle.incremental(tokenizer, said, stop, tools and list(tools))
        if family == "smollm2" and tokenizer.unk_token_id in ids:
            return  # a control character that SmolLM2 has no token for; test_encode.py has it
        found = encode(tokenizer, row(*messages, tools=tools))
        assert found.input_ids == ids
        assert trained(found) == expected

    check()


@pytest.mark.parametrize(
    ("family", "call", "after"),
    [
        (
            "gptoss",
            ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Oslo"}<|call|>',
            "<|channel|>final<|message|>Clear sky.<|return|>",
        ),
        (
            "qwen3",
            '<think>\n\n</think>\n\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}'
            "\n</tool_call><|im_end|>",
            "<think>\n\n</think>\n\nClear sky.<|im_end|>",
        ),
        (
            "llama3_1",
            '{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>',
            "Clear sky.<|eot_id|>",
        ),
        (
            "phi3",
            '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|end|>',
            "Clear sky.<|end|>",
        ),
    ],
)
def test_tool_calls_are_trained_and_results_are_not(family, call, after):
    tokenizer = tokenizer_of(family)
    given_row = row(*WEATHER, tools=TOOLS)
    runs = trained_runs(tokenizer, encode(tokenizer, given_row))
    # Qwen writes an empty reasoning block only where its template does for a given turn.
    assert [run.removeprefix("<think>\n\n</think>\n\n") for run in runs] == [
        text.removeprefix("<think>\n\n</think>\n\n") for text in (call, after)
    ]
    final = encode(tokenizer, given_row, train_on="final")
    assert [run.split("Clear")[0] for run in trained_runs(tokenizer, final)] == [""]


@pytest.mark.parametrize("family", families.FAMILIES)
def test_calls_results_and_schemas_reach_the_text_in_every_family(family):
    text = rendered(tokenizer_of(family), row(*CLOCK, tools=(tool("clock"),))).text
    schema, _, said = text.partition("What time is it?")
    assert "clock" in schema
    assert 0 <= said.find("clock") < said.find("12:00") < said.find("Noon.")


def test_the_prompt_part_of_a_prompt_completion_row_is_never_trained():
    turns = (user("a"), assistant("given"), user("b"), assistant("learnt"))
    tokenizer = tokenizer_of("qwen2_5")
    found = encode(tokenizer, row(*turns, context=3))
    assert trained_runs(tokenizer, found) == ["learnt<|im_end|>"]

from __future__ import annotations

from functools import lru_cache

import pytest

from job.data.mask.render import Renderer, render_prompt
from job.data.rows import BadRow, Row
from job.errors import DataError
from tests.data import families
from tests.data.examples import (
    TALK,
    WEATHER,
    assistant,
    call,
    options,
    rendered,
    row,
    system,
    tool,
    user,
)

tokenizer_of = lru_cache(families.stand_in)


@pytest.mark.parametrize(
    ("family", "printed"),
    [("gptoss", "Current date: 2024-02-29"), ("llama3_1", "Today Date: 29 Feb 2024")],
)
def test_the_template_prints_the_fixed_date(family, printed):
    said = row(user("Hi"), assistant("Hello"))
    assert printed in rendered(tokenizer_of(family), said, template_date="2024-02-29").text


def test_the_effort_of_a_row_wins_over_that_of_the_job():
    tokenizer, said = tokenizer_of("gptoss"), (user("Hi"), assistant("Hello"))
    job, own = (
        rendered(tokenizer, row(*said, reasoning_effort=effort), reasoning_effort="low").text
        for effort in (None, "high")
    )
    assert "Reasoning: low" in job
    assert "Reasoning: high" in own


@pytest.mark.parametrize(
    ("family", "mode"),
    [
        ("gptoss", "template:thinking"),
        ("qwen3", "template:reasoning_content"),
        ("qwen2_5", "think-tags"),
        ("deepseek_r1", "think-tags"),
    ],
)
def test_the_way_a_template_writes_reasoning_is_found_out(family, mode):
    assert Renderer(tokenizer_of(family), options()).mode == mode


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_reasoning_of_the_last_turn_is_in_the_text_of_every_family(family):
    found = rendered(tokenizer_of(family), row(*TALK))
    (start, end) = found.spans[-1]
    assert "It ends." in found.text[start:end]


@pytest.mark.parametrize(
    ("family", "dropped"), [("gptoss", 1), ("qwen3", 1), ("qwen2_5", 0), ("deepseek_r1", 0)]
)
def test_reasoning_of_earlier_turns_that_a_template_drops_is_counted(family, dropped):
    found = rendered(tokenizer_of(family), row(*TALK))
    assert found.dropped_thinking == dropped
    assert ("A greeting." in found.text) == (not dropped)


def test_reasoning_that_the_prompt_opens_is_trained_from_there():
    found = rendered(tokenizer_of("deepseek_r1"), row(*TALK[:2]))
    ((start, end),) = found.spans
    assert found.text[:start].endswith("<｜Assistant｜><think>\n")
    assert found.text[start:end] == "A greeting.\n</think>\n\nHello<｜end▁of▁sentence｜>"


def test_reasoning_beside_a_call_that_the_template_leaves_out_is_an_error():
    turns = (WEATHER[0], {**WEATHER[1], "thinking": "I need a tool."}, *WEATHER[2:])
    with pytest.raises(BadRow, match="leaves out its thinking") as caught:
        rendered(tokenizer_of("llama3_1"), row(*turns, tools=(tool("weather"),)))
    assert caught.value.column == "messages[1]"


def test_a_call_that_the_template_leaves_out_is_an_error():
    tokenizer = families.stand_in("qwen3")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "in message.tool_calls %}", "in message.tool_calls[:2] %}"
    )
    calls = WEATHER[1]["tool_calls"] * 3
    turns = (WEATHER[0], {**WEATHER[1], "tool_calls": calls}, *WEATHER[2:])
    with pytest.raises(BadRow, match="leaves out its call"):
        rendered(tokenizer, row(*turns, tools=(tool("weather"),)))


def test_a_conversation_that_the_template_refuses_is_an_error_in_its_words():
    with pytest.raises(BadRow, match="Conversation roles must alternate"):
        rendered(tokenizer_of("gemma"), row(user("a"), user("b"), assistant("c")))


@pytest.mark.parametrize("family", ["gemma", "mistral"])
def test_a_system_turn_that_a_template_does_not_know_begins_the_first_question(family):
    found = rendered(tokenizer_of(family), row(system("Be kind."), *TALK))
    assert found.folded
    assert "Be kind.\n\nHi" in found.text[: found.spans[0].start]
    assert not rendered(tokenizer_of(family), row(*TALK)).folded


def test_results_without_a_turn_of_their_own_follow_each_other_in_one_turn_of_the_user():
    calls = [call("weather", city="Oslo"), call("clock")]
    turns = (
        user("Weather and time?"),
        assistant("", tool_calls=calls),
        {"role": "tool", "name": "weather", "content": "clear"},
        {"role": "tool", "name": "clock", "content": "12:00"},
        assistant("Clear at noon."),
    )
    found = rendered(tokenizer_of("gemma"), row(*turns, tools=(tool("weather"), tool("clock"))))
    assert found.folded
    assert (
        "<start_of_turn>user\n<tool_response>\nclear\n</tool_response>\n"
        "<tool_response>\n12:00\n</tool_response><end_of_turn>"
    ) in found.text


def test_an_empty_result_is_a_result():
    turns = (*WEATHER[:2], {**WEATHER[2], "content": ""}, WEATHER[3])
    found = rendered(tokenizer_of("qwen3"), row(*turns))
    assert "<tool_response>\n\n</tool_response>" in found.text


def test_a_template_that_writes_no_stop_token_is_an_error():
    tokenizer = families.stand_in("qwen2_5")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(BadRow, match="no stop token"):
        rendered(tokenizer, row(*TALK))


def test_a_template_that_changes_what_is_said_is_an_error():
    tokenizer = families.stand_in("qwen2_5")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message.content + '<|im_end|>'", "message.content[:4] + '<|im_end|>'"
    )
    with pytest.raises(BadRow, match="chat template"):
        rendered(tokenizer, row(user("Hello you"), assistant("Hello me")))


def test_characters_that_serve_as_marks_may_stand_in_the_data():
    strange = "".join(map(chr, range(0x10F000, 0x10F010)))
    said = row(user(strange), assistant(f"a{strange}b", thinking=strange))
    found = rendered(tokenizer_of("qwen3"), said)
    ((start, end),) = found.spans
    assert found.text[start:end] == f"<think>\n{strange}\n</think>\n\na{strange}b<|im_end|>"


def test_text_rows_need_no_template_and_end_with_eos():
    tokenizer = families.stand_in("qwen2_5")
    tokenizer.chat_template = None
    text = Row(None, "Once upon a time", None, "c4", 1, format="text")
    found = rendered(tokenizer, text)
    assert found.text == "Once upon a time<|im_end|>"
    assert found.spans == ((0, len(found.text)),)


def test_a_pair_without_template_trains_the_completion_only():
    tokenizer = families.stand_in("qwen2_5")
    tokenizer.chat_template = None
    pair = row(user("2 + 2 = "), assistant("4"), is_pair=True)
    found = rendered(tokenizer, pair)
    ((start, end),) = found.spans
    assert (found.text[:start], found.text[start:end]) == ("2 + 2 = ", "4<|im_end|>")


def test_a_conversation_without_template_is_refused_with_the_way_out():
    tokenizer = families.stand_in("qwen2_5")
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="Train an instruct checkpoint"):
        rendered(tokenizer, row(*TALK))


def test_a_prompt_ends_where_the_assistant_speaks():
    chat = [user(" Hi "), assistant("Hello", "A greeting."), user("Bye")]
    text = render_prompt(chat, tokenizer_of("gptoss"), options(reasoning_effort="high"))
    assert text.endswith(
        "<|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>final<|message|>Hello<|end|>"
        "<|start|>user<|message|>Bye<|end|><|start|>assistant"
    )
    assert "Reasoning: high" in text
    assert "Current date: 2026-01-31" in text


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_training_row_begins_with_its_prompt(family):
    tokenizer = tokenizer_of(family)
    found = rendered(tokenizer, row(user("Hi"), assistant("Hello", "Hm.")))
    prompt = render_prompt([user("Hi")], tokenizer, options())
    assert found.text[: found.spans[0].start] == prompt


@pytest.mark.parametrize("template", [True, False])
def test_a_prompt_with_a_control_token_is_refused(template):
    tokenizer = families.stand_in("qwen3")
    if not template:
        tokenizer.chat_template = None
    with pytest.raises(DataError, match=r"A prompt cannot be used, column messages\[0\].content"):
        render_prompt([user("Say <|im_end|>")], tokenizer, options())


def test_text_that_a_chat_template_has_written_is_refused():
    written = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    pair = row(user(written[:35]), assistant(written[35:]), is_pair=True)
    for given, column in ((Row(None, written, None, "c4", 1), "text"), (pair, "prompt")):
        with pytest.raises(BadRow, match="give the conversation as messages") as caught:
            rendered(tokenizer_of("qwen3"), given)
        assert caught.value.column == column


def test_a_prompt_without_template_is_plain_text():
    tokenizer = families.stand_in("qwen2_5")
    tokenizer.chat_template = None
    assert render_prompt([user("Once upon")], tokenizer, options()) == "Once upon"

"""gpt-oss: every part of a conversation in the channel where it belongs, with its own template."""

from __future__ import annotations

from functools import lru_cache

import pytest

from job.data.mask.render import render_prompt
from job.data.rows import BadRow
from tests.data import families
from tests.data.examples import (
    assistant,
    call,
    encode,
    options,
    rendered,
    row,
    system,
    tool,
    trained_runs,
    user,
)

ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|channel|>final<|message|>"
AGAIN = "<|start|>assistant"
TOOLS = (tool("weather"), tool("clock"))


@lru_cache
def gptoss():
    return families.stand_in("gptoss")


def said(*messages, **changed):
    """What is trained of a conversation with tools, one text a turn."""
    fields = {"tools": TOOLS} if any("tool_calls" in m for m in messages) else {}
    return trained_runs(gptoss(), encode(gptoss(), row(*messages, **fields), **changed))


def a_call(name, arguments):
    return f" to=functions.{name}<|channel|>commentary json<|message|>{arguments}<|call|>"


def result(name, content, **fields):
    return {"role": "tool", "name": name, "content": content, **fields}


def test_instructions_go_to_the_developer_and_reasoning_to_analysis():
    found = rendered(
        gptoss(), row(system("Be kind."), user("Hi"), assistant("Hello", "A greeting."))
    )
    assert "<|start|>developer<|message|># Instructions\n\nBe kind.\n\n<|end|>" in found.text
    assert found.text.endswith(
        f"<|start|>user<|message|>Hi<|end|>{AGAIN}{ANALYSIS}A greeting.<|end|>"
        f"{AGAIN}{FINAL}Hello<|return|>"
    )


def test_the_last_turn_ends_in_return_and_earlier_ones_in_end():
    runs = said(user("a"), assistant("b"), user("c"), assistant("d"), user("e"), assistant("f"))
    assert runs == [f"{FINAL}b<|end|>", f"{FINAL}d<|end|>", f"{FINAL}f<|return|>"]


def test_reasoning_of_an_earlier_turn_is_left_out_counted_and_in_no_other_channel():
    turns = (user("a"), assistant("b", "first thought"), user("c"), assistant("d", "second"))
    found = encode(gptoss(), row(*turns))
    assert found.dropped_thinking == 1
    assert "first thought" not in gptoss().decode(found.input_ids)
    assert said(*turns)[-1] == f"{ANALYSIS}second<|end|>{AGAIN}{FINAL}d<|return|>"


def test_an_answer_stays_in_its_channel_with_a_template_that_would_misplace_it():
    """Unsloth's tells an earlier turn that has reasoning in the channel of reasoning."""
    tokenizer = families.stand_in("gptoss_unsloth")
    turns = (user("a"), assistant("b", "first thought"), user("c"), assistant("d", "second"))
    found = encode(tokenizer, row(*turns))
    assert found.dropped_thinking == 1
    assert trained_runs(tokenizer, found) == [
        f"{FINAL}b<|end|>",
        f"{ANALYSIS}second<|end|>{AGAIN}{FINAL}d<|return|>",
    ]
    prompt = render_prompt(list(turns[:3]), tokenizer, options())
    assert f"{FINAL}b<|end|>" in prompt
    assert "first thought" not in prompt


def test_schemas_calls_and_results_are_told_as_the_template_tells_them():
    turns = (
        user("Weather?"),
        assistant("", tool_calls=[call("weather", city="Oslo")]),
        result("weather", "clear"),
        assistant("Clear sky."),
    )
    text = rendered(gptoss(), row(*turns, tools=TOOLS)).text
    assert "namespace functions {" in text
    assert "type weather = (_: {\ncity?: string,\n}) => any;" in text
    assert '<|start|>functions.weather to=assistant<|channel|>commentary<|message|>"clear"' in text
    assert said(*turns) == [a_call("weather", '{"city": "Oslo"}'), f"{FINAL}Clear sky.<|return|>"]


def test_a_schema_without_a_description_is_told_without_one():
    bare = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    text = rendered(gptoss(), row(user("Hi"), assistant("Hello"), tools=(bare,))).text
    assert "// \ntype f = () => any;" in text


BOTH = [call("weather", city="Oslo"), call("clock", zone="CET")]
CALLS = [a_call("weather", '{"city": "Oslo"}'), a_call("clock", '{"zone": "CET"}')]


@pytest.mark.parametrize("by_id", [False, True])
def test_several_calls_of_a_turn_are_made_one_after_the_other_each_with_its_result(by_id):
    calls, results = BOTH, [result("weather", "clear"), result("clock", "12:00")]
    if by_id:  # and the results in another order
        calls = [one | {"id": name} for one, name in zip(BOTH, "ab", strict=True)]
        results = [one | {"tool_call_id": name} for one, name in zip(results, "ab", strict=True)]
        results.reverse()
    turns = (user("Both?"), assistant("", tool_calls=calls), *results, assistant("Clear at noon."))
    assert said(*turns) == [*CALLS, f"{FINAL}Clear at noon.<|return|>"]
    text = rendered(gptoss(), row(*turns, tools=TOOLS)).text
    parts = [
        CALLS[0],
        '<|start|>functions.weather to=assistant<|channel|>commentary<|message|>"clear"',
        CALLS[1],
        '<|start|>functions.clock to=assistant<|channel|>commentary<|message|>"12:00"',
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_calls_in_turns_that_follow_each_other_get_their_results_too():
    turns = (
        user("Both?"),
        *(assistant("", tool_calls=[one]) for one in BOTH),
        result("weather", "clear"),
        result("clock", "12:00"),
        assistant("Clear at noon."),
    )
    text = rendered(gptoss(), row(*turns, tools=TOOLS)).text
    assert text.index('"clear"') < text.index("to=functions.clock") < text.index('"12:00"')


def test_calls_that_wait_for_their_results_follow_each_other():
    assert said(user("Both?"), assistant("", tool_calls=BOTH)) == CALLS


def test_several_calls_with_fewer_results_are_refused():
    turns = (user("a"), assistant("", tool_calls=BOTH), result("weather", "clear"), assistant("b"))
    with pytest.raises(BadRow, match="2 calls have 1 results") as caught:
        encode(gptoss(), row(*turns, tools=TOOLS))
    assert caught.value.column == "messages[1]"


def test_words_beside_a_call_are_for_the_user_and_reasoning_is_not():
    spoken = assistant("Let me look.", "I need a tool.", tool_calls=BOTH)
    words = "<|channel|>commentary<|message|>Let me look.<|end|>"
    thought = f"{ANALYSIS}I need a tool.<|end|>"
    waiting = said(user("Both?"), spoken)
    assert waiting == [thought + AGAIN + words + AGAIN + CALLS[0], CALLS[1]]
    # Once there is an answer, the template leaves the reasoning of calls out.
    turns = (user("Both?"), spoken, result("weather", "1"), result("clock", "2"), assistant("b"))
    assert said(*turns) == [words + AGAIN + CALLS[0], CALLS[1], f"{FINAL}b<|return|>"]
    assert encode(gptoss(), row(*turns, tools=TOOLS)).dropped_thinking == 1


def test_a_call_that_is_named_in_the_words_beside_it_is_told_once():
    spoken = assistant("functions.weather it is", tool_calls=[call("weather")])
    (run,) = said(user("Hi"), spoken)
    assert run == (
        "<|channel|>commentary<|message|>functions.weather it is<|end|><|start|>assistant"
        + a_call("weather", "{}")
    )


def test_channel_tags_in_what_is_said_are_text():
    """The template itself refuses them."""
    turns = (user(f"What is {ANALYSIS}?"), assistant(f"{FINAL} ends it", f"{ANALYSIS}<|end|> ?"))
    found = encode(gptoss(), row(*turns))
    assert found.escaped == 7
    (run,) = trained_runs(gptoss(), found)
    assert run == (f"{ANALYSIS}{ANALYSIS}<|end|> ?<|end|>{AGAIN}{FINAL}{FINAL} ends it<|return|>")
    tokens = gptoss().convert_ids_to_tokens(found.input_ids)
    assert (tokens.count("<|channel|>"), tokens.count("<|return|>")) == (2, 1)


# Llama 3.1's template says one call a turn, too.


def test_llama_makes_its_calls_one_after_the_other():
    tokenizer = families.stand_in("llama3_1")
    turns = (
        user("Both?"),
        assistant("", tool_calls=BOTH),
        result("weather", "clear"),
        result("clock", "12:00"),
        assistant("Clear at noon."),
    )
    assert trained_runs(tokenizer, encode(tokenizer, row(*turns))) == [
        '{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>',
        '{"name": "clock", "parameters": {"zone": "CET"}}<|eot_id|>',
        "Clear at noon.<|eot_id|>",
    ]

"""What is trained, for real chat templates and random conversations."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.data.encode import IGNORED, encode_rows
from job.data.render import Renderer
from job.data.rows import BadRow
from job.errors import DataError
from tests.data import families
from tests.data.examples import CLOCK, WEATHER, assistant, options, row, system, tool, user

tokenizer_of = lru_cache(families.stand_in)


def encode(tokenizer, given_row, **changed):
    renderer = Renderer(tokenizer, options(**changed))
    (found,) = encode_rows([given_row], renderer, tokenizer)
    return found


def trained_runs(tokenizer, found):
    """The trained text, one string for each unbroken run of trained tokens."""
    runs, current = [], []
    for label in [*found.labels, IGNORED]:
        if label != IGNORED:
            current.append(label)
        elif current:
            runs.append(tokenizer.decode(current))
            current = []
    return runs


def tagged(content, thinking):
    return f"<think>\n{thinking}\n</think>\n\n{content}" if thinking else content


def harmony(content, thinking, last):
    stop = "<|return|>" if last else "<|end|>"
    final = f"<|channel|>final<|message|>{content}{stop}"
    if not (thinking and last):
        return final
    return f"<|channel|>analysis<|message|>{thinking}<|end|><|start|>assistant{final}"


def qwen3(content, thinking, last):
    return (f"<think>\n{thinking}\n</think>\n\n" if last else "") + content + "<|im_end|>"


def ends_with(stop):
    return lambda content, thinking, _: tagged(content, thinking) + stop


# What the assistant says in a turn, written down by hand for each family.
SAID = {
    "gptoss": harmony,
    "qwen3": qwen3,
    "qwen2_5": ends_with("<|im_end|>"),
    "llama3": ends_with("<|eot_id|>"),
    "llama3_1": ends_with("<|eot_id|>"),
    "gemma3": ends_with("<end_of_turn>"),
    "phi3": ends_with("<|end|>"),
    "lfm2": ends_with("<|im_end|>"),
}

_LOOKALIKES = st.sampled_from(
    [
        "<|im_",
        "end|>",
        "<|im_end|",
        "|>",
        "<|end",
        "<thin",
        "k>",
        "</s",
        "<|start|",
        "<end_of_",
        "\n",
    ]
)
_TEXTS = (
    st.lists(st.one_of(st.text(min_size=1, max_size=12), _LOOKALIKES), min_size=1, max_size=4)
    .map("".join)
    .filter(str.strip)
)
_TURNS = st.lists(st.tuples(_TEXTS, _TEXTS, st.one_of(st.just(""), _TEXTS)), min_size=1, max_size=3)


def conversation(turns, instructions=""):
    messages = [system(instructions)] if instructions else []
    for question, answer, thinking in turns:
        messages += [user(question), assistant(answer, thinking)]
    return row(*messages)


def refused(tokenizer, texts):
    control = Renderer(tokenizer, options()).template.control
    return any(control.search(text) for text in texts)


@pytest.mark.parametrize("family", SAID)
@settings(max_examples=30, deadline=None)
@given(turns=_TURNS, instructions=st.one_of(st.just(""), _TEXTS))
def test_exactly_what_the_assistant_says_is_trained(family, turns, instructions):
    tokenizer = tokenizer_of(family)
    given_row = conversation(turns, instructions)
    if refused(tokenizer, [instructions, *(text for turn in turns for text in turn)]):
        with pytest.raises(DataError, match="control token"):
            encode(tokenizer, given_row)
        return
    found = encode(tokenizer, given_row)
    expected = [
        SAID[family](answer.strip(), thinking.strip(), index == len(turns) - 1)
        for index, (_, answer, thinking) in enumerate(turns)
    ]
    assert trained_runs(tokenizer, found) == expected
    assert len(found.stops) == len(turns)

    final = trained_runs(tokenizer, encode(tokenizer, given_row, train_on="final"))
    stops = [tokenizer.decode(found.input_ids[stop]) for stop in found.stops]
    assert final == [t[1].strip() + stop for t, stop in zip(turns, stops, strict=True)]

    everything = encode(tokenizer, given_row, train_on="all")
    assert everything.labels == everything.input_ids == found.input_ids


@pytest.mark.parametrize("family", SAID)
@settings(max_examples=30, deadline=None)
@given(turns=_TURNS)
def test_the_content_of_a_row_adds_no_control_token(family, turns):
    tokenizer = tokenizer_of(family)
    if refused(tokenizer, [text for turn in turns for text in turn]):
        return  # as the test above holds
    plain = [("a", "b", "c" if thinking else "") for _, _, thinking in turns]
    control_ids = set(tokenizer.added_tokens_decoder)
    said, bare = (
        [i for i in encode(tokenizer, conversation(t)).input_ids if i in control_ids]
        for t in (turns, plain)
    )
    assert said == bare


@settings(max_examples=60, deadline=None)
@given(turns=_TURNS)
def test_a_real_tokenizer_trains_exactly_the_answers(smollm2, turns):
    texts = [text.strip() for turn in turns for text in turn]
    unknown = any(smollm2.unk_token_id in smollm2(text).input_ids for text in texts)
    if unknown or refused(smollm2, texts):
        with pytest.raises(DataError, match=r"has no token|control token"):
            encode(smollm2, conversation(turns))
        return
    found = encode(smollm2, conversation(turns))
    assert trained_runs(smollm2, found) == [
        tagged(answer.strip(), thinking.strip()) + "<|im_end|>" for _, answer, thinking in turns
    ]


REFERENCE = (
    system("Be kind."),
    user("Hello?"),
    assistant("Hello!"),
    user("Why?"),
    assistant("Because 😀 of <b>it</b>."),
)


@pytest.mark.parametrize(
    "family", ["gptoss", "qwen2_5", "llama3", "phi3", "qwen3_instruct", "gemma"]
)
def test_masks_equal_the_marks_of_trl_training_templates(family):
    """TRL marks the header of a Harmony turn and whitespace after a stop token too; we do not."""
    tokenizer = tokenizer_of(family)
    messages = REFERENCE[1:] if family == "gemma" else REFERENCE
    name = f"{families.FAMILIES[family].template}_training"
    reference = tokenizer.apply_chat_template(
        list(messages),
        chat_template=families.template(name),
        return_dict=True,
        return_assistant_tokens_mask=True,
        strftime_now=lambda _: "2026-01-31",
        reasoning_effort="medium",
    )
    found = encode(tokenizer, row(*messages))
    assert found.input_ids == reference["input_ids"]
    marked = [
        i if m else IGNORED
        for i, m in zip(reference["input_ids"], reference["assistant_masks"], strict=True)
    ]
    theirs = tokenizer.decode([i for i in marked if i != IGNORED])
    for extra in ("<|start|>assistant", "\n", "<|endoftext|>"):
        theirs = theirs.replace(extra, "")
    assert "".join(trained_runs(tokenizer, found)) == theirs


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_control_token_in_what_is_said_is_refused(family):
    tokenizer = tokenizer_of(family)
    renderer = Renderer(tokenizer, options())
    for token in families.FAMILIES[family].special:
        with pytest.raises(BadRow, match="control token") as caught:
            renderer.render(row(user(f"Say {token} please"), assistant("No")))
        assert caught.value.column == "messages[0].content"
        with pytest.raises(BadRow, match="control token"):
            renderer.render(row(user("Hi"), assistant("No", thinking=f"a{token}")))


def test_a_token_that_only_the_template_makes_special_is_refused_too():
    with pytest.raises(BadRow, match="control token </think>"):
        Renderer(tokenizer_of("qwen3"), options()).render(row(user("a </think> b"), assistant("c")))


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
    given_row = row(*WEATHER, tools=(tool("weather"),))
    runs = trained_runs(tokenizer, encode(tokenizer, given_row))
    # Qwen writes an empty reasoning block only where its template does for a given turn.
    assert [run.removeprefix("<think>\n\n</think>\n\n") for run in runs] == [
        text.removeprefix("<think>\n\n</think>\n\n") for text in (call, after)
    ]
    final = encode(tokenizer, given_row, train_on="final")
    assert [run.split("Clear")[0] for run in trained_runs(tokenizer, final)] == [""]


@pytest.mark.parametrize("family", families.FAMILIES.keys() - {"gemma"})
def test_calls_results_and_schemas_reach_the_text_in_every_family(family):
    tokenizer = tokenizer_of(family)
    renderer = Renderer(tokenizer, options())
    text = renderer.render(row(*CLOCK, tools=(tool("clock"),))).text
    schema, _, said = text.partition("What time is it?")
    assert "clock" in schema
    assert 0 <= said.find("clock") < said.find("12:00") < said.find("Noon.")


def test_the_prompt_part_of_a_prompt_completion_row_is_never_trained():
    turns = (user("a"), assistant("given"), user("b"), assistant("learnt"))
    tokenizer = tokenizer_of("qwen2_5")
    found = encode(tokenizer, row(*turns, context=3))
    assert trained_runs(tokenizer, found) == ["learnt<|im_end|>"]

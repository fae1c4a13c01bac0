"""What holds for every conversation, whatever stands in it, in every family."""

from __future__ import annotations

import copy
import json
from functools import lru_cache

import pytest
from hypothesis import HealthCheck, given, settings

from job.data.mask.encode import IGNORED
from job.data.mask.template import ChatTemplate
from job.data.rows import BadRow, Row
from tests.data import families
from tests.data.examples import (
    assistant,
    encode,
    encode_all,
    options,
    row,
    tool,
    trained_runs,
    user,
)
from tests.data.talk import ANY, conversations

SETTINGS = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
TOOLS = (tool("weather"),)


@lru_cache
def tokenizer_of(family):
    kind = family.removeprefix("sentencepiece-")
    return families.stand_in(family) if kind == family else families.sentencepiece(kind)


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


def deepseek(content, thinking, _):
    """The prompt opens the reasoning."""
    said = tagged(content, thinking).removeprefix("<think>\n") if thinking else content
    return f"{said}<｜end▁of▁sentence｜>"


def ends_with(stop):
    return lambda content, thinking, _: tagged(content, thinking) + stop


# What the assistant says in a turn, written down by hand for each family.
SAID = {
    "gptoss": harmony,
    "gptoss_unsloth": harmony,
    "qwen3": qwen3,
    "qwen2_5": ends_with("<|im_end|>"),
    "qwen3_instruct": ends_with("<|im_end|>"),
    "llama3": ends_with("<|eot_id|>"),
    "llama3_1": ends_with("<|eot_id|>"),
    "gemma": ends_with("<end_of_turn>"),
    "gemma3": ends_with("<end_of_turn>"),
    "phi3": ends_with("<|end|>"),
    "lfm2": ends_with("<|im_end|>"),
    "deepseek_r1": deepseek,
    "deepseek_v3": deepseek,
    "cohere2": ends_with("<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"),
    "mistral": lambda content, thinking, _: f" {tagged(content, thinking)}</s>",
    "smollm2": ends_with("<|im_end|>"),
}


def answers(messages):
    return [m for m in messages if m["role"] == "assistant"]


@pytest.mark.parametrize("family", SAID)
def test_exactly_what_the_assistant_says_is_trained(family, smollm2):
    tokenizer = smollm2 if family == "smollm2" else tokenizer_of(family)

    @SETTINGS
    @given(messages=conversations(ANY, tools=False))
    def check(messages):
        given_row = row(*messages)
        (found,) = encode_all(tokenizer, [given_row])
        if isinstance(found, BadRow):  # SmolLM2 knows no control characters
            assert "has no token" in found.what
            assert family == "smollm2"
            return
        said = answers(messages)
        expected = [
            SAID[family](m["content"].strip(), m.get("thinking", "").strip(), m is said[-1])
            for m in said
        ]
        assert trained_runs(tokenizer, found[0]) == expected
        assert len(found[0].stops) == len(said)

        stops = [SAID[family]("\0", "", m is said[-1]).partition("\0")[2] for m in said]
        final = trained_runs(tokenizer, encode(tokenizer, given_row, train_on="final"))
        assert final == [m["content"].strip() + end for m, end in zip(said, stops, strict=True)]

        everything = encode(tokenizer, given_row, train_on="all")
        assert everything.labels == everything.input_ids == found[0].input_ids

    check()


def in_json(text):
    return json.dumps(text, ensure_ascii=False)[1:-1]


def twin(messages, in_call):
    """The same conversation with a plain word for each text, and what each word stands for."""
    words = {}

    def word(text):
        words[name := f"Qz{len(words)}zQ"] = text
        return name

    found = []
    for message in messages:
        message = dict(message)
        for key in message.keys() & {"content", "thinking"}:
            message[key] = word(message[key].strip()) if message[key] else ""
        if "tool_calls" in message:
            (call,) = message["tool_calls"]
            arguments = call["function"]["arguments"]
            arguments = arguments | {"city": word(in_call(arguments["city"]))}
            function = call["function"] | {"arguments": arguments}
            message["tool_calls"] = [call | {"function": function}]
        found.append(message)
    return found, words


def steering(tokenizer, found):
    """The control tokens of a row, each with whether it is trained."""
    control = set(ChatTemplate(tokenizer, options()).control_ids.values())
    pairs = zip(found.input_ids, found.labels, strict=True)
    return [(token, label != IGNORED) for token, label in pairs if token in control]


@pytest.mark.parametrize("family", [*families.FAMILIES, "sentencepiece-first"])
def test_no_text_steers_the_model_and_all_of_it_is_said(family):
    """A conversation is told like its twin of plain words, tool calls and results included."""
    tokenizer = tokenizer_of(family)
    in_call = str if family == "qwen3_think" else in_json  # its arguments stand between tags
    spaces = "▁" if family.startswith("sentencepiece") else ""  # it means a space there

    @SETTINGS
    @given(messages=conversations(ANY))
    def check(messages):
        tools = TOOLS if any(m["role"] == "tool" for m in messages) else None
        plain, words = twin(messages, in_call)
        found, other = (encode(tokenizer, row(*m, tools=tools)) for m in (messages, plain))
        assert steering(tokenizer, found) == steering(tokenizer, other)
        assert not other.escaped
        expected = trained_runs(tokenizer, other)
        for name, text in words.items():
            expected = [run.replace(name, text) for run in expected]
        given_runs = trained_runs(tokenizer, found)
        if spaces:
            expected = [run.replace(spaces, " ") for run in expected]
        assert given_runs == expected
        if tokenizer.bos_token_id is not None:
            assert found.input_ids.count(tokenizer.bos_token_id) <= 1
        assert (found.folded, found.dropped_thinking) == (other.folded, other.dropped_thinking)
        again, third = encode_all(
            tokenizer, [row(*plain, tools=tools), row(*messages, tools=tools)]
        )
        assert (again, third) == ([other], [found])

    check()


@pytest.mark.parametrize("family", ["qwen2_5", "llama3", "sentencepiece-first"])
def test_plain_text_is_read_as_it_stands(family):
    tokenizer = copy.deepcopy(tokenizer_of(family))
    control = ChatTemplate(tokenizer, options()).control
    tokenizer.chat_template = None  # a base model's
    eos = tokenizer.eos_token

    @SETTINGS
    @given(prompt=ANY, text=ANY)
    def check(prompt, text):
        pair = row(user(prompt), assistant(text), is_pair=True)
        rows = [Row(None, prompt + text, None, "c4", 1, format="text"), pair]
        for given_row, own, rest in zip(rows, (prompt + text, prompt), ("", text), strict=True):
            found = encode_all(tokenizer, [given_row])[0]
            tokens = control.findall(own)
            if len(tokens) > 1 and own.lstrip().startswith(tokens[0]):
                assert "give the conversation as messages" in found.what
                continue
            expected = own + rest + eos
            if family.startswith("sentencepiece"):  # ▁ is a space, and so is how a text begins
                expected = expected.replace("▁", " ").removeprefix(" ")
            assert tokenizer.decode(found[0].input_ids) == expected
            steered = steering(tokenizer, found[0])
            assert steered == [(tokenizer.eos_token_id, True)]

    check()

from __future__ import annotations

import json

import pytest

from job.data.read import conversations
from job.data.read.preferences import preference
from job.data.read.turns import ROLES, check_turns, read_turn, read_turns
from job.data.rows import BadRow

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}


def call(name: str, arguments: object = None, **more: object) -> dict:
    return {**more, "function": {"name": name, "arguments": arguments or {}}}


def calling(*calls: dict, **more: object) -> dict:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def result(content: str = "done", **more: object) -> dict:
    return {"role": "tool", "content": content, **more}


def read(*turns: dict) -> list[dict]:
    return list(check_turns(read_turns(list(turns), "messages"), "messages"))


@pytest.mark.parametrize(
    ("names", "role"),
    [
        ("system developer", "system"),
        ("user human Human prompter", "user"),
        ("assistant gpt GPT chatgpt bot model bing bard", "assistant"),
        ("tool observation function function_response tool_response", "tool"),
    ],
)
@pytest.mark.parametrize(("who", "said"), [("role", "content"), ("from", "value")])
def test_the_common_names_of_a_speaker_are_known_in_both_shapes(names, role, who, said):
    for name in names.split():
        assert read_turn({who: name, said: "x"}, "t") == {"role": role, "content": "x"}


@pytest.mark.parametrize("name", ["function_call", "tool_call"])
def test_a_turn_that_is_a_call_holds_one_or_a_list(name):
    one = {"name": "f", "arguments": {"x": 1}}
    two = [one, {"name": "g", "arguments": "{}"}]
    for value, names in ((one, ["f"]), (two, ["f", "g"])):
        turn = read_turn({"from": name, "value": json.dumps(value)}, "t")
        assert [call["function"]["name"] for call in turn["tool_calls"]] == names
        assert turn["tool_calls"][0]["function"]["arguments"] == {"x": 1}


@pytest.mark.parametrize("key", ["thinking", "reasoning_content", "reasoning"])
def test_reasoning_is_kept_under_any_of_its_names(key):
    turn = read_turn({**ANSWER, key: "Why not."}, "t")
    assert turn == {**ANSWER, "thinking": "Why not."}


def test_of_several_reasonings_the_first_named_is_kept():
    turn = {**ANSWER, "reasoning": "c", "reasoning_content": "b", "thinking": ""}
    assert read_turn(turn, "t")["thinking"] == "b"


def test_reasoning_stands_beside_calls():
    (_, turn, _, _) = read(USER, calling(call("f"), thinking="I need f."), result(), ANSWER)
    assert turn["thinking"] == "I need f."
    assert turn["content"] == ""


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": ""}]
    parts += [{"type": "output_text", "text": "b"}]
    assert read_turn({"role": "user", "content": parts}, "t")["content"] == "a\nb"


@pytest.mark.parametrize("kind", ["image_url", "image", "input_audio", "video", "file"])
def test_a_part_that_is_no_text_says_that_text_is_trained(kind):
    with pytest.raises(BadRow, match="this job trains text only") as caught:
        read_turn({"role": "user", "content": [{"type": kind, "text": "x"}]}, "t")
    assert caught.value.column == "t.content[0]"


def test_results_are_named_by_the_id_of_their_call():
    first, second = call("f", id="a"), call("g", id="b")
    results = result(tool_call_id="b"), result(tool_call_id="a")
    turns = read(USER, calling(first, second), *results, ANSWER)
    assert [turn["name"] for turn in turns[2:4]] == ["g", "f"]
    assert [turn["tool_call_id"] for turn in turns[2:4]] == ["b", "a"]


def test_an_id_that_is_used_again_means_the_newest_call():
    turns = read(
        *(USER, calling(call("f", id="a")), result(tool_call_id="a")),
        *(calling(call("g", id="a")), result(tool_call_id="a"), ANSWER),
    )
    assert [turn["name"] for turn in turns if turn["role"] == "tool"] == ["f", "g"]


def test_results_without_ids_are_named_in_the_order_of_the_calls():
    turns = read(
        *(USER, calling(call("f"), call("g")), result(), result()),
        *(calling(call("h")), calling(call("i")), result(), result(), ANSWER),
    )
    assert [turn["name"] for turn in turns if turn["role"] == "tool"] == ["f", "g", "h", "i"]


def test_a_result_keeps_the_name_that_it_has():
    turns = read(USER, calling(call("f")), result(name="other"), ANSWER)
    assert turns[2]["name"] == "other"


def test_a_result_may_answer_a_call_that_stands_in_the_text():
    turns = read(USER, {**ANSWER, "content": "<tool_call>…"}, result(), ANSWER)
    assert turns[2] == {"role": "tool", "content": "done"}


def test_a_result_may_be_empty():
    assert read(USER, calling(call("f")), result(""), ANSWER)[2]["content"] == ""


def test_the_older_function_call_is_a_tool_call():
    older = {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "f", "arguments": "{}"},
    }
    answered = {"role": "function", "name": "f", "content": "1"}
    turns = read(USER, older, answered, ANSWER)
    assert turns[1]["tool_calls"] == [
        {"type": "function", "function": {"name": "f", "arguments": {}}}
    ]
    assert turns[2] == {"role": "tool", "name": "f", "content": "1"}


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ((USER, result(), ANSWER), "column messages[1]: is a tool result, and no call comes"),
        (
            (USER, calling(call("f", id="a")), result(tool_call_id="b"), ANSWER),
            "column messages[2].tool_call_id: is the id of no call before it",
        ),
        ((USER, calling(call("f", "{"))), "messages[1].tool_calls[0].arguments: is not JSON"),
        ((USER, calling(call("f", "[1]"))), "arguments: is a list, not an object"),
        ((USER, calling({"name": "f"})), "arguments: is null, not an object"),
        ((USER, calling(call("f", {"x": float("nan")}))), "arguments: holds a value that JSON"),
        ((USER, calling(call("f", '{"x": NaN}'))), "arguments: holds a value that JSON"),
        ((USER, calling(call("f", {"x": b"bytes"}))), "arguments: holds a value that JSON"),
        ((USER, calling(call("f", '{"x":' + "[" * 500 + "]" * 500 + "}"))), "more than 100 levels"),
        ((USER, calling(call("f", "[" * 10**5))), "arguments: is not JSON"),
        ((USER, calling(call("f", {"x": "\ud800"}))), "arguments: holds half a surrogate"),
        (({**USER, "tool_calls": [call("f")]}, ANSWER), "only an assistant turn can have"),
        ((USER, {**ANSWER, "reasoning": {"x": 1}}), "messages[1].reasoning: is an object"),
        ((USER, {**ANSWER, "content": []}), "column messages[1].content: is empty"),
        ((USER, {**ANSWER, "content": ["x"]}), "content[0]: is not an object with a type"),
        ((USER, calling(call("f")), result(None), ANSWER), "messages[2].content: is null"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_column(turns, said):
    with pytest.raises(BadRow) as caught:
        read(*turns)
    assert said in caught.value.at("row 1")


def test_an_unknown_speaker_is_answered_with_the_known_ones():
    with pytest.raises(BadRow, match="must be one of system, developer, user, human") as caught:
        read_turn({"from": "wizard", "value": "x"}, "t")
    assert caught.value.column == "t.from"
    assert set(ROLES.values()) == {"system", "user", "assistant", "tool"}


def test_the_system_column_is_the_system_turn_and_not_a_second_one():
    system = {"role": "system", "content": "Be kind."}
    with_column = {"messages": [USER, ANSWER], "system": "Be kind."}
    with_both = {"messages": [system, USER, ANSWER], "system": "Be kind."}
    for record in (with_column, with_both):
        assert conversations.messages(record)["messages"] == (system, USER, ANSWER)
    with pytest.raises(BadRow, match="has two system turns"):
        conversations.messages({**with_both, "system": "Be rude."})


def test_lists_may_be_json_text():
    turns = json.dumps([USER, calling(call("f")), result(), ANSWER])
    tools = json.dumps([{"name": "f", "parameters": {}}])
    row = conversations.messages({"messages": turns, "tools": tools})
    assert row["messages"][1]["tool_calls"][0]["function"]["name"] == "f"
    assert row["tools"][0]["function"]["name"] == "f"
    history = json.dumps([["a", "b"]])
    row = conversations.alpaca({"instruction": "c", "output": "d", "history": history})
    assert [turn["content"] for turn in row["messages"]] == ["a", "b", "c", "d"]


LIKED, DISLIKED = ({"role": "assistant", "content": word} for word in ("Hello", "Go away"))
PREFERENCES = {
    "texts": {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
    "answers": {"prompt": [USER], "chosen": [LIKED], "rejected": [DISLIKED]},
    "conversations": {"chosen": [USER, LIKED], "rejected": [USER, DISLIKED]},
    "prompt said again": {
        "prompt": "Hi",
        "messages": [USER, LIKED],
        "chosen": [USER, LIKED],
        "rejected": [USER, DISLIKED],
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Hi"}],
        "chosen": {"from": "gpt", "value": "Hello"},
        "rejected": {"from": "gpt", "value": "Go away"},
    },
}


@pytest.mark.parametrize("shape", PREFERENCES)
def test_a_preference_row_is_prompt_and_chosen_with_rejected_beside(shape):
    row = preference(PREFERENCES[shape])
    assert (row["messages"], row["rejected"], row["context"]) == ((USER, LIKED), (DISLIKED,), 1)


def test_a_preference_row_may_have_a_system_column_and_reasoning():
    chosen = {**LIKED, "content": "<think>Kind.</think>Hello"}
    row = preference({**PREFERENCES["answers"], "chosen": [chosen], "system": "Be kind."})
    assert row["messages"][0] == {"role": "system", "content": "Be kind."}
    assert row["messages"][-1] == {**LIKED, "thinking": "Kind."}
    assert row["context"] == 2


def test_answers_of_several_turns_part_where_they_differ():
    again = [USER, ANSWER, USER]
    row = preference({"chosen": [*again, LIKED], "rejected": [*again, DISLIKED, USER, DISLIKED]})
    assert row["messages"] == (*again, LIKED)
    assert row["rejected"] == (DISLIKED, USER, DISLIKED)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rejected": [LIKED]}, "column rejected: is the same as chosen"),
        ({"rejected": None}, "column rejected: is null or missing"),
        ({"rejected": 3}, "column rejected: is a number, not text"),
        ({"prompt": None}, "column prompt: is null or missing"),
        ({"prompt": [USER, ANSWER]}, "column prompt: ends with an answer"),
        ({"rejected": [DISLIKED, USER]}, "prompt + rejected: the last turn is from the user"),
        ({"chosen": [USER, LIKED], "rejected": [{**USER, "content": "x"}, DISLIKED]},
         "column chosen: begins with another prompt"),
        ({"chosen": [USER, LIKED]}, "column chosen: begins with another prompt"),
        ({"rejected": [USER, DISLIKED]}, "column rejected: begins with another prompt"),
    ],
)  # fmt: skip
def test_a_preference_that_is_none_is_refused_with_its_column(changed, said):
    with pytest.raises(BadRow) as caught:
        preference({**PREFERENCES["answers"], **changed})
    assert said in caught.value.at("row 1")

from __future__ import annotations

import json
import pickle

import pyarrow
import pytest
from pyarrow import parquet

from job.data.read.formats import open_rows, read_rows
from job.data.rows import BadRow, Findings
from job.errors import DataError

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
REFERENCE = {
    "reasoning_language": "French",
    "developer": "You are kind.",
    "user": "Hi",
    "analysis": "Une salutation.",
    "final": "Bonjour",
    "messages": [
        {
            "role": "system",
            "content": "reasoning language: French\n\nYou are kind.",
            "thinking": None,
        },
        {"role": "user", "content": "Hi", "thinking": None},
        {"role": "assistant", "content": "Bonjour", "thinking": "Une salutation."},
    ],
}


def read_one(path, **options):
    name, rows = read_rows([path], options.get("format"), "demo")
    return name, rows[0]


@pytest.mark.parametrize(
    ("record", "name", "messages"),
    [
        ({"messages": CHAT}, "messages", CHAT),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Hi"},
                    {"from": "gpt", "value": "Hello"},
                ],
                "system": "Be kind.",
            },
            "sharegpt",
            [{"role": "system", "content": "Be kind."}, *CHAT],
        ),
        (
            {"instruction": "Translate", "input": "chat", "output": "cat", "history": [["a", "b"]]},
            "alpaca",
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "Translate\n\nchat"},
                {"role": "assistant", "content": "cat"},
            ],
        ),
        ({"prompt": "Hi", "completion": "Hello"}, "prompt-completion", CHAT),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, "prompt-completion", CHAT),
    ],
)
def test_each_conversation_format_is_recognised_and_read(write_rows, record, name, messages):
    found, row = read_one(write_rows([record]))
    assert (found, list(row.messages)) == (name, messages)
    assert (row.format, row.source, row.number) == (name, "demo", 1)


def test_the_reference_dataset_keeps_its_reasoning_as_thinking(write_rows):
    name, row = read_one(write_rows([REFERENCE]))
    assert name == "multilingual-thinking"
    assert row.messages[0]["content"].startswith("reasoning language: French")
    assert row.messages[-1] == {
        "role": "assistant",
        "content": "Bonjour",
        "thinking": "Une salutation.",
    }


def test_the_analysis_column_is_used_when_the_message_has_no_thinking(write_rows):
    messages = [*REFERENCE["messages"][:2], {"role": "assistant", "content": "Bonjour"}]
    _, row = read_one(write_rows([{**REFERENCE, "messages": messages}]))
    assert row.messages[-1]["thinking"] == "Une salutation."


def test_plain_text_is_read(write_rows):
    name, row = read_one(write_rows([{"text": " As it is. "}]))
    assert (name, row.text, row.messages) == ("text", " As it is. ", None)


def test_reasoning_in_think_tags_becomes_thinking(write_rows):
    answer = {"role": "assistant", "content": "<think>\nWhy not.\n</think>\n\nYes"}
    _, row = read_one(write_rows([{"messages": [CHAT[0], answer]}]))
    assert row.messages[-1] == {"role": "assistant", "content": "Yes", "thinking": "Why not."}


def test_sharegpt_function_calls_become_tool_calls_and_results(write_rows):
    turns = [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
        {"from": "observation", "value": "clear"},
        {"from": "gpt", "value": "Clear."},
    ]
    tools = json.dumps([{"name": "weather", "description": "x", "parameters": {}}])
    _, row = read_one(write_rows([{"conversations": turns, "tools": tools}]))
    call = {"name": "weather", "arguments": {"city": "Oslo"}}
    assert row.messages[1]["tool_calls"] == [{"type": "function", "function": call}]
    assert row.messages[2] == {"role": "tool", "content": "clear", "name": "weather"}
    assert row.tools[0]["function"]["name"] == "weather"


def test_arguments_given_as_json_text_are_parsed(write_rows):
    call = {"id": "a1", "function": {"name": "f", "arguments": '{"x": 1}'}}
    turns = [CHAT[0], {"role": "assistant", "content": None, "tool_calls": [call]}]
    _, row = read_one(write_rows([{"messages": turns}]))
    assert row.messages[1]["tool_calls"] == [
        {"id": "a1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    ]


def test_a_row_may_state_its_reasoning_effort(write_rows):
    _, row = read_one(write_rows([{"messages": CHAT, "reasoning_effort": "high"}]))
    assert row.reasoning_effort == "high"


def test_json_lists_json_lines_and_parquet_hold_the_same_rows(tmp_path, write_rows):
    records = [{"messages": [{**m, "thinking": None} for m in CHAT]} for _ in range(3)]
    (tmp_path / "list.json").write_text(json.dumps(records, indent=1), encoding="utf-8-sig")
    parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "rows.parquet")
    lines = write_rows([*records[:2], "", records[2]], "lines.json")
    read = [
        read_rows([path], None, "demo")
        for path in (lines, tmp_path / "list.json", tmp_path / "rows.parquet")
    ]
    assert len(read[0][1]) == 3
    assert read[0] == read[1] == read[2]


def test_rows_are_numbered_over_all_files_of_a_source(write_rows):
    files = [write_rows([{"messages": CHAT}] * 2, name) for name in ("a.jsonl", "b.jsonl")]
    _, rows = read_rows(files, None, "demo")
    assert [row.number for row in rows] == [1, 2, 3, 4]


def bad(*messages, **columns):
    return {"messages": list(messages), **columns}


USER, ANSWER = CHAT


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("{broken", "row 2 (line 2): broken JSON at character 2"),
        ("[1]", "row 2 (line 2): is a list, not an object"),
        ({"text": "x"}, "column messages: is null or missing"),
        ({"messages": "Hi"}, "column messages: is text, not a list"),
        (bad(), "column messages: is empty"),
        (bad("Hi"), "column messages[0]: is text, not an object"),
        (bad({"role": "user", "content": None}, ANSWER), "column messages[0].content: is null"),
        (bad({"role": "user", "content": 7}, ANSWER), "messages[0].content: is a number, not text"),
        (bad({"role": "user", "content": " \n"}, ANSWER), "column messages[0].content: is empty"),
        (
            bad({"role": "wizard", "content": "x"}, ANSWER),
            "column messages[0].role: must be one of",
        ),
        (bad({"content": "x"}, ANSWER), "column messages[0].role: must be one of"),
        (bad(USER), "column messages: has no assistant turn"),
        (bad(ANSWER, USER, ANSWER), "the first turn is from the assistant"),
        (bad(USER, ANSWER, USER), "the last turn is from the user"),
        (
            bad({"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, *CHAT),
            "has two system turns",
        ),
        (bad(USER, {"role": "system", "content": "a"}, ANSWER), "the system turn is not the first"),
        (
            bad(USER, {**ANSWER, "thinking": 3}),
            "column messages[1].thinking: is a number, not text",
        ),
        (bad({**USER, "thinking": "hm"}, ANSWER), "only an assistant turn can have thinking"),
        (bad(USER, {**ANSWER, "tool_calls": [{}]}), "messages[1].tool_calls[0].name: is null"),
        (bad(USER, {**ANSWER, "content": "\ud800"}), "half a surrogate pair"),
        (bad(*CHAT, reasoning_effort="huge"), "column reasoning_effort: must be one of low"),
        (bad(*CHAT, tools="{"), "column tools: is not JSON"),
        (bad(*CHAT, tools=[3]), "column tools[0]: is not an object with a name"),
        ("[" * 100_000, "row 2 (line 2): JSON with nesting"),
    ],
)
def test_a_bad_row_is_named_with_its_place_and_never_shown(tmp_path, record, said):
    lines = [{"messages": CHAT}, record, {"messages": CHAT}]
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(DataError) as caught:
        read_rows([tmp_path / "rows.jsonl"], "messages", "hf://org/name")
    assert said in str(caught.value)
    assert "hf://org/name, row 2 (line 2)" in str(caught.value)
    assert caught.value.exit_code == 65
    assert "Hello" not in str(caught.value)


def test_twenty_bad_rows_are_listed_and_all_are_counted(write_rows):
    path = write_rows([{"messages": CHAT}] + [{"messages": [USER]}] * 30)
    with pytest.raises(DataError, match="30 of 31 rows") as caught:
        read_rows([path], None, "demo")
    assert len(caught.value.problems) == 20
    assert caught.value.problems[0].startswith("demo, row 2 (line 2), column messages: ")


def test_a_bad_row_of_several_files_names_the_file(write_rows):
    files = [write_rows([{"messages": CHAT}], "a.jsonl"), write_rows([{"messages": 1}], "b.jsonl")]
    with pytest.raises(DataError) as caught:
        read_rows(files, None, "demo")
    assert caught.value.problems == [
        "demo, row 2 (b.jsonl line 1), column messages: is a number, not a list"
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "rows.jsonl is empty"),
        (b" \n\n", "rows.jsonl is empty"),
        (b"[]", "holds no rows"),
        (b'[{"text": "a"},', "line 1, column 16: broken JSON"),
        (b'{"text": "a"}\n{"text": "\xff"}', "rows.jsonl, line 2: is not UTF-8"),
        (b'[{"text":\n"\xff"}]', "rows.jsonl, line 2: is not UTF-8"),
        (b"PAR1 and then nothing", "cannot be read as Parquet"),
        (b"\x1f\x8b\x08\x00", "rows.jsonl is gzip data that cannot be unpacked"),
    ],
)
def test_a_broken_file_is_refused_with_its_name(tmp_path, content, said):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="demo: ") as caught:
        read_rows([path], None, "demo")
    assert said in str(caught.value)


def test_first_rows_without_any_column_are_named_one_by_one(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a\n[1]\n')
    with pytest.raises(DataError, match="2 of 2 rows") as caught:
        read_rows([tmp_path / "rows.jsonl"], None, "demo")
    assert caught.value.problems == [
        "demo, row 1 (line 1): broken JSON at character 10 (Unterminated string starting at)",
        "demo, row 2 (line 2): is a list, not an object with columns",
    ]


def test_rows_are_read_while_they_are_asked_for(tmp_path, write_rows):
    path = write_rows([{"text": "a" * 1000}] * 5000)
    name, rows = open_rows([path, tmp_path / "gone.jsonl"], None, "demo")
    place, row = next(rows)
    assert (name, place, row.text) == ("text", "demo, row 1 (rows.jsonl line 1)", "a" * 1000)


def test_a_bad_row_comes_in_its_place_and_the_others_are_read(write_rows):
    path = write_rows([{"text": "a"}, {"text": 3}, {"text": "c"}])
    _, rows = open_rows([path], None, "demo")
    found = [(place, getattr(row, "text", None)) for place, row in rows]
    assert found == [
        ("demo, row 1 (line 1)", "a"),
        ("demo, row 2 (line 2)", None),
        ("demo, row 3 (line 3)", "c"),
    ]


@pytest.mark.parametrize(
    ("record", "content"),
    [
        ({"messages": [USER, {**ANSWER, "content": 1.5}]}, "1.5"),
        ({"messages": [{"role": "\x1b[31mwizard", "content": "x"}]}, r"\x1b[31mwizard"),
        ({"messages": "x" * 1000}, "x" * 200 + "…"),
        ('{"messages": [', '{"messages": ['),
    ],
)
def test_what_stands_at_the_bad_place_is_shown_only_when_asked(write_rows, record, content):
    path = write_rows([{"messages": CHAT}, record])
    _, rows = open_rows([path], None, "demo")
    *_, (place, bad) = rows
    told = {}
    for show in (False, True):
        findings = Findings(show_content=show)
        findings.add(place, bad)
        with pytest.raises(DataError) as caught:
            findings.check("demo", 2)
        (told[show],) = caught.value.problems
    assert told[True] == f"{told[False]} [{content}]"


def test_a_bad_row_says_the_same_after_it_was_sent_to_another_process():
    bad = pickle.loads(pickle.dumps(BadRow("is empty", "text", "x")))  # noqa: S301 - our own
    assert (bad.what, bad.column, bad.content) == ("is empty", "text", "x")


@pytest.mark.parametrize(
    ("record", "language"),
    [
        (REFERENCE, "French"),
        ({"messages": REFERENCE["messages"]}, "French"),
        ({"text": "a", "reasoning_language": "German"}, "German"),
        ({"messages": CHAT}, None),
        ({"messages": [{"role": "user", "content": "reasoning language: French"}, ANSWER]}, None),
    ],
)
def test_the_language_of_the_reasoning_is_known_where_it_is_stated(write_rows, record, language):
    assert read_one(write_rows([record]))[1].language == language

"""Broken rows in sound files: columns, turns, calls and the single formats."""

from __future__ import annotations

import json
from typing import Any

from tests.data.broken_case import (
    ANSWER,
    CANARY,
    GOOD,
    USER,
    Broken,
    data_error,
    file,
    folder_of,
    lines,
)

CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}


def bad_row(name: str, row: Any, *says: str, query: str = "") -> Broken:
    """A file of three rows, of which the second is bad."""
    path = file("rows.jsonl", lines(GOOD, row, GOOD), query)
    return data_error(name, path, "1 of 3 rows", "rows.jsonl, row 2 (line 2)", *says)


def turns(*messages: Any, **columns: Any) -> dict[str, Any]:
    return {"messages": list(messages), **columns}


def only_row(name: str, row: dict[str, Any], *says: str, query: str = "") -> Broken:
    """A file of one row, which decides the format, too."""
    path = file("rows.jsonl", lines(row), query)
    return data_error(name, path, "rows.jsonl, row 1 (line 1)", *says)


def calling(arguments: Any) -> dict[str, Any]:
    call = {"function": {"name": "f", "arguments": arguments}}
    return turns(USER, {**CALL, "tool_calls": [call]})


CALLING = calling({})["messages"][1]


COLUMNS = [
    data_error(
        "columns of no format",
        file("rows.jsonl", lines({"question": CANARY, "answer": "b"})),
        "no known format fits its columns (answer, question)",
        "alpaca needs instruction, output",
        "Rename question to prompt and answer to completion",
    ),
    data_error(
        "sentences for columns",
        file("rows.jsonl", lines({f"What is {CANARY}?": "b", "text ": "c"})),
        "no known format fits its columns (2 more)",
    ),
    data_error(
        "columns in capitals", file("rows.jsonl", lines({"Text": CANARY})), "Rename 'Text' to text"
    ),
    data_error(
        "columns of two formats",
        file("rows.jsonl", lines({"instruction": CANARY, "output": "b", "text": "c"})),
        "several formats fit",
        "format=alpaca or format=text",
    ),
    data_error(
        "columns of another format than was asked for",
        file("rows.jsonl", lines({"instruction": CANARY, "answer": "b"}), "?format=alpaca"),
        "format=alpaca needs the columns instruction, output; missing: output",
    ),
    data_error(
        "chosen without rejected",
        file("rows.jsonl", lines({"prompt": CANARY, "chosen": "b"})),
        "preference needs chosen, rejected (rejected missing)",
    ),
    data_error(
        "two formats in one file",
        file("rows.jsonl", lines(*[GOOD] * 499, {"text": CANARY}, GOOD)),
        "1 of 501 rows",
        "rows.jsonl, row 500 (line 500), column messages: is null or missing",
    ),
    data_error(
        "rows without columns",
        file("rows.json", json.dumps([CANARY, 7, None, [CANARY], True]).encode()),
        "row 1 (line 1): is text, not an object with columns",
        "row 5 (line 1): is true or false",
    ),
    data_error("NaN for a row", file("rows.json", b"[NaN, Infinity]"), "row 1", "is a number"),
    data_error("objects without columns", file("rows.jsonl", b"{}\n{}\n"), "its columns (none)"),
    Broken(
        "unknown format",
        file("rows.jsonl", lines(GOOD), "?format=chatml"),
        78,
        ("option format: allowed: multilingual-thinking, messages",),
    ),
]

TURNS = [
    bad_row("a row cut off", json.dumps(GOOD)[:-30], "broken JSON at character"),
    bad_row("bottomless nesting", '{"messages": ' + "[" * 100_000, "nesting or numbers"),
    bad_row("a number of 5,000 digits", '{"messages": ' + "7" * 5000 + "}", "nesting or numbers"),
    bad_row("no turns", turns(), "column messages: is empty"),
    bad_row("null for turns", {"messages": None}, "column messages: is null or missing"),
    bad_row("text for turns", {"messages": CANARY}, "column messages: is text, not a list"),
    bad_row("text for a turn", turns(CANARY), "column messages[0]: is text, not an object"),
    bad_row("null content", turns({**USER, "content": None}, ANSWER), "[0].content: is null"),
    bad_row("a number for content", turns({**USER, "content": 7}, ANSWER), "is a number, not text"),
    bad_row("blank content", turns({**USER, "content": " \n"}, ANSWER), "[0].content: is empty"),
    bad_row("no content", turns({"role": "user"}, ANSWER), "[0].content: is null or missing"),
    bad_row("unknown role", turns({**USER, "role": CANARY}, ANSWER), "[0].role: must be one of"),
    bad_row("no role", turns({"content": CANARY}, ANSWER), "[0].role: must be one of"),
    bad_row(
        "two system turns",
        turns({**USER, "role": "system"}, {**USER, "role": "developer"}, USER, ANSWER),
        "has two system turns",
    ),
    bad_row(
        "late system turn", turns(USER, {**USER, "role": "system"}, ANSWER), "is not the first"
    ),
    bad_row("assistant first", turns(ANSWER, USER, ANSWER), "the first turn is from the assistant"),
    bad_row("user last", turns(USER, ANSWER, USER), "the last turn is from the user"),
    bad_row("no assistant turn", turns(USER), "has no assistant turn"),
    bad_row("half a surrogate pair", turns(USER, {**ANSWER, "content": "\ud83d"}), "surrogate"),
    bad_row("thinking of a user", turns({**USER, "thinking": CANARY}, ANSWER), "only an assistant"),
    bad_row("a picture", turns({**USER, "content": [{"type": "image_url"}]}, ANSWER), "text only"),
    bad_row("a sound", turns({**USER, "content": [{"type": "input_audio"}]}, ANSWER), "text only"),
    bad_row("unknown effort", {**GOOD, "reasoning_effort": CANARY}, "column reasoning_effort"),
    bad_row("tools that are no JSON", {**GOOD, "tools": "{" + CANARY}, "column tools: is not JSON"),
    bad_row("tools without names", {**GOOD, "tools": [{"x": CANARY}]}, "column tools[0]"),
    bad_row("arguments that are no JSON", calling(CANARY), "arguments: is not JSON"),
    bad_row("arguments that are a list", calling([CANARY]), "arguments: is a list, not an object"),
    bad_row("arguments with NaN", calling('{"x": NaN}'), "a value that JSON does not know"),
    bad_row(
        "arguments of deep nesting",
        calling('{"x":' + "[" * 300 + "]" * 300 + "}"),
        "nested more than 100 levels deep",
    ),
    bad_row("no arguments", turns(USER, CALL), "arguments: is null, not an object"),
    bad_row("a user who calls", turns({**CALLING, "role": "user"}, ANSWER), "only an assistant"),
    bad_row(
        "a result before any call",
        turns(USER, {"role": "tool", "content": CANARY}, ANSWER),
        "column messages[1]: is a tool result, and no call comes before it",
    ),
    data_error(
        "a thousand bad rows",
        file("rows.jsonl", lines(GOOD, *[turns(USER)] * 1000)),
        "1000 of 1001 rows",
        "the first 20 are listed",
        "row 21 (line 21)",
    ),
    data_error(
        "a bad row in the second file",
        folder_of(a__jsonl=lines(GOOD, GOOD), b__jsonl=lines(GOOD, turns(USER))),
        "row 4 (b.jsonl line 2), column messages: has no assistant turn",
    ),
]

FORMATS = [
    only_row("empty text", {"text": " "}, "column text: is empty"),
    only_row("empty completion", {"prompt": CANARY, "completion": ""}, "column completion"),
    only_row(
        "text prompt with a completion of turns",
        {"prompt": CANARY, "completion": [ANSWER]},
        "column completion: is a list, not text",
    ),
    only_row("empty output", {"instruction": CANARY, "output": ""}, "column output: is empty"),
    only_row(
        "history that is no pairs",
        {"instruction": CANARY, "output": "x", "history": [["a"]]},
        "column history[0]: is not a pair",
    ),
    only_row(
        "ShareGPT without a value",
        {"conversations": [{"from": "human", "value": None}, {"from": "gpt", "value": CANARY}]},
        "column conversations[0].value: is null or missing",
    ),
    only_row(
        "a function_call that is no JSON",
        {"conversations": [{"from": "user", "value": "x"}, {"from": "tool_call", "value": CANARY}]},
        "column conversations[1].value: is not JSON",
    ),
    only_row(
        "chosen is rejected",
        {"prompt": CANARY, "chosen": "b", "rejected": "b"},
        "column rejected: is the same as chosen",
    ),
    only_row(
        "answers to two prompts",
        {"chosen": [USER, ANSWER], "rejected": [{**USER, "content": "other"}, ANSWER]},
        "column chosen: begins with another prompt",
    ),
    only_row(
        "nothing rejected",
        {"prompt": CANARY, "chosen": "b", "rejected": None},
        "column rejected: is null or missing",
    ),
    only_row(
        "preference without a prompt",
        {"chosen": CANARY, "rejected": "b"},
        "column prompt: is null or missing",
    ),
]  # fmt: skip

ROWS = [*COLUMNS, *TURNS, *FORMATS]

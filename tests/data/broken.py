"""Inputs that cannot be trained on, and what is said of each: one table for all who refuse them.

A case writes its files into an empty folder and returns the environment variables that use them.
"""

from __future__ import annotations

import hashlib

from tests.data.broken_case import (
    CANARY,
    GOOD,
    Broken,
    bad_file,
    data_error,
    file,
    folder_of,
    lines,
    uri,
)
from tests.data.broken_files import FILES
from tests.data.broken_rows import ROWS

__all__ = ["CANARY", "CASES", "Broken"]

SOURCES = [
    Broken("no such file", uri("/nowhere/rows.jsonl"), 66, ("/nowhere/rows.jsonl is not here",)),
    Broken("empty folder", folder_of(), 66, ("holds no data files",)),
    Broken("no such split", folder_of(test__jsonl=lines(GOOD)), 66, ("no files for the split",)),
    data_error("folder of pickles", folder_of(train__pkl=b"\x80"), "train.pkl", "not run here"),
    data_error("folder of a script", folder_of(rows__py=b"import os"), "rows.py", "not run here"),
    data_error("folder of Arrow files", folder_of(train__arrow=b"x"), ".arrow", "convert it"),
    bad_file("a suffix that is not read", "rows.xlsx", b"PK", "convert it"),
    data_error(
        "another sha256",
        file("rows.jsonl", lines(GOOD), f"?sha256={'a' * 64}"),
        hashlib.sha256(lines(GOOD)).hexdigest(),
        "a" * 64,
        "The data changed",
    ),
    *(
        Broken(f"https to {host}", uri(f"https://{host}/rows.jsonl"), 77, ("no public address",))
        for host in (
            *("169.254.169.254", "127.0.0.1:8443", "10.0.0.8", "192.168.1.1", "100.64.0.1"),
            *("0.0.0.0", "localhost", "[::1]", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"),
        )
    ),
]

LONG = {"prompt": "word " * 100, "completion": "word " * 100}

# What only a tokenizer can tell, or who trains.
LATER = [
    Broken(
        "all rows too long",
        file("rows.jsonl", lines(*[LONG] * 20), JOB_MAX_SEQ_LENGTH="64"),
        65,
        ("rows.jsonl",),
        "encoding",
    ),
    Broken(
        "preferences to train on",
        file("rows.jsonl", lines({"prompt": CANARY, "chosen": "a", "rejected": "b"})),
        65,
        ("preference",),
        "encoding",
    ),
]

CASES: list[Broken] = [*FILES, *ROWS, *SOURCES, *LATER]

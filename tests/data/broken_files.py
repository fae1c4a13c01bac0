"""Broken files: cut off, damaged, of another kind, in another encoding, or bombs."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import pyarrow
from pyarrow import parquet

from tests.data.broken_case import CANARY, GOOD, Broken, bad_file, data_error, file, lines

MIB = 1 << 20


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.compress(content, codec="zstd", asbytes=True))


def repeated(pack: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    """Rows of 1 MiB, 1,120 of them, in about 2 MiB."""
    return lambda: pack(lines({"text": CANARY + " " * MIB}) * 16) * 70


def table(columns: Any, **options: Any) -> bytes:
    to = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), to, **options)
    return to.getvalue()


def damaged_table() -> bytes:
    content = bytearray(table({"text": [CANARY * 50 + str(i) for i in range(2000)]}))
    content[1000:1200] = b"\xff" * 200
    return bytes(content)


def repeating_table() -> bytes:
    value = pyarrow.array([CANARY + "x" * MIB])
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 100_000, "int32"), value)
    return table({"text": column})


def not_utf8_table() -> bytes:
    raw = pyarrow.array([CANARY.encode() + b"\xff"], pyarrow.binary())
    return table({"text": pyarrow.Array.from_buffers(pyarrow.string(), 1, raw.buffers())})


def table_of_two_names() -> bytes:
    columns = [pyarrow.array([CANARY]), pyarrow.array(["b"])]
    to = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_arrays(columns, ["text", "text"]), to)
    return to.getvalue()


def zipped(name: str, content: bytes) -> Callable[[], bytes]:
    def pack() -> bytes:
        to = io.BytesIO()
        with zipfile.ZipFile(to, "w") as archive:
            archive.writestr(name, content)
        return to.getvalue()

    return pack


def tarred() -> bytes:
    to = io.BytesIO()
    with tarfile.open(fileobj=to, mode="w:gz") as archive:
        info = tarfile.TarInfo("rows.jsonl")
        info.size = len(lines(GOOD))
        archive.addfile(info, io.BytesIO(lines(GOOD)))
    return to.getvalue()


def database() -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table rows (text)")
        return connection.serialize()


def arrow_file() -> bytes:
    to = io.BytesIO()
    rows = pyarrow.table({"text": [CANARY]})
    with pyarrow.ipc.new_file(to, rows.schema) as writer:
        writer.write_table(rows)
    return to.getvalue()


LIST = json.dumps([GOOD, GOOD]).encode()
CUT_OFF = "copy or download it again"
NOT_READ = "read are JSON, JSON Lines, CSV and Parquet"

WHOLE_FILES = [
    bad_file("empty file", "rows.jsonl", b"", "is empty"),
    bad_file("only a byte order mark", "rows.json", b"\xef\xbb\xbf", "is empty"),
    bad_file("only blank lines", "rows.jsonl", b" \n\r\n" * 50_000, "is empty"),
    data_error("empty list", file("rows.json", b"[]"), "rows.json: holds no rows"),
    bad_file("list cut off", "rows.json", LIST[:-20], "line 1, column", CUT_OFF),
    bad_file("list cut off between rows", "rows.json", LIST[:-1], CUT_OFF),
    bad_file("list cut off when packed", "rows.json.gz", gzip.compress(LIST[:-30]), CUT_OFF),
    bad_file(
        "list with a broken row",
        "rows.json",
        b"[\n" + json.dumps(GOOD).encode() + b',\n{"messages": [}]',
        "line 3, column 15: broken JSON",
    ),
    bad_file("list that goes on", "rows.json", LIST + b"\n" + LIST, "line 2, column 1", "goes on"),
    bad_file("list without commas", "rows.json", b"[{}\n{}]", "line 2, column 1", "is missing"),
    bad_file("list of bottomless nesting", "rows.json", b"[" * 100_000, "nesting"),
    bad_file("list not in UTF-8", "rows.json", b'[\n{"text": "\xe5"}]', "line 2", "is not UTF-8"),
    bad_file("rows not in UTF-8", "rows.jsonl", lines(GOOD) + b'"\xff"', "line 2", "is not UTF-8"),
    bad_file("rows in UTF-16", "rows.jsonl", lines(GOOD).decode().encode("utf-16"), "UTF-16 text"),
    bad_file("UTF-16 without a mark", "rows.jsonl", "{}\n".encode("utf-16-le"), "NUL bytes"),
    bad_file("UTF-32", "rows.json", LIST.decode().encode("utf-32"), "UTF-32 text", "as UTF-8"),
    bad_file("nothing but NUL bytes", "rows.jsonl", bytes(10_000), "NUL bytes", NOT_READ),
    bad_file(
        "an object over several lines",
        "rows.json",
        json.dumps(GOOD, indent=1).encode(),
        "its first line ends inside an object",
    ),
    bad_file(
        "a row over 64 MiB",
        "rows.jsonl",
        lambda: lines(GOOD, {"text": CANARY * (5 * MIB)}),
        "line 2: is longer than 64 MiB",
    ),
    bad_file(
        "a list with a row over 64 MiB",
        "rows.json",
        lambda: json.dumps([{"text": CANARY * (6 * MIB)}]).encode(),
        "line 1: one row is longer than 64 MiB",
    ),
]

PACKED_FILES = [
    bad_file("gzip cut off", "rows.jsonl.gz", gzip.compress(LIST)[:-9], "gzip data", "again"),
    bad_file("gzip of three bytes", "rows.jsonl.gz", b"\x1f\x8b\x08", "gzip data", "again"),
    bad_file("zstd cut off", "rows.jsonl.zst", zstd(LIST)[:-9], "zstd data", "again"),
    bad_file("gzip that goes on", "rows.json.gz", gzip.compress(LIST) + b"more", "else follows"),
    bad_file("zstd that goes on", "rows.json.zst", zstd(LIST) + b"more", "else follows"),
    bad_file(
        "gzip with a wrong checksum",
        "rows.json.gz",
        gzip.compress(LIST)[:-8] + bytes(8),
        "its checksum is wrong",
    ),
    bad_file("gzip of nothing", "rows.jsonl.gz", gzip.compress(b""), "is empty"),
    bad_file("packed twice", "rows.json.gz", gzip.compress(gzip.compress(LIST)), "packed twice"),
    bad_file("gzip bomb", "rows.jsonl.gz", repeated(gzip.compress), "decompression bomb"),
    bad_file("zstd bomb", "rows.jsonl.zst", repeated(zstd), "decompression bomb"),
    bad_file(
        "gzip of one endless line",
        "rows.jsonl.gz",
        lambda: gzip.compress(b'{"text": "') + gzip.compress(b"x" * MIB) * 65,
        "line 1: is longer than 64 MiB",
    ),
    bad_file(
        "Parquet cut off when packed",
        "rows.parquet.gz",
        lambda: gzip.compress(table({"text": [CANARY]})[:-10]),
        "cannot be read as Parquet",
    ),
]

OTHER_KINDS = [
    bad_file("zip", "rows.jsonl", zipped("rows.jsonl", lines(GOOD)), "zip archive", "unpack it"),
    bad_file("Excel", "rows.csv", zipped("[Content_Types].xml", b"<x/>"), "an Excel", "as CSV"),
    bad_file("pickle", "rows.jsonl", pickle.dumps([GOOD]), "a Python pickle", "never loaded"),
    bad_file("old pickle", "rows.jsonl", pickle.dumps([GOOD], 0), "a Python pickle"),
    bad_file("tar", "rows.jsonl.gz", tarred, "a tar archive", "unpack it"),
    bad_file("Arrow", "rows.parquet", arrow_file, "an Arrow file", "convert it"),
    bad_file("SQLite", "rows.jsonl", database, "an SQLite database", "convert it"),
    bad_file("a web page", "rows.jsonl", b"\n<!DOCTYPE html><p>Log in", "HTML", "download link"),
    bad_file("a store's error", "rows.json", b'<?xml version="1.0"?><Error>', "HTML or XML"),
    bad_file(
        "Git LFS pointer",
        "rows.parquet",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
        "a Git LFS pointer",
        "git lfs pull",
    ),
    bad_file("encrypted", "rows.jsonl", b"age-encryption.org/v1\n-> X25519", "encrypted data"),
    bad_file("encrypted Parquet", "rows.parquet", b"PARE" + bytes(99) + b"PARE", "encrypted Par"),
    bad_file("prose", "rows.jsonl", f"Once, {CANARY}\nwas".encode(), "another kind", NOT_READ),
    bad_file("Parquet cut off", "rows.parquet", table({"text": [CANARY]})[:-10], "as Parquet"),
    bad_file("damaged Parquet", "rows.parquet", damaged_table, "cannot be read as Parquet"),
    bad_file("Parquet bomb", "rows.parquet", repeating_table, "decompression bomb"),
    bad_file("Parquet not in UTF-8", "rows.parquet", not_utf8_table, "column is not UTF-8"),
    bad_file("Parquet columns twice", "rows.parquet", table_of_two_names, "two columns", "text"),
    data_error(
        "Parquet without rows",
        file("rows.parquet", table({"text": pyarrow.array([], "string")})),
        "rows.parquet: holds no rows",
    ),
    data_error(
        "Parquet with numbers for text",
        file("rows.parquet", table({"text": [7, 8]})),
        "2 of 2 rows",
        "rows.parquet, row 1, column text: is a number, not text",
    ),
    data_error(
        "Parquet with other columns",
        file("rows.parquet", table({"question": [CANARY], "answer": ["b"]})),
        "no known format fits its columns (answer, question)",
        "Rename question to prompt and answer to completion",
    ),
]


def bad_csv(name: str, text: str, *says: str) -> Broken:
    return data_error(name, file("rows.csv", text.encode("latin-1")), "rows.csv", *says)


TABLES = [
    bad_csv(
        "CSV with a field too many",
        f"prompt,completion\na,b\n{CANARY},b,c\n",
        "row 2 (line 3): has 3 field(s), and the header line names 2",
    ),
    bad_csv("CSV with a field too few", f"prompt,completion\n{CANARY}\n", "row 1 (line 2): has 1"),
    bad_csv("CSV without a header", f"{CANARY},Paris\nx,y\n", "none is in the first line"),
    bad_csv(
        "CSV with an open quote",
        f'prompt,completion\na,b\nx,"{CANARY}\n' + "a,b\n" * 99,
        "line 3: a quote is opened and never closed",
    ),
    bad_csv(
        "CSV with a stray quote",
        f'text\n"{CANARY}" he said\n',
        "row 1 (line 2): broken CSV",
    ),
    bad_csv("CSV with columns twice", f"text,text\n{CANARY},b\n", "two columns named text"),
    bad_csv("CSV with semicolons", f"prompt;completion\n{CANARY};b\n", "use commas"),
    bad_csv("CSV not in UTF-8", f"text\n{CANARY}\n\xe5\n", "line 3: is not UTF-8 text"),
    bad_csv("CSV with a NUL byte", "text\n" + "a\n" * 40_000 + "\0\n", "holds a NUL byte"),
    bad_csv("CSV with an empty answer", "prompt,completion\na,\n", "column completion: is empty"),
    bad_csv("CSV of a header alone", "prompt,completion\n", "holds no rows"),
    bad_csv(
        "CSV whose turns are no JSON",
        f"messages\n\"[{{'role': '{CANARY}'}}]\"\n",
        "row 1 (line 2), column messages: is text that looks like a list and is not JSON",
    ),
]

FILES = [*WHOLE_FILES, *PACKED_FILES, *OTHER_KINDS, *TABLES]

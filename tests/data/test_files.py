from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path
from unittest import mock

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from job.data.read import compressed, files, json_array, tables
from job.data.read.files import records
from job.data.read.kinds import HEAD
from job.data.rows import BadRow
from job.errors import DataError

ROWS = [{"prompt": f"question {i}", "completion": "Ålesund, „øl“ 🍺\n{}[],"} for i in range(3)]


def zstd(content: bytes) -> bytes:
    packed = pyarrow.compress(content, codec="zstd", asbytes=True)
    assert isinstance(packed, bytes)
    return packed


def as_csv(rows: list[dict[str, str]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, str]]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


KINDS = {
    "list": json.dumps(ROWS).encode(),
    "indented list": json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "lines": "\n".join(json.dumps(row) for row in ROWS).encode(),
    "lines with blank ones": b"\r\n\n" + b"\r\n\r\n".join(json.dumps(r).encode() for r in ROWS),
    "csv": as_csv(ROWS),
    "tsv": as_csv(ROWS, "\t"),
    "parquet": as_parquet(ROWS),
}


def rows_of(path: Path) -> list[object]:
    return [row for _, row in records(path)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told_by_its_bytes_whatever_its_name(tmp_path, kind, pack):
    path = tmp_path / "misnamed.txt"
    path.write_bytes(pack(KINDS[kind]))
    assert rows_of(path) == ROWS


@pytest.mark.parametrize("kind", ["list", "lines", "csv", "tsv"])
def test_a_byte_order_mark_is_no_content(tmp_path, kind):
    path = tmp_path / "rows"
    path.write_bytes(b"\xef\xbb\xbf" + KINDS[kind])
    assert rows_of(path) == ROWS


@pytest.mark.parametrize("kind", ["list", "lines", "csv"])
def test_blank_lines_before_the_data_are_skipped(tmp_path, kind):
    path = tmp_path / "rows"
    path.write_bytes(b"\n" * (HEAD + 3) + KINDS[kind])
    assert rows_of(path) == ROWS


def test_packed_data_may_be_several_members_long(tmp_path):
    half = b"\n".join(json.dumps(row).encode() for row in ROWS) + b"\n"
    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    for content in (gzip.compress(half) * 2, skippable + zstd(half) + zstd(half)):
        (tmp_path / "rows").write_bytes(content)
        assert rows_of(tmp_path / "rows") == ROWS * 2


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        ("lines with blank ones", ["line 3", "line 5", "line 7"]),
        ("csv", ["line 2", "line 4", "line 6"]),
        ("indented list", ["line 2", "line 6", "line 10"]),
    ],
)
def test_rows_know_the_line_where_they_begin(tmp_path, kind, places):
    (tmp_path / "rows").write_bytes(KINDS[kind])
    assert [place for place, _ in records(tmp_path / "rows")] == places


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=6,
)


@given(
    rows=st.lists(JSON, min_size=1),
    indent=st.sampled_from([None, 0, 3]),
    ensure_ascii=st.booleans(),
    chunk=st.integers(1, 40),
)
def test_a_list_is_the_same_wherever_reading_pauses(rows, indent, ensure_ascii, chunk):
    text = json.dumps(rows, indent=indent, ensure_ascii=ensure_ascii)
    stream = io.BytesIO(text.encode(errors="surrogatepass"))
    with mock.patch.object(json_array, "_CHUNK", chunk):
        assert [row for _, row in json_array.json_array(stream, "rows")] == rows


@given(
    rows=st.lists(JSON, min_size=1, max_size=3), cut=st.integers(1, 60), chunk=st.integers(1, 40)
)
def test_a_list_that_is_cut_off_is_refused_and_never_read_as_whole(rows, cut, chunk):
    text = json.dumps(rows)
    stream = io.BytesIO(text[: -min(cut, len(text) - 1)].encode())
    with (
        mock.patch.object(json_array, "_CHUNK", chunk),
        pytest.raises(DataError, match="broken JSON"),
    ):
        list(json_array.json_array(stream, "rows"))


def test_a_list_is_not_read_ahead_of_its_rows(tmp_path):
    stream = io.BytesIO(json.dumps([{"text": "x" * 1000}] * 10_000).encode())
    found = json_array.json_array(stream, "rows")
    next(found)
    assert stream.tell() <= 1 << 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1},\n {"b": tru}]', "line 2, column 8: broken JSON (Expecting value)"),
        ('[{"a": 1}\n {"b": 2}]', "line 2, column 2: broken JSON (',' is missing)"),
        ('[{"a": 1},]', "line 1, column 11: broken JSON (a comma before the end"),
        ('[{"a": 1}]\n[]', "line 2, column 1: broken JSON (the file goes on after its list"),
        ('[{"a": "x\ny"}]', "line 1, column 10: broken JSON (Invalid control character"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
def test_a_broken_list_is_named_with_line_and_column(text, said, chunk):
    with mock.patch.object(json_array, "_CHUNK", chunk), pytest.raises(DataError) as caught:
        list(json_array.json_array(io.BytesIO(text.encode()), "rows"))
    assert f"rows, {said}" in str(caught.value)


COLUMN_NAMES = ["prompt", "completion", "id"]


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
    ),
    st.sampled_from(",\t"),
)
def test_what_the_csv_module_writes_is_read_the_same(rows, delimiter):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows")
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
            writer.writerows([COLUMN_NAMES, *rows])
        expected = [dict(zip(COLUMN_NAMES, row, strict=True)) for row in rows]
        assert rows_of(path) == expected


def test_a_csv_row_that_is_wrong_is_named_and_the_others_are_read(tmp_path):
    lines = ["prompt,completion", "a,b", "a", "a,b,c", '"a"x,b', '"two', 'lines",b', "", "c,d"]
    (tmp_path / "rows").write_text("\n".join(lines))
    found = dict(records(tmp_path / "rows"))
    bad = {place: row.what for place, row in found.items() if isinstance(row, BadRow)}
    assert bad == {
        "line 3": "has 1 field(s), and the header line names 2",
        "line 4": "has 3 field(s), and the header line names 2",
        "line 5": "broken CSV (a quoted field goes on after its quote; quotes inside are doubled)",
    }
    assert found["line 6"] == {"prompt": "two\nlines", "completion": "b"}
    assert found["line 9"] == {"prompt": "c", "completion": "d"}


def test_the_index_column_of_pandas_is_left_out(tmp_path):
    (tmp_path / "rows").write_text(",text\n0,hello\n")
    assert rows_of(tmp_path / "rows") == [{"text": "hello"}]


def test_keys_that_a_parquet_row_did_not_state_are_not_there(tmp_path):
    calls = [{"arguments": {"city": "Oslo"}}, {"arguments": {"day": 3}}]
    parquet.write_table(
        pyarrow.Table.from_pylist([{"messages": [call]} for call in calls]), tmp_path / "rows"
    )
    assert rows_of(tmp_path / "rows") == [{"messages": [call]} for call in calls]


def test_only_the_names_of_other_parquet_columns_are_read(tmp_path):
    table = pyarrow.table({"text": ["a"], "when": pyarrow.array([2**62], pyarrow.timestamp("ms"))})
    parquet.write_table(table, tmp_path / "rows")  # a time that Python does not know
    assert rows_of(tmp_path / "rows") == [{"text": "a", "when": None}]


def test_a_packed_file_is_known_to_be_cut_off_before_its_first_row(tmp_path):
    lines = b'{"text": "a row"}\n' * 100_000
    for pack in (gzip.compress, zstd):
        whole = pack(lines)
        (tmp_path / "rows").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="it is cut off"):
            records(tmp_path / "rows")


def test_data_may_unpack_to_much_or_to_many_times_its_size_but_not_both(tmp_path):
    lines = b'{"text": "a"}\n' * 20_000  # unpacks to 280 kB, over 300 times its size
    (tmp_path / "rows").write_bytes(gzip.compress(lines, 9))
    with mock.patch.object(compressed, "BOMB_BYTES", 300_000):
        assert len(rows_of(tmp_path / "rows")) == 20_000
    with (
        mock.patch.object(compressed, "BOMB_BYTES", 200_000),
        pytest.raises(DataError, match="decompression bomb"),
    ):
        records(tmp_path / "rows")
    with (
        mock.patch.object(compressed, "BOMB_BYTES", 200_000),
        mock.patch.object(compressed, "BOMB_RATIO", 1000),
    ):
        assert len(rows_of(tmp_path / "rows")) == 20_000


def test_a_parquet_row_may_not_be_longer_than_a_row_may(tmp_path):
    rows = pyarrow.table({"text": ["x" * 10, "y" * 100, "z" * 20]})
    parquet.write_table(rows, tmp_path / "rows")
    with (
        mock.patch.object(tables, "MOST_BYTES", 90),
        pytest.raises(DataError, match="row 2: is longer than"),
    ):
        rows_of(tmp_path / "rows")


def test_a_line_may_have_as_many_bytes_as_a_row_may(tmp_path):
    path = tmp_path / "rows"
    with mock.patch.object(files, "MOST_BYTES", 30):
        path.write_bytes(b'{"text": "' + b"x" * 17 + b'"}\n' + b'{"text": "' + b"x" * 18 + b'"}\n')
        found = records(path)
        assert next(found) == ("line 1", {"text": "x" * 17})
        with pytest.raises(DataError, match="line 2: is longer than"):
            next(found)

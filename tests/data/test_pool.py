from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import pytest

from job.data.facts import EFFORTS
from job.data.mask.encode import RowEncoder
from job.data.pools import identity, pool
from job.data.pools.pool import DataSource, make_pool
from job.data.read.formats import read_rows
from job.errors import DataError, OutOfResources
from tests.data import families
from tests.data.examples import options

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def checkpoint(smollm2, tmp_path_factory):
    """A folder with SmolLM2's tokenizer as a checkpoint holds it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    smollm2.save_pretrained(folder)
    return folder


@pytest.fixture
def make(checkpoint, tmp_path):
    """Makes the pool of a file; records what progress was told."""

    def make_it(path, *, workers=1, format=None, label="rows.jsonl", folder=checkpoint, **changed):
        source = DataSource(label, (path,), format, None, None)
        told = []
        found = make_pool(
            source,
            folder,
            options(**changed),
            tmp_path / "cache",
            workers,
            lambda done, total: told.append((done, total)),
        )
        make_it.made = bool(told)
        return found

    return make_it


@pytest.fixture
def small_batches(monkeypatch):
    """Batches of four rows, and workers also for little data."""
    monkeypatch.setattr(pool, "_BATCH_ROWS", 4)
    monkeypatch.setattr(pool, "_SMALL", 0)


def chat(question, answer="Certainly.", **columns):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **columns}


def numbered(count):
    return [chat(f"Question {n}?", f"Answer {n}.") for n in range(count)]


def stored(found):
    """Tokens and labels as the trainer reads them."""
    rows = datasets.Dataset.from_file(str(found.rows_file)).select_columns(["input_ids", "labels"])
    return [(row["input_ids"], row["labels"]) for row in rows]


def entries(tmp_path):
    """What is in the cache, but for locks."""
    names = (path.name for path in (tmp_path / "cache").iterdir())
    return [name for name in names if not name.endswith(".lock")]


def test_a_pool_holds_each_row_as_it_was_encoded(make, write_rows, smollm2):
    path = write_rows([chat("Hi"), chat("Où?", "Ici, à gauche. 🙂"), chat("مرحبا", "أهلا")])
    found = make(path)
    rows = read_rows([path], None, "rows.jsonl")[1]
    expected = [example for (example,) in RowEncoder(smollm2, options()).encode(rows)]
    assert stored(found) == [(example.input_ids, example.labels) for example in expected]
    assert isinstance(stored(found)[0][0][0], int)
    assert (found.format, found.read, found.lost.rows) == ("messages", 3, 3)
    assert found.counts == {
        "rows": 3,
        "tokens": sum(len(example.input_ids) for example in expected),
        "trained_tokens": sum(example.trained for example in expected),
    }


def test_the_facts_are_those_of_each_row(make, write_rows, smollm2):
    path = write_rows([chat("Hi", reasoning_effort="high"), chat("Hi"), chat("Ho", "Hm " * 9)])
    facts = make(path, reasoning_effort="low").facts()
    rows = read_rows([path], None, "rows.jsonl")[1]
    examples = [example for (example,) in RowEncoder(smollm2, options()).encode(rows)]
    assert facts.number.tolist() == [1, 2, 3]
    assert facts.tokens.tolist() == [len(example.input_ids) for example in examples]
    assert facts.trained.tolist() == [example.trained for example in examples]
    assert facts.stops.tolist() == [1, 1, 1]
    assert facts.stop_token.tolist() == [smollm2.convert_tokens_to_ids("<|im_end|>")] * 3
    assert [EFFORTS[effort] for effort in facts.effort] == ["high", "low", "low"]
    assert facts.language.tolist() == [-1, -1, -1]
    for name in ("exact", "normalized", "conversation"):
        digests = [digest.tobytes() for digest in getattr(facts, name)]
        assert digests == [getattr(identity, name)(row) for row in rows]
    assert len(facts.take(facts.number > 1)) == 2


def test_languages_are_numbered_over_all_batches(make, write_rows, small_batches):
    spoken = ["French", "German", None, "French", "Japanese", "German", None, "Italian", "French"]
    found = make(
        write_rows(
            [chat(f"Q{n}", reasoning_language=language) for n, language in enumerate(spoken)]
        )
    )
    assert [
        None if index < 0 else found.languages[index] for index in found.facts().language
    ] == spoken
    assert len(found.languages) == 4


def test_what_is_stored_does_not_depend_on_the_number_of_workers(
    make, write_rows, small_batches, tmp_path
):
    rows = [*numbered(30), chat("Long", "word " * 300), *numbered(11)]
    path = write_rows(rows)
    alone = make(path, workers=1, max_seq_length=128)
    content, lost = alone.rows_file.read_bytes(), alone.lost
    alone.folder.rename(tmp_path / "other")
    several = make(path, workers=2, max_seq_length=128)
    assert make.made
    assert several.rows_file.read_bytes() == content
    assert several.lost == lost
    assert several.counts["rows"] == 41


def test_rows_that_do_not_fit_are_told_with_their_number(make, write_rows):
    long = chat("Long", "word " * 300)
    path = write_rows([chat("Hi"), long, chat("Ho"), long])
    found = make(path, max_seq_length=128)
    assert found.facts().number.tolist() == [1, 3]
    assert found.lost.dropped == {"overlength": 2}
    assert [entry["row"] for entry in found.lost.worst["overlength"]] == [2, 4]
    assert found.lost.longest == found.lost.tokens().max() > 300
    cut = make(path, max_seq_length=128, overlength="truncate")
    facts = cut.facts()
    assert facts.tokens.tolist()[1::2] == [128, 128]
    assert (facts.tokens + facts.cut).tolist()[1] == found.lost.longest
    assert facts.unstopped.tolist() == [0, 1, 0, 1]
    assert facts.stop_token.tolist()[1] == -1
    assert cut.lost.dropped == {}
    assert [entry["row"] for entry in cut.lost.worst["cut"]] == [2, 4]


def test_a_pool_may_hold_nothing(make, write_rows):
    found = make(write_rows([chat("Long", "word " * 300)]), max_seq_length=64)
    assert found.counts == {"rows": 0, "tokens": 0, "trained_tokens": 0}
    assert len(found.facts()) == 0
    assert found.facts().exact.dtype.itemsize == identity.SIZE
    assert stored(found) == []


# --- the cache ------------------------------------------------------------------------------------


def test_the_second_time_the_pool_comes_from_the_cache(make, write_rows):
    path = write_rows([*numbered(3), chat("Long", "word " * 300)])
    first = make(path, max_seq_length=128)
    assert make.made
    again = make(path, max_seq_length=128)
    assert not make.made
    assert again == first


def test_a_cached_pool_is_found_without_a_heavy_import(make, write_rows, tmp_path, checkpoint):
    path = write_rows(numbered(3))
    make(path)
    code = (
        "import sys; from pathlib import Path; from tests.data.examples import options\n"
        "from job.data.pools.pool import DataSource, make_pool\n"
        f"source = DataSource('x', (Path({str(path)!r}),), None, None, None)\n"
        f"folders = Path({str(checkpoint)!r}), options(), Path({str(tmp_path / 'cache')!r})\n"
        "print(len(make_pool(source, *folders, 2, print).facts()))\n"
        "print(*{m.split('.')[0] for m in sys.modules})"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    rows, modules = output.splitlines()
    assert rows == "3"
    assert not {"torch", "transformers", "tokenizers", "datasets"} & set(modules.split())


def test_the_key_holds_what_decides_the_rows_and_nothing_else(make, write_rows):
    path = write_rows(numbered(3))
    first = make(path)
    renamed = path.rename(path.with_name("renamed.jsonl"))
    for same in (
        {"label": "another name"},
        {"max_dropped": 0.5},
        {"overlength": "error"},
        {"template_date": "2030-12-31"},  # this template prints no date
    ):
        assert make(renamed, **same).folder == first.folder, same
    for other in (
        {"overlength": "truncate"},
        {"max_seq_length": 2048},
        {"train_on": "all"},
        {"reasoning_effort": "high"},
        {"format": "messages"},
        {"folder": None},
    ):
        if "folder" in other:
            renamed.write_text(renamed.read_text(encoding="utf-8") + "\n", encoding="utf-8")
            other = {}
        assert make(renamed, **other).folder != first.folder, other


def test_the_date_counts_where_the_template_prints_it(make, write_rows, tmp_path):
    folder = tmp_path / "llama"
    families.stand_in("llama3_1").save_pretrained(folder)
    path = write_rows(numbered(3))
    one = make(path, folder=folder, template_date="2026-01-31")
    other = make(path, folder=folder, template_date="2026-02-01")
    assert one.folder != other.folder
    assert stored(one) != stored(other)


def test_another_template_is_another_pool(make, write_rows, tmp_path, smollm2):
    path = write_rows(numbered(3))
    first = make(path)
    changed = families.smollm2_with(smollm2.chat_template.replace("SmolLM", "Smol"), smollm2)
    changed.save_pretrained(tmp_path / "changed")
    assert make(path, folder=tmp_path / "changed").folder != first.folder


def shorten(found):
    with found.rows_file.open("r+b") as file:
        file.truncate(found.rows_file.stat().st_size - 8)


def overwrite(found):
    size = found.rows_file.stat().st_size
    found.rows_file.write_bytes(b"\0" * size)


def miscount(found):
    about = json.loads((found.folder / "pool.json").read_text())
    about["counts"]["rows"] += 1
    (found.folder / "pool.json").write_text(json.dumps(about))


def half_a_description(found):
    text = (found.folder / "pool.json").read_text()
    (found.folder / "pool.json").write_text(text[: len(text) // 2])


def no_description(found):
    (found.folder / "pool.json").unlink()


def no_rows(found):
    found.rows_file.unlink()


def another_list(found):
    (found.folder / "pool.json").write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [
        *(shorten, overwrite, miscount),
        *(half_a_description, no_description, no_rows, another_list),
    ],
)
def test_a_damaged_pool_is_made_again(make, write_rows, damage):
    path = write_rows(numbered(3))
    first = make(path)
    content = first.rows_file.read_bytes()
    damage(first)
    again = make(path)
    assert make.made
    assert again.rows_file.read_bytes() == content
    assert again == first


def test_what_a_killed_process_left_half_written_is_not_used(make, write_rows, tmp_path):
    path = write_rows(numbered(3))
    first = make(path)
    left = first.folder.rename(first.folder.with_name(first.folder.name + ".part"))
    (left / "more").touch()
    again = make(path)
    assert make.made
    assert sorted(path.name for path in again.folder.iterdir()) == ["pool.json", "rows.arrow"]
    assert entries(tmp_path) == [first.folder.name]


def test_two_at_once_make_a_pool_once(checkpoint, write_rows, tmp_path):
    source = DataSource("x", (write_rows(numbered(50)),), None, None, None)
    made = []

    def one(_):
        return make_pool(
            source, checkpoint, options(), tmp_path / "cache", 1, lambda *told: made.append(told)
        )

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(one, range(2))
    assert first == second
    assert made.count((50, 50)) == 1
    assert entries(tmp_path) == [first.folder.name]


def test_a_cache_that_cannot_be_written_is_named(checkpoint, write_rows, tmp_path):
    (tmp_path / "file").touch()
    source = DataSource("x", (write_rows(numbered(1)),), None, None, None)
    with pytest.raises(OutOfResources, match=r"file/cache \(Not a directory\).*JOB_WORK_DIR"):
        make_pool(source, checkpoint, options(), tmp_path / "file/cache", 1, lambda *_: None)


# --- rows that are bad ----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_rows_are_counted_over_the_whole_source(
    make, write_rows, small_batches, tmp_path, workers
):
    path = write_rows(
        [
            chat("Hi", f"Answer {n}") if n % 2 else {"messages": [{"role": "user"}]}
            for n in range(50)
        ]
    )
    with pytest.raises(DataError, match="25 of 50 rows") as caught:
        make(path, workers=workers)
    assert len(caught.value.problems) == 20
    assert caught.value.problems[1].startswith("rows.jsonl, row 3")
    assert "messages[0].content" in caught.value.problems[1]
    assert entries(tmp_path) == []


def test_rows_that_the_encoder_refuses_are_told_among_the_others_in_order(
    make, write_rows, smollm2, tmp_path
):
    refusing = "{% if 'no' in messages[0].content %}{{ raise_exception('no') }}{% endif %}"
    families.smollm2_with(refusing + smollm2.chat_template, smollm2).save_pretrained(
        tmp_path / "refusing"
    )
    path = write_rows([chat("yes"), chat("no"), {"messages": 3}, chat("no way"), chat("yes")])
    with pytest.raises(DataError, match="3 of 5 rows") as caught:
        make(path, folder=tmp_path / "refusing")
    assert [problem.split(",")[1].split()[1] for problem in caught.value.problems] == [
        "2",
        "3",
        "4",
    ]
    assert "refuses it (no)" in caught.value.problems[0]


def test_content_is_quoted_only_when_that_is_asked_for(checkpoint, write_rows, tmp_path):
    path = write_rows([chat("Hi"), {"messages": "a secret"}])
    source = DataSource("x", (path,), None, None, None)
    for show in (False, True):
        with pytest.raises(DataError) as caught:
            make_pool(source, checkpoint, options(), tmp_path / "cache", 1, lambda *_: None, show)
        assert ("a secret" in str(caught.value)) == show

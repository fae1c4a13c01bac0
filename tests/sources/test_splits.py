from __future__ import annotations

import pytest

from job.errors import DataError, NotFound
from job.sources.splits import SUFFIXES, choose_in_folder, choose_in_repository
from job.spec.sources import FILE_NAMES

README = """---
license: apache-2.0
configs:
- config_name: extra
  data_files:
  - split: train
    path: extra/*.jsonl
- config_name: main
  default: true
  data_files:
  - split: train
    path: ["data/part-*.parquet", "more/**"]
  - split: test
    path: data/held-out.parquet
---
# words
"""
FILES = [
    ".gitattributes",
    "README.md",
    "data/held-out.parquet",
    "data/part-0.parquet",
    "data/part-1.parquet",
    "data/old/part-2.parquet",
    "extra/a.jsonl",
    "extra/b.jsonl",
    "more/deep/er/part-3.parquet",
]


def choose(
    names: list[str], readme: str | None = None, split: str = "train", config: str | None = None
) -> list[str]:
    return choose_in_repository(names, readme, split, config, "Dataset x")


def test_a_file_that_can_be_read_is_not_taken_for_a_hub_id():
    assert [suffix for suffix in SUFFIXES if not suffix.endswith(FILE_NAMES)] == []


@pytest.mark.parametrize(
    ("split", "config", "chosen"),
    [
        (
            "train",
            None,
            ["data/part-0.parquet", "data/part-1.parquet", "more/deep/er/part-3.parquet"],
        ),
        ("test", None, ["data/held-out.parquet"]),
        ("train", "extra", ["extra/a.jsonl", "extra/b.jsonl"]),
    ],
)
def test_the_readme_decides(split: str, config: str | None, chosen: list[str]):
    assert choose(FILES, README, split, config) == chosen


@pytest.mark.parametrize(
    ("data_files", "chosen"),
    [
        ('"*.jsonl"', ["a.jsonl", "b.jsonl"]),
        ('["a.jsonl"]', ["a.jsonl"]),
        ('{train: "b.jsonl", test: "a.jsonl"}', ["b.jsonl"]),
        ('[{split: train, path: ["./a.jsonl", "[b-c].jsonl"]}]', ["a.jsonl", "b.jsonl"]),
    ],
)
def test_every_way_to_write_data_files_is_read(data_files: str, chosen: list[str]):
    readme = f"---\nconfigs:\n- config_name: x\n  data_files: {data_files}\n---\n"
    assert choose(["a.jsonl", "b.jsonl"], readme) == chosen


def test_data_files_are_looked_for_below_data_dir():
    readme = "---\nconfigs:\n- config_name: x\n  data_dir: sub\n  data_files: '*.jsonl'\n---\n"
    assert choose(["a.jsonl", "sub/b.jsonl"], readme) == ["sub/b.jsonl"]


def test_a_front_matter_that_is_no_yaml_is_as_good_as_none():
    assert choose(["train.jsonl"], "---\n{: [\n---\n") == ["train.jsonl"]


@pytest.mark.parametrize(
    ("names", "split", "chosen"),
    [
        (["data/train-0-of-1.parquet", "data/test-0-of-1.parquet"], "train", [0]),
        (["data/train-0-of-1.parquet", "data/test-0-of-1.parquet"], "test", [1]),
        (["train.jsonl", "constraint.jsonl", "trainer_state.jsonl"], "train", [0]),
        (["train/0.parquet", "train/1.parquet", "valid/0.parquet"], "train", [0, 1]),
        (["train/0.parquet", "valid/0.parquet"], "validation", [1]),
        (["alpaca_train_en.json", "alpaca_dev_en.json"], "train", [0]),
        (["part-00000-of-00002.jsonl", "part-00001-of-00002.jsonl"], "train", [0, 1]),
        (["alpaca_en.json", "dataset_infos.json", "script.py"], "train", [0]),
    ],
)
def test_without_a_readme_the_splits_name_in_the_path_decides(
    names: list[str], split: str, chosen: list[int]
):
    assert choose(names, split=split) == [names[i] for i in chosen]


def test_a_split_that_is_stored_twice_is_read_once_as_parquet():
    assert choose(["train.jsonl", "train.parquet"]) == ["train.parquet"]


def test_without_a_readme_a_configuration_is_a_folder():
    names = ["de/train.jsonl", "en/train.jsonl"]
    assert choose(names, config="en") == ["en/train.jsonl"]
    with pytest.raises(NotFound, match=r"no configuration 'fr' \(folders there: de, en\)"):
        choose(names, config="fr")


@pytest.mark.parametrize(
    ("readme", "split", "config", "told"),
    [
        (README, "nope", None, r"no split 'nope' in configuration 'main' \(splits: train, test;"),
        (README, "train", "nope", r"no configuration 'nope' \(there are: main, extra\)"),
        (None, "test", None, r"no files for the split 'test' \(files: data/held-out.parquet"),
        (None, "train", None, "no files for the split 'train'"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    readme: str | None, split: str, config: str | None, told: str
):
    with pytest.raises(NotFound, match=told):
        choose(FILES, readme, split, config)


def test_a_split_that_is_not_there_is_answered_with_the_splits():
    with pytest.raises(NotFound, match=r"split 'dev2' \(splits there: test, train; files"):
        choose(["train.jsonl", "test.jsonl"], split="dev2")


@pytest.mark.parametrize("name", ["train.xlsx.zip", "train.tar.gz", "train.arrow", "train.txt"])
def test_a_suffix_that_is_not_read_is_told(name: str):
    with pytest.raises(DataError, match=r"read are \.parquet, .*\.gz or \.zst: convert"):
        choose([name])
    with pytest.raises(DataError, match="convert it"):
        choose_in_folder([name], "train", "Dataset x")


@pytest.mark.parametrize("kind", [".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv"])
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_every_kind_is_read_also_when_packed(kind: str, packed: str):
    assert choose([f"train{kind}{packed}", f"test{kind}{packed}"]) == [f"train{kind}{packed}"]


@pytest.mark.parametrize("name", ["squad.py", "data.pkl", "train.pt", "x.pickle"])
def test_scripts_and_pickles_are_never_run(name: str):
    with pytest.raises(DataError, match="loading scripts and pickles are not run"):
        choose([name, "README.md", "dataset_infos.json"])


def test_a_repository_without_data_lists_what_it_has():
    with pytest.raises(NotFound, match=r"holds no data files \(README.md, picture.png\)"):
        choose([".gitattributes", "README.md", "picture.png"])


def test_a_folder_is_read_whole_but_for_other_splits():
    names = ["a.jsonl", "b.json", "train.jsonl", "test.jsonl", "README.md", "_tmp/x.jsonl"]
    assert choose_in_folder(names, "train", "x") == ["a.jsonl", "b.json", "train.jsonl"]
    assert choose_in_folder(names, "test", "x") == ["test.jsonl"]
    with pytest.raises(NotFound, match="split 'validation'"):
        choose_in_folder(names, "validation", "x")


def test_a_folder_with_a_file_that_cannot_be_read_is_not_read_in_part():
    with pytest.raises(DataError, match=r"stored as \.arrow \(a\.jsonl, b\.arrow\)"):
        choose_in_folder(["a.jsonl", "b.arrow"], "train", "x")

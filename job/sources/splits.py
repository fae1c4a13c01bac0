"""Which files of a dataset hold the split that is asked for. Pure: names and the README's text.

As the Hub decides it (https://huggingface.co/docs/hub/datasets-data-files-configuration): what the
README's front matter says, else the split's name as a word in the path, else all of one group.
Nothing in a repository is ever run: loading scripts and pickles are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from job.errors import DataError, NotFound

KINDS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
SUFFIXES = tuple(kind + packed for packed in ("", ".gz", ".zst") for kind in KINDS)
"""Of data files; where a split is stored in several ways, the first that is there is read."""
READ = f"{', '.join(KINDS)}, each also .gz or .zst"
# Data that a later version may read; naming it beats a silent miss.
OTHER_DATA = (".txt", ".arrow", ".gz", ".zst", ".bz2", ".xz", ".zip", ".tar")
CODE = (".py", ".pkl", ".pickle", ".pt", ".pth", ".bin", ".npy", ".joblib")
NO_DATA = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SHOWN = 12  # names in a message


def choose_in_repository(
    names: Sequence[str], readme: str | None, split: str, config: str | None, where: str
) -> list[str]:
    """The data files of one split of a Hub repository, sorted.

    Raises:
        NotFound: no such configuration or split; lists what is there.
        DataError: a script, pickles, or suffixes that are not read.
    """
    names = _visible(names)
    declared = _declared(readme or "")
    if declared:
        chosen = _by_readme(names, declared, split, config, where)
    else:
        in_config = _in_folder(names, config, where) if config else names
        chosen = _with_word(in_config, split) or _only_group(in_config, split)
    if not chosen:
        raise _nothing(names, declared, split, where)
    return _readable(chosen, where)


def choose_in_folder(names: Sequence[str], split: str, where: str) -> list[str]:
    """The data files of one split of a plain folder or prefix, sorted.

    All of them, but for those whose path names another split. Raises as choose_in_repository.
    """
    names = _visible(names)
    unnamed = [name for name in names if not _splits_of(name)] if split == "train" else []
    chosen = sorted({*_with_word(names, split), *_data(unnamed)})
    if not chosen:
        raise _nothing(names, {}, split, where)
    return _readable(chosen, where, several_formats=True)


def _visible(names: Sequence[str]) -> list[str]:
    hidden = (".", "_")
    return sorted(
        name
        for name in names
        if not any(part.startswith(hidden) for part in PurePosixPath(name).parts)
        and PurePosixPath(name).name not in NO_DATA
    )


def _data(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.lower().endswith((*SUFFIXES, *OTHER_DATA))]


def _words(split: str) -> tuple[str, ...]:
    return ALIASES.get(split, (split,))


def _has_word(name: str, words: Sequence[str]) -> bool:
    joined = "|".join(re.escape(word.lower()) for word in words)
    return re.search(rf"(?<![a-z0-9])(?:{joined})(?![a-z0-9])", name.lower()) is not None


def _with_word(names: Sequence[str], split: str) -> list[str]:
    return [name for name in _data(names) if _has_word(name, _words(split))]


def _splits_of(name: str) -> list[str]:
    return [split for split, words in ALIASES.items() if _has_word(name, words)]


def _only_group(names: Sequence[str], split: str) -> list[str]:
    """All data files, when none names a split and they differ in nothing but numbers."""
    data = _data(names)
    groups = {re.sub(r"\d+", "#", re.sub(r"-of-\d+", "", name)) for name in data}
    is_one = len(groups) == 1 and not any(_splits_of(name) for name in data)
    return data if is_one and split == "train" else []


def _in_folder(names: Sequence[str], config: str, where: str) -> list[str]:
    """Without a README a configuration is a folder."""
    inside = [name for name in names if config in PurePosixPath(name).parts[:-1]]
    if not inside:
        folders = sorted({part for name in names for part in PurePosixPath(name).parts[:-1]})
        raise NotFound(
            f"{where} has no configuration {config!r} (folders there: {_listed(folders)}): "
            "correct ?config=."
        )
    return inside


# What the README's front matter says.


def _declared(readme: str) -> dict[str, dict[str, Any]]:
    """Configurations by name, the default one first."""
    found = re.match(r"\A\ufeff?---\s*\n(.*?)\n---\s*(?:\n|\Z)", readme, re.DOTALL)
    try:
        front = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return {}  # a card that the Hub itself could not read either
    listed = front.get("configs") if isinstance(front, dict) else None
    configs = [c for c in listed or [] if isinstance(c, dict) and c.get("data_files")]
    configs.sort(key=lambda c: not (c.get("default") or c.get("config_name") == "default"))
    return {str(config.get("config_name", "default")): config for config in configs}


def _by_readme(
    names: Sequence[str],
    declared: dict[str, dict[str, Any]],
    split: str,
    config: str | None,
    where: str,
) -> list[str]:
    if config is not None and config not in declared:
        raise NotFound(
            f"{where} has no configuration {config!r} (there are: {_listed(list(declared))}): "
            "correct ?config=."
        )
    entry = declared[config] if config is not None else next(iter(declared.values()))
    patterns = dict(_patterns(entry["data_files"]))
    if split not in patterns:
        raise NotFound(
            f"{where} has no split {split!r} in configuration "
            f"{entry.get('config_name', 'default')!r} (splits: {_listed(list(patterns))}; "
            f"configurations: {_listed(list(declared))}): correct ?split= or ?config=."
        )
    folder = str(entry.get("data_dir") or "").strip("/")
    wanted = [f"{folder}/{p}" if folder else p for p in patterns[split]]
    return [name for name in names if any(_glob(pattern).fullmatch(name) for pattern in wanted)]


def _patterns(data_files: Any) -> Iterator[tuple[str, list[str]]]:
    """The three ways to write data_files: a pattern, a list of them, a list or map by split."""
    if isinstance(data_files, dict):
        data_files = [{"split": split, "path": path} for split, path in data_files.items()]
    entries = data_files if isinstance(data_files, list) else [data_files]
    plain = [str(entry) for entry in entries if not isinstance(entry, dict)]
    if plain:
        yield "train", plain
    for entry in entries:
        if isinstance(entry, dict):
            path = entry.get("path", [])
            paths = path if isinstance(path, list) else [path]
            yield str(entry.get("split", "train")), [str(p) for p in paths]


def _glob(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay in one folder, `**` crosses folders."""
    pattern = pattern.removeprefix("./")
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    table = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile(
        "".join(table.get(p) or (p if p.startswith("[") else re.escape(p)) for p in parts)
    )


# What is wrong, and what is there.


def _readable(chosen: Sequence[str], where: str, several_formats: bool = False) -> list[str]:
    """The chosen files that are of one readable kind; a split stored twice is read once."""
    readable = [name for name in chosen if name.lower().endswith(SUFFIXES)]
    left = [name for name in chosen if not name.lower().endswith((*SUFFIXES, ".txt"))]
    if readable and several_formats and not left:
        return sorted(readable)
    if readable and not several_formats:
        suffix = next(s for s in SUFFIXES if any(n.lower().endswith(s) for n in readable))
        return sorted(name for name in readable if name.lower().endswith(suffix))
    kinds = sorted({PurePosixPath(name).suffix for name in left or chosen})
    raise DataError(
        f"{where} is stored as {', '.join(kinds)} ({_listed(list(chosen))}); read are {READ}: "
        "convert it."
    )


def _nothing(
    names: Sequence[str], declared: dict[str, dict[str, Any]], split: str, where: str
) -> NotFound | DataError:
    data = _data(names)
    code = [name for name in names if name.lower().endswith(CODE)]
    if not data and code:
        return DataError(
            f"{where} ships no data files but {_listed(code)}: loading scripts and pickles are "
            "not run here. Convert it to Parquet or JSONL, or try the Hub's own conversion with "
            "@refs/convert/parquet behind the name."
        )
    if not data:
        return NotFound(f"{where} holds no data files ({_listed(list(names))}).")
    splits = sorted({word for name in data for word in _splits_of(name)})
    seen = f"splits there: {_listed(splits)}; " if splits else ""
    return NotFound(
        f"{where} has no files for the split {split!r} ({seen}files: {_listed(data)}): correct "
        "?split= or ?config=."
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"

"""What data preparation takes: rows rendered, masked, proved and tokenised into the cache.

    python bench/data.py --rows 200000 --tokens 300 --model .demo/model

Makes conversations of a question and an answer (the same ones every time), prepares them with two
workers in a fresh process, then once more in another, which finds the cache. Prints the table of
docs/benchmarks.md and fails when a bar is missed: 150 s, 2 GiB resident in all processes together,
3 s for the second start. `python examples/smollm2.py .demo/model` makes the model's folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))  # also when started as a file

EXAMPLES = REPOSITORY / "examples" / "multilingual-thinking.jsonl"
PREPARE_SECONDS, START_SECONDS, RESIDENT = 150, 3, 2 * 2**30
SCRIPT = str(Path(__file__).resolve())


# --- the rows -------------------------------------------------------------------------------------


def write_rows(path: Path, rows: int, tokens: int, model: Path) -> None:
    """Conversations in seven languages, drawn from the words of the example data.

    One word in ten is put together from two halves, so that the tokenizer meets as many different
    words as in real text. Lengths vary by a factor of about 16 around the mean.
    """
    from job.data.mask.tokenizer import load_tokenizer, without_torch

    without_torch()
    words, draw = _words(), random.Random(3407)  # noqa: S311
    with path.open("w", encoding="utf-8") as file:
        tokenizer = load_tokenizer(model)
        each, frame = _tokens_a_word(words, tokenizer), _tokens_around(tokenizer)
        for number in range(rows):
            language = draw.choice(sorted(words))
            share = draw.lognormvariate(0, 0.6) / 1.197  # of mean 1
            count = max(8, int((tokens - frame) / each[language] * share))
            said = [_text(words[language], max(4, n), draw) for n in (count // 5, count * 4 // 5)]
            turns = [
                {"role": role, "content": content}
                for role, content in zip(("user", "assistant"), said, strict=True)
            ]
            turns[0]["content"] += f" ({number})"
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")


def _words() -> dict[str, list[str]]:
    """Language -> the words of the example data's reasoning, as often as they are there."""
    found = defaultdict[str, list[str]](list)
    for line in EXAMPLES.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        text = row["analysis"]
        if row["reasoning_language"] == "Japanese":  # no spaces: pieces of four characters
            found["Japanese"] += [text[i : i + 4] for i in range(0, len(text), 4)]
        else:
            found[row["reasoning_language"]] += text.split()
    return dict(found)


def _text(words: list[str], count: int, draw: random.Random) -> str:
    """So many words: runs of real text, and words put together."""
    chosen: list[str] = []
    while len(chosen) < count:
        start = draw.randrange(len(words))
        chosen += words[start : start + 9]
        one, other = draw.choice(words), draw.choice(words)
        chosen.append(one[: len(one) // 2 + 1] + other[len(other) // 2 :])
    return " ".join(chosen[:count])


def _tokens_a_word(words: dict[str, list[str]], tokenizer: Any) -> dict[str, float]:
    draw, count = random.Random(1), 20_000  # noqa: S311
    return {
        language: len(tokenizer(_text(own, count, draw)).input_ids) / count
        for language, own in words.items()
    }


def _tokens_around(tokenizer: Any) -> int:
    """What the chat template adds to the two texts and the number of a row."""
    turns = [{"role": "user", "content": " (123456)"}, {"role": "assistant", "content": ""}]
    return len(tokenizer(tokenizer.apply_chat_template(turns, tokenize=False)).input_ids)


# --- one process that prepares them ---------------------------------------------------------------


def prepare(rows: Path, model: Path, cache: Path, workers: int) -> None:
    """What the measured process does; prints what it found as JSON."""
    started = time.monotonic()
    from job.data.mask.template import EncodeOptions
    from job.data.pools.pool import DataSource, make_pool

    options = EncodeOptions(
        train_on="assistant",
        overlength="drop",
        max_dropped=0.05,
        max_seq_length=4096,
        reasoning_effort="medium",
        template_date="2026-01-31",
    )
    source = DataSource("bench", (rows,), None, None, None)
    pool = make_pool(source, model, options, cache, workers, lambda done, total: None)
    kept = len(pool.facts())
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    told = {
        "seconds": time.monotonic() - started,
        "rows": kept,
        "tokens": pool.counts["tokens"],
        "bytes": pool.rows_file.stat().st_size,
        "cpu_parent": own.ru_utime + own.ru_stime,
        "cpu_workers": children.ru_utime + children.ru_stime,
        "libraries": [name for name in ("torch", "transformers") if sys.modules.get(name)],
    }
    print(json.dumps(told))


# --- measured from outside ------------------------------------------------------------------------


class Memory(threading.Thread):
    """Looks ten times a second how much memory a process and its descendants have resident.

    Attributes:
        peak: bytes of all together, at the worst moment; pages they share count for each.
        parent: bytes of the process itself, at its own worst moment.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.parent = pid, 0, 0

    def run(self) -> None:
        """Until the process is gone."""
        while sizes := dict(_resident(self.pid)):
            self.peak = max(self.peak, sum(sizes.values()))
            self.parent = max(self.parent, sizes.get(self.pid, 0))
            time.sleep(0.1)


def _resident(pid: int) -> Iterator[tuple[int, int]]:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return
    if pages:
        yield pid, pages * os.sysconf("SC_PAGE_SIZE")
    for child in children:
        yield from _resident(int(child))


def measure(*arguments: str) -> dict[str, Any]:
    """Run `prepare` in a fresh process, and watch it."""
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}  # as the job sets it
    started, load_before = time.monotonic(), os.getloadavg()[0]
    command = [sys.executable, SCRIPT, "--prepare", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    memory = Memory(process.pid)
    memory.start()
    output, _ = process.communicate()
    assert process.returncode == 0
    whole = time.monotonic() - started
    return json.loads(output) | {
        "whole": whole,
        "peak": memory.peak,
        "parent": memory.parent,
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
    }


def processor() -> str:
    """As the kernel names it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def report(first: dict[str, Any], second: dict[str, Any], workers: int) -> None:
    """The table of docs/benchmarks.md."""
    cpu = first["cpu_parent"] + first["cpu_workers"]
    mib = {key: first[key] / 2**20 for key in ("peak", "parent", "bytes")}
    stack = ", ".join(f"{p} {version(p)}" for p in ("transformers", "tokenizers", "pyarrow"))
    print(f"{os.cpu_count()} cores of {processor()}, Python {platform.python_version()}, {stack};")
    before, after = first["load_before"], first["load_after"]
    print(f"load average {before:.1f} before, {after:.1f} after (its own work is 2 to 3)\n")
    print("| what | figure |")
    print("| --- | --- |")
    print(f"| rows, tokens a row | {first['rows']:,}, {first['tokens'] / first['rows']:.0f} |")
    print(f"| seconds, {workers} workers | {first['whole']:.1f} |")
    print(
        f"| rows/s, tokens/s | {first['rows'] / first['whole']:,.0f}, "
        f"{first['tokens'] / first['whole']:,.0f} |"
    )
    print(
        f"| CPU seconds: all, reader and writer, workers | {cpu:.1f}, "
        f"{first['cpu_parent']:.1f}, {first['cpu_workers']:.1f} |"
    )
    print(f"| CPU a row | {cpu / first['rows'] * 1000:.2f} ms |")
    print(
        f"| resident at most: all, reader and writer | {mib['peak']:,.0f} MiB, "
        f"{mib['parent']:,.0f} MiB |"
    )
    print(f"| on disk | {mib['bytes']:,.0f} MiB |")
    print(f"| second start | {second['whole']:.2f} s |")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", type=Path, default=REPOSITORY / ".demo/model")
    parser.add_argument("--folder", type=Path, help="keeps the rows; else a temporary one")
    parser.add_argument("--prepare", nargs=2, type=Path, metavar=("ROWS", "CACHE"))
    args = parser.parse_args()
    if args.prepare:
        prepare(args.prepare[0], args.model, args.prepare[1], args.workers)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        rows = folder / f"rows-{args.rows}-{args.tokens}.jsonl"
        if not rows.exists():
            write_rows(rows, args.rows, args.tokens, args.model)
        command = [str(rows), f"{scratch}/cache", "--model", str(args.model)]
        command += ["--workers", str(args.workers)]
        first, second = measure(*command), measure(*command)
    assert second["libraries"] == []
    report(first, second, args.workers)
    within = (
        first["whole"] <= PREPARE_SECONDS
        and first["peak"] <= RESIDENT
        and second["whole"] < START_SECONDS
    )
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())

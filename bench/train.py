"""Training speed on gpt-oss's shape: this project's packed path beside Unsloth's and TRL's own.

    python bench/train.py --folder /dev/shm/bench --arms recipe:4,packed,trl-flex,packed

Writes a random checkpoint once (MXFP4 layout, `bench/gptoss.py`), runs each arm in a process of its
own on the same rows from the same adapter, and prints a table, and below it how far losses and
gradient norms are from those of the first arm that took the same rows in each step. A step's time
runs from the end of the step before to its own, data and logging included; real tokens are those
that are not padding.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))  # also when started as a file

from bench.arms import ARMS, run_arm, write_dense  # noqa: E402
from job.child import child_environment  # noqa: E402


def line(row: dict[str, Any], warm: int) -> str:
    """One line of the table; the first `warm` steps are not counted."""
    if "error" in row:
        return f"| {row['arm']} | {row['error'][:150]} |"
    seconds, tokens = row["seconds"][warm:], row["tokens"][warm:]
    rates = sorted(t / s for t, s in zip(tokens, seconds, strict=True))
    return (
        f"| {row['arm']} | {sum(tokens) / sum(seconds):,.0f} | {statistics.median(rates):,.0f} "
        f"({rates[0]:,.0f} to {rates[-1]:,.0f}) | {statistics.median(seconds):.2f} "
        f"| {row['peak_gib']} | {row['seconds'][0]:.1f} | {row['load_s']} | {len(seconds)} |"
    )


def parity(rows: list[dict[str, Any]]) -> list[str]:
    """Each arm's largest distance from the first one's losses and gradient norms, relative."""
    lines = []
    first = next((row for row in rows if "error" not in row and not ARMS[row["arm"]][2]), None)
    for row in rows:
        if row is first or first is None or "error" in row or ARMS[row["arm"]][2]:
            continue
        worst = {
            what: max(abs(a / b - 1) for a, b in zip(row[what], first[what], strict=False))
            for what in ("loss", "grad_norm")
        }
        steps = min(len(row["loss"]), len(first["loss"]))
        lines.append(
            f"{row['arm']} against {first['arm']}, {steps} steps: losses within "
            f"{worst['loss']:.2%}, gradient norms within {worst['grad_norm']:.2%}"
        )
    return lines


def wait_for_memory() -> None:
    """The memory of a process that ended is free a moment later."""
    from job.preflight import find_gpu

    for _ in range(60):
        gpu = find_gpu(os.environ)
        if gpu.free > 0.95 * gpu.memory:
            return
        time.sleep(0.5)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument(
        "--arms", default="recipe:6,packed,unsloth-tuned,trl-flex,packed", help="NAME[:STEPS],…"
    )
    parser.add_argument(
        "--mix", default="reference", choices=["reference", "short", "1024", "4096"]
    )
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--experts", type=int, default=32, help="0: Llama-3-8B's shape instead")
    parser.add_argument("--steps", default=12, type=int, help="of an arm that names none")
    parser.add_argument("--warm", type=int, default=4)
    parser.add_argument("--arm", help="run this one here and print its row")
    args = parser.parse_args()
    kind = f"gpt-oss-{args.experts}" if args.experts else "dense"
    model = args.folder / f"{kind}-{args.layers}"
    if args.arm:
        print("ROW " + json.dumps(run_arm(args.arm, model, args.mix, args.steps)))
        return 0
    if not model.exists() and not args.experts:
        write_dense(model, args.layers)
    if not model.exists():
        from bench.gptoss import Shape, write_checkpoint

        write_checkpoint(model, Shape(layers=args.layers, experts=args.experts), "mxfp4")
    environment = child_environment(os.environ, args.folder / "caches", on_cpu=False)
    found = []
    for number, item in enumerate(args.arms.split(",")):
        arm, _, steps = item.partition(":")
        wait_for_memory()
        command = [sys.executable, __file__, "--folder", str(args.folder), "--arm", arm]
        command += ["--steps", steps or str(args.steps), "--mix", args.mix]
        command += ["--layers", str(args.layers), "--experts", str(args.experts)]
        log = args.folder / f"{number}-{arm}.log"
        with log.open("w") as output:  # a run that is killed leaves its log
            subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        last = [text for text in log.read_text().splitlines() if text.startswith("ROW ")]
        row = json.loads(last[-1][4:]) if last else {"arm": arm, "error": f"see {log}"}
        print(json.dumps(row), flush=True)
        found.append(row)
    print("| arm | real tokens/s | median step (range) | s/step | peak GiB | first step s | load s "
          "| steps |\n| --- | --- | --- | --- | --- | --- | --- | --- |")  # fmt: skip
    print("\n".join(line(row, args.warm) for row in found))
    print("\n".join(parity(found)))
    return int(any("error" in row for row in found))


if __name__ == "__main__":
    sys.exit(main())

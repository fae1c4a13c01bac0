"""Training speed on gpt-oss's shape: this project's packed path beside Unsloth's and TRL's own.

    python bench/train.py --folder /dev/shm/bench --arms recipe:4,packed,trl-flex,packed

Writes a random checkpoint once (MXFP4 layout, `bench/gptoss.py`), runs one arm after another, each
in a process of its own, on the same rows from the same adapter, and prints a table, and below it
how far losses and gradient norms are from those of the first arm that took the same rows in each
step. All processes import their libraries at the start, beside each other, which takes half a
minute, and leave the card alone until their turn. A step's time runs from the end of the step
before to its own, data and logging included; real tokens are those that are not padding. Arms that
use this project's trainers then evaluate rows of 4,096 tokens, for the peak memory of that.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))  # also when started as a file

from bench.arms import ARMS, READY, run_arm, write_dense  # noqa: E402
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
        f"| {row['peak_gib']} | {row['eval_gib'] or ''} | {row['seconds'][0]:.1f} "
        f"| {row['load_s']} | {len(seconds)} |"
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


class Arm:
    """A process that imports an arm's libraries at once and trains when it is told to."""

    def __init__(self, number: int, item: str, args: argparse.Namespace) -> None:
        self.name, _, steps = item.partition(":")
        self.log = args.folder / f"{number}-{self.name}.log"
        command = [sys.executable, __file__, "--folder", str(args.folder), "--arm", self.name]
        command += ["--steps", steps or str(args.steps), "--mix", args.mix]
        command += ["--layers", str(args.layers), "--experts", str(args.experts)]
        command += ["--seconds", str(args.seconds)]
        environment = child_environment(os.environ, args.folder / "caches", on_cpu=False)
        with self.log.open("w") as output:  # a run that is killed leaves its log
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment
            )

    def is_ready(self) -> bool:
        """Whether its libraries are imported, or it died of that."""
        return READY in self.log.read_text().splitlines() or self.process.poll() is not None

    def train(self) -> dict[str, Any]:
        """What it measured, or its error."""
        self.process.communicate(b"go\n")
        last = [text for text in self.log.read_text().splitlines() if text.startswith("ROW ")]
        return json.loads(last[-1][4:]) if last else {"arm": self.name, "error": f"see {self.log}"}


def write_model(folder: Path, layers: int, experts: int) -> None:
    """A random checkpoint, written by a process that leaves nothing on the card."""
    if experts:
        from bench.gptoss import Shape, write_checkpoint

        write_checkpoint(folder, Shape(layers=layers, experts=experts), "mxfp4")
    else:
        write_dense(folder, layers)


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
    parser.add_argument("--seconds", default=600, type=int, help="an arm begins no step after")
    parser.add_argument("--arm", help="run this one here and print its row")
    args = parser.parse_args()
    kind = f"gpt-oss-{args.experts}" if args.experts else "dense"
    model = args.folder / f"{kind}-{args.layers}"
    if args.arm:
        print("ROW " + json.dumps(run_arm(args.arm, model, args.mix, args.steps, args.seconds)))
        return 0
    args.folder.mkdir(parents=True, exist_ok=True)
    arms = [Arm(number, item, args) for number, item in enumerate(args.arms.split(","))]
    if not model.exists():
        writer = get_context("spawn").Process(
            target=write_model, args=(model, args.layers, args.experts)
        )
        writer.start()
        writer.join()
        if writer.exitcode:
            shutil.rmtree(model, ignore_errors=True)
            return 1
    while not all(arm.is_ready() for arm in arms):
        time.sleep(0.5)
    found = []
    for arm in arms:
        wait_for_memory()
        found.append(arm.train())
        print(json.dumps(found[-1]), flush=True)
    heads = "arm", "real tokens/s", "median step (range)", "s/step", "peak GiB", "evaluating GiB"
    heads += "first step s", "load s", "steps"
    print("|", " | ".join(heads), "|\n|", " --- |" * len(heads))
    print("\n".join(line(row, args.warm) for row in found))
    print("\n".join(parity(found)))
    return int(any("error" in row for row in found))


if __name__ == "__main__":
    sys.exit(main())

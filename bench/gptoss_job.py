"""The whole job on random weights of gpt-oss's shape: what each phase takes, and the peak memory.

    python bench/gptoss_job.py --layers 24 --layout mxfp4 --save lora --folder /dev/shm/bench

Runs `entrypoint.py run` as a user would, with the example data, and prints the receipt's figures as
one row of the table in docs/benchmarks.md. Fails when the job fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))  # also when started as a file

from bench.gptoss import Shape, write_checkpoint  # noqa: E402


def run_job(folder: Path, model: Path, **keys: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the job on the GPU; returns the last line of stdout and the receipt (empty if none).

    Args:
        folder: where work dir and output are.
        keys: spec keys in lower case.
    """
    spec = {
        "model": str(model),
        "dataset": str(REPOSITORY / "examples" / "multilingual-thinking.jsonl"),
        "output": f"file://{folder}/output",
        "work_dir": str(folder / "work"),
        "log_format": "lines",
        **keys,
    }
    variables = {f"JOB_{key.upper()}": value for key, value in spec.items()}
    command = [sys.executable, str(REPOSITORY / "entrypoint.py"), "run"]
    done = subprocess.run(command, env={**os.environ, **variables}, stdout=subprocess.PIPE)
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["exit_code"] == done.returncode
    receipt = Path(last["receipt"].removeprefix("file://")) if last["receipt"] else None
    return last, json.loads(receipt.read_text()) if receipt else {}


def row(name: str, receipt: dict[str, Any]) -> str:
    """One line of the table."""
    training, seconds = receipt["training"], receipt["timings"]
    phases = ", ".join(f"{phase} {value:.0f}" for phase, value in seconds.items())
    rate = training["tokens"] / training["seconds"]
    peak = (training["peak_memory_bytes"] or 0) / 2**30
    versions = receipt["versions"]
    stack = ", ".join(f"{p} {versions[p]}" for p in ("torch", "triton", "unsloth", "transformers"))
    return (
        f"| {name} | {receipt['device']['name']} | {training['steps']} | {rate:,.0f} | {peak:.1f} "
        f"| {phases} | {training['loss_first']:.3f} → {training['loss_last']:.3f} | {stack} |"
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--layout", choices=["mxfp4", "bf16"], default="mxfp4")
    parser.add_argument("--save", default="lora")
    parser.add_argument("--steps", default="20")
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    name = f"{args.layers} layers, {args.layout}, save={args.save}"
    model = args.folder / f"model-{args.layers}-{args.layout}"
    if not model.exists():
        write_checkpoint(model, Shape(layers=args.layers), args.layout)
    keys = {"save": args.save, "max_steps": args.steps, "prompts": '["x^5 + 3x^4 - 10 = 3"]'}
    last, receipt = run_job(
        args.folder / f"job-{args.layers}-{args.layout}", model, sample_tokens="32", **keys
    )
    shutil.rmtree(model)
    if not receipt:
        print(f"{name}: {last}")
        return 1
    print(row(name, receipt))
    print(json.dumps({"merge": receipt.get("merge"), "plan": receipt["plan"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A training on the GPU that is stopped and started again goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.gptoss import Shape, write_checkpoint
from tests.jobs import ROOT

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]

STEPS = 12


def events(work: Path, kind: str) -> list[dict[str, Any]]:
    path = work / "run/events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def start(model: Path, folder: Path) -> subprocess.Popen[bytes]:
    keys = {
        "model": str(model),
        "dataset": str(ROOT / "examples/multilingual-thinking.jsonl"),
        "output": f"file://{folder}/out",
        "work_dir": str(folder / "work"),
        **{"name": "run", "save": "lora", "max_steps": str(STEPS), "batch_size": "8"},
        **{"max_seq_length": "2048", "sample_tokens": "16", "log_format": "lines"},
    }
    variables = {f"JOB_{key.upper()}": value for key, value in keys.items()}
    command = [sys.executable, str(ROOT / "entrypoint.py"), "run"]
    return subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("layout", ["mxfp4", "bf16"])
def test_losses_after_a_resume_are_those_of_the_undisturbed_run(
    layout: str, tmp_path: Path
) -> None:
    """8-bit Adam, fused expert adapters and bfloat16; equal up to what the kernels' order of
    additions changes."""
    model = tmp_path / "model"
    write_checkpoint(model, Shape(layers=2), layout)
    undisturbed = start(model, tmp_path / "whole")
    stopped = start(model, tmp_path / "ours")
    while not events(tmp_path / "ours/work", "step")[4:]:
        assert stopped.poll() is None
        time.sleep(0.05)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait() == 75
    assert start(model, tmp_path / "ours").wait() == 0
    assert undisturbed.wait() == 0
    (resumed,) = events(tmp_path / "ours/work", "resumed")
    assert 5 <= resumed["step"] < STEPS
    whole = [event["loss"] for event in events(tmp_path / "whole/work", "step")]
    ours = [event["loss"] for event in events(tmp_path / "ours/work", "step")]
    assert ours == pytest.approx(whole, rel=0.01)

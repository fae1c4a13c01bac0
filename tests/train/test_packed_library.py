"""Rows packed by Unsloth's forward pass, and the try that tells whether they are right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from job.child import child_environment
from job.spec import read_spec
from job.train import packed_library, probe
from tests.jobs import ROOT

SPEC = read_spec({"JOB_MODEL": "org/name", "JOB_DATASET": "/rows.jsonl", "JOB_OUTPUT": "file:///o"})
PLAN = {"packing": 8192, "micro_batch_size": 16, "gradient_accumulation": 1, "experts": None}
ROWS = [{"input_ids": [5, 6, 7]}]


@pytest.mark.timeout(900)
def test_packed_rows_are_trained_as_padded_ones_by_unsloths_trainer(
    smollm2: Path, tmp_path: Path
) -> None:
    script = ROOT / "tests/train/packed_by_unsloth.py"
    done = subprocess.run(
        [sys.executable, str(script), str(smollm2), str(tmp_path / "gptoss")],
        env=child_environment(os.environ, tmp_path, on_cpu=True) | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["steps"] == 3
    assert found["training"] < 1e-4
    assert found["lean steps"] == 3
    assert found["lean"] < 1e-3
    assert found["falls"]
    assert found["loss"] < 1e-5
    assert found["gradient"] < 1e-4
    assert found["error"] < 1e-5
    assert found["error when documents see each other"] > 2 * packed_library.TOLERANCE


@pytest.mark.parametrize(
    ("error", "packed"), [(0.003, True), (0.02, False), (float("nan"), False), (4.0, False)]
)
def test_a_model_that_packs_wrongly_trains_padded_rows(
    monkeypatch: pytest.MonkeyPatch, error: float, packed: bool
) -> None:
    monkeypatch.setattr(packed_library, "PackedLibrary", lambda model, context: model)
    monkeypatch.setattr(packed_library, "autocast", lambda spec: None)
    monkeypatch.setattr(packed_library, "packing_error", lambda model, tokens: error)
    told: list[str] = []
    plan = probe.packs(PLAN, SPEC, object(), ROWS, told.append)
    if packed:
        assert (plan, told) == (PLAN, [])
        return
    padded = {"packing": False, "micro_batch_size": 1, "gradient_accumulation": SPEC.batch_size}
    assert plan == PLAN | padded
    assert "rows are padded instead" in told[0]

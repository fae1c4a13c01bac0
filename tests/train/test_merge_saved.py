"""The merge of an MXFP4 base by PEFT and its verification, on a tiny gpt-oss, as real processes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench.gptoss import TINY, write_checkpoint
from job.child import Child, child_environment
from job.errors import InternalError
from job.spec import read_spec

pytestmark = [pytest.mark.training, pytest.mark.timeout(900)]


def write_adapter(base: Path, folder: Path) -> None:
    """An adapter on attention and fused experts, as Unsloth saves it, with random weights."""
    import torch
    from peft import LoraConfig, get_peft_model

    from job.train.models import load

    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    get_peft_model(load(base, "host"), config).save_pretrained(folder)


def run_child(module: str, folder: Path, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one child to its end; returns its events."""
    events: list[dict[str, Any]] = []
    env = child_environment(os.environ, folder, on_cpu=True)
    Child(module, env, folder / "log", events.append).run(request)
    return events


def test_experts_of_an_mxfp4_base_are_merged_and_verified(tmp_path: Path) -> None:
    base, adapter, merged = (tmp_path / name for name in ("base", "adapter", "merged"))
    write_checkpoint(base, TINY, "mxfp4")
    write_adapter(base, adapter)
    folders = {"model": str(base), "adapter": str(adapter), "merged": str(merged)}
    events = run_child("job.train.merge_saved", tmp_path, folders)
    assert events[-1] == {"event": "artifact", "part": "merged"}
    assert "quantization_config" not in json.loads((merged / "config.json").read_text())

    (tmp_path / "probe.json").write_text(json.dumps([list(range(40, 90))]))
    spec = read_spec(
        {
            "JOB_DEVICE": "cpu",
            "JOB_MODEL": str(base),
            "JOB_DATASET": "/rows.jsonl",
            "JOB_OUTPUT": "file:///output",
            "JOB_PROMPTS": json.dumps(["hello"]),
            "JOB_SAMPLE_TOKENS": "4",
        }
    )
    request = folders | {
        "spec": spec.public(),
        "probe": str(tmp_path / "probe.json"),
        "template_date": "2026-01-01",
    }
    report = run_child("job.train.verify", tmp_path, request)[-1]["merge"]
    assert report["merged_tensors"] == 2 * (4 + 2)  # attention and fused experts, two layers
    assert report["relative_error"] < report["tolerance"] < report["relative_change_by_training"]

    from job.train.models import load

    load(base, "host").save_pretrained(merged, save_original_format=False)  # nothing merged
    with pytest.raises(InternalError, match=r"is not base \+ adapter"):
        run_child("job.train.verify", tmp_path, request)

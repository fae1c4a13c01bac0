"""The code of the model cards, run as it stands on what was saved."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from job.child import child_environment
from job.report.card import render_card
from job.report.loading import BASE
from job.train.merge import save_adapter
from tests.jobs import ROOT
from tests.report import sample
from tests.train.tiny import make_trainer, spec

PROMPT = "w3 w5 w7"
# Of device=cpu, as job/train/load.py gives them; all else is the card's.
UNSLOTH_ON_CPU = """
import sys
from job.train.__main__ import import_unsloth
import_unsloth(on_cpu=True)
import torch, unsloth
class FastLanguageModel(unsloth.FastModel):
    @staticmethod
    def from_pretrained(*given, **named):
        named |= {"device_map": "cpu", "dtype": torch.float32, "use_gradient_checkpointing": False}
        return unsloth.FastModel.from_pretrained(*given, **named)
unsloth.FastLanguageModel = FastLanguageModel
exec(sys.argv[1])
ids = tokenizer(sys.argv[2], return_tensors="pt")["input_ids"]
print("logits", model.eval()(input_ids=ids).logits[0, -1].tolist())
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Base, adapter and merged model in folders, and the next token's logits after the prompt."""
    folder = tmp_path_factory.mktemp("saved")
    trainer = make_trainer(spec(folder))
    model, tokenizer = trainer.model, trainer.processing_class
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    base = {"name": str(folder / "base"), "revision": None}
    save_adapter(model, tokenizer, folder / "adapter", base)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        tuned = model.eval()(input_ids=ids).logits[0, -1]
        with model.disable_adapter():
            untuned = model(input_ids=ids).logits[0, -1]
    assert not torch.allclose(tuned, untuned, atol=1e-3)
    merged = model.merge_and_unload()
    for name, whole in (("merged", merged), ("base", make_trainer(spec(folder)).model.unload())):
        whole.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {"folder": folder, "logits": tuned}


def codes(kind: str, folder: Path) -> dict[str, str]:
    """The card's Python by what it is for, with the paths that a person would fill in."""
    result = sample.done()
    result["model"] = {"uri": "/somewhere/base", "revision": None, "stored": "16bit"}
    result["spec"].update(output="file:///out", max_seq_length=64)
    found = re.findall(r"With (.*?):\n\n```python\n(.*?)```", render_card(result, kind), re.DOTALL)
    places = {BASE: folder / "base", f"path/to/{kind}": folder / kind}
    for place, path in places.items():
        found = [(name, code.replace(place, str(path))) for name, code in found]
    return dict(found)


@pytest.mark.parametrize(
    ("kind", "name"), [("adapter", "transformers and PEFT"), ("merged", "transformers")]
)
def test_transformers_and_peft_load_it_so(saved: dict[str, Any], kind: str, name: str) -> None:
    names: dict[str, Any] = {}
    exec(codes(kind, saved["folder"])[name], names)  # noqa: S102
    ids = names["tokenizer"](PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = names["model"].eval()(input_ids=ids).logits[0, -1]
    torch.testing.assert_close(logits, saved["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.training
@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_unsloth_loads_it_so(saved: dict[str, Any], kind: str, tmp_path: Path) -> None:
    code = codes(kind, saved["folder"])["Unsloth"]
    env = child_environment(os.environ, tmp_path, on_cpu=True)
    done = subprocess.run(
        [sys.executable, "-c", UNSLOTH_ON_CPU, code, PROMPT],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("logits "))
    logits = torch.tensor([float(value) for value in line[8:-1].split(",")])
    torch.testing.assert_close(logits, saved["logits"], rtol=1e-4, atol=1e-4)


def test_an_adapter_is_saved_without_a_card_that_names_a_folder_here(saved: dict[str, Any]) -> None:
    assert not (saved["folder"] / "adapter" / "README.md").exists()

"""The whole job on a real model: trained, merged, verified, published to a folder and to S3.

One run of 60 steps serves most tests here; it takes some minutes on two cores.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from job.credentials import read_credentials
from job.receipt import verify_uri
from tests.conftest import BUCKET
from tests.jobs import ROOT
from tests.train.conftest import ROWS

pytestmark = [pytest.mark.training, pytest.mark.timeout(1800)]

CANARY = "hf_canaryCanaryCANARY0123456789"
PROMPT = "Why do we see lightning before we hear thunder?"


def spec(model: Path, **keys: str) -> dict[str, str]:
    """The demo's job, as variables."""
    keys = {
        "device": "cpu",
        "model": str(model),
        "dataset": str(ROWS),
        "max_seq_length": "1024",
        "batch_size": "2",
        "learning_rate": "1e-3",
        "log_format": "lines",
        **keys,
    }
    return {f"JOB_{key.upper()}": value for key, value in keys.items()}


def start(variables: dict[str, str], log: Path) -> subprocess.Popen[str]:
    """Start the real entry point; its stderr goes to a file."""
    command = [sys.executable, str(ROOT / "entrypoint.py"), "run"]
    kept = ("PATH", "LANG", "LD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    with log.open("w") as stderr:
        return subprocess.Popen(
            command, env=env | variables, stdout=subprocess.PIPE, stderr=stderr, text=True
        )


def last_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the end and read the last line of stdout."""
    line: dict[str, Any] = json.loads(process.communicate()[0].splitlines()[-1])
    assert line["exit_code"] == process.returncode
    return line


def events(work_dir: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind of the only run in a work dir."""
    (path,) = work_dir.glob("*/events.jsonl")
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [event for event in found if event["event"] == kind]


def until(folder: Path, kind: str, reached: Any) -> None:
    """Wait for an event of this kind that satisfies `reached`."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if list(folder.glob("work/*/events.jsonl")) and any(
            reached(event) for event in events(folder / "work", kind)
        ):
            return
        time.sleep(0.1)
    raise AssertionError(f"waited in vain for {kind}")


@dataclass
class Finished:
    """The run, and the other job of the same name that was started while it worked."""

    folder: Path
    variables: dict[str, str]
    line: dict[str, Any]
    rival: dict[str, Any]

    @property
    def output(self) -> Path:
        return self.folder / "output" / "e2e"

    @property
    def receipt(self) -> dict[str, Any]:
        receipt: dict[str, Any] = json.loads((self.output / "receipt.json").read_text())
        return receipt


@pytest.fixture(scope="module")
def finished(
    smollm2: Path, s3_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    folder = tmp_path_factory.mktemp("e2e")
    keys = {"name": "e2e", "max_steps": "60", "eval_fraction": "0.1", "sample_tokens": "48"}
    keys |= {"lora_r": "16", "lora_alpha": "32", "prompts": json.dumps([PROMPT])}
    common = spec(smollm2, **keys) | s3_env | {"HF_TOKEN": CANARY}
    s3 = f"s3://{BUCKET}/runs"
    ours = common | {
        "JOB_WORK_DIR": str(folder / "work"),
        "JOB_OUTPUT": f"file://{folder}/output,{s3}",
    }
    run = start(ours, folder / "run.log")
    claim = folder / "output" / "e2e" / "claim.json"
    while not claim.exists():  # destinations are claimed in order, the folder first
        assert run.poll() is None, (folder / "run.log").read_text()
        time.sleep(0.2)
    time.sleep(2)
    theirs = common | {"JOB_WORK_DIR": str(folder / "rival"), "JOB_OUTPUT": s3}
    rival = last_line(start(theirs, folder / "rival.log"))
    return Finished(folder, ours, last_line(run), rival)


def test_the_run_ends_with_0_and_verified_receipts(
    finished: Finished, s3_env: dict[str, str]
) -> None:
    assert finished.line["exit_code"] == 0, (finished.folder / "run.log").read_text()[-4000:]
    assert len(finished.line["receipt"]) == 2
    for uri in finished.line["receipt"]:
        receipt, problems = verify_uri(uri, read_credentials(s3_env))
        assert problems == []
        parts = {file["path"].split("/")[0] for file in receipt["files"]}
        assert parts == {"adapter", "merged", "report"}
        assert receipt["merge"]["largest_weight_error"] < 0.01
        assert receipt["merge"]["merged_tensors"] == 30 * 7  # every projection of every layer


def test_a_second_job_of_the_same_name_at_once_ends_with_73(finished: Finished) -> None:
    assert finished.rival["exit_code"] == 73
    assert finished.rival["receipt"] is None


def test_training_lowers_the_loss_on_held_out_rows(finished: Finished) -> None:
    training = finished.receipt["training"]
    assert training["steps"] == 60
    assert training["eval_loss_after"] < training["eval_loss_before"] - 0.3


def test_adapter_and_merged_weights_answer_the_same_token_for_token(
    finished: Finished, smollm2: Path
) -> None:
    """PEFT loads the adapter on the base and merges it in the base's dtype: no answer differs.

    Unmerged, base + adapter compute with W + BA in full precision, which 16-bit weights cannot
    hold: there an answer may part from the merged model's, but only where two tokens are as good
    as equal.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def load(folder: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)

    adapter = finished.output / "adapter"
    tokenizer = AutoTokenizer.from_pretrained(finished.output / "merged")
    base = load(smollm2).float()
    unmerged = PeftModel.from_pretrained(load(smollm2).float(), adapter)
    tuned = PeftModel.from_pretrained(load(smollm2), adapter).merge_and_unload().float()
    merged = load(finished.output / "merged").float()

    def answer(model: Any, inputs: Any) -> list[int]:
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=32, do_sample=False)
        tokens: list[int] = output[0].tolist()
        return tokens

    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    chats = [[{"role": "user", "content": PROMPT}]]
    chats += [[{"role": m["role"], "content": m["content"]} for m in r["messages"][:2]]
              for r in rows[:3]]  # fmt: skip
    for chat in chats:
        inputs = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ours = answer(merged, inputs)
        assert answer(tuned, inputs) == ours
        assert answer(base, inputs) != ours
        theirs = answer(unmerged, inputs)
        if theirs != ours:
            place = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
            with torch.inference_mode():
                logits = unmerged(input_ids=torch.tensor([ours[:place]])).logits[0, -1]
            gap = float(logits[theirs[place]] - logits[ours[place]])
            assert gap < finished.receipt["merge"]["max_logit_difference"]


def test_the_adapter_names_its_base(finished: Finished, smollm2: Path) -> None:
    config = json.loads((finished.output / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(smollm2)
    assert set(config["target_modules"]) >= {"q_proj", "down_proj"}


def test_report_and_samples_are_there(finished: Finished) -> None:
    report = finished.output / "report"
    assert {p.name for p in report.iterdir()} >= {"index.html", "loss.png", "data.json"}
    (sample,) = json.loads((report / "samples.json").read_text())
    assert sample["prompt"] == [{"role": "user", "content": PROMPT}]
    assert sample["before"]["text"] != sample["after"]["text"]
    audit = json.loads((report / "data.json").read_text())
    assert audit["kinds"]["reasoning"]["rows"] == audit["train"]["rows"]
    assert audit["leakage"]["remaining"] == {"exact": 0, "normalized": 0, "conversation": 0}
    assert audit["train"]["rows"] + audit["eval"]["rows"] == 117


def test_no_secret_is_in_any_file_that_the_run_left(
    finished: Finished, s3_env: dict[str, str]
) -> None:
    secrets = [CANARY.encode(), s3_env["AWS_SECRET_ACCESS_KEY"].encode()]
    files = [path for path in finished.folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        assert not any(secret in content for secret in secrets), path


def test_started_again_the_run_trains_nothing(finished: Finished) -> None:
    before = len(events(finished.folder / "work", "step"))
    started = time.monotonic()
    line = last_line(start(finished.variables, finished.folder / "again.log"))
    assert line["exit_code"] == 0
    assert line["receipt"] == finished.line["receipt"]
    assert "already done" in line["message"]
    assert time.monotonic() - started < 20  # the import of Unsloth alone takes longer
    assert len(events(finished.folder / "work", "step")) == before


def test_the_same_spec_and_seed_give_the_same_losses(finished: Finished, tmp_path: Path) -> None:
    places = {"JOB_WORK_DIR": f"{tmp_path}/work", "JOB_OUTPUT": f"file://{tmp_path}/output"}
    again = start(finished.variables | places, tmp_path / "again.log")
    until(tmp_path, "step", lambda event: event["step"] == 4)
    again.send_signal(signal.SIGTERM)
    assert last_line(again)["exit_code"] == 75
    first, second = (
        [event["loss"] for event in events(place / "work", "step")]
        for place in (finished.folder, tmp_path)
    )
    assert len(second) >= 4
    assert second == first[: len(second)]

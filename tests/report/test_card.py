"""The model card: metadata that the Hub accepts, commands that load, nothing private."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from job.report import write_card
from job.report.card import render_card
from tests.report import sample


def data(result: dict[str, Any], kind: str) -> dict[str, Any]:
    return dict(ModelCard(render_card(result, kind)).data.to_dict())


def local() -> dict[str, Any]:
    """A finished run of a model in a folder, on sources that are nobody else's business."""
    result = sample.done()
    result["model"] = {"uri": "/home/jane/secret-model", "revision": None, "type": "llama"}
    result["datasets"] = [
        {"uri": "/home/jane/notes.jsonl", "revision": None, "rows": 3},
        {"uri": "s3://jane-bucket/rows", "revision": None, "rows": 3},
        {"uri": "https://jane.example/rows.jsonl?format=messages", "revision": None, "rows": 3},
    ]
    result["spec"].update(model="/home/jane/secret-model", output="file:///home/jane/out")
    return result


def test_an_adapter_names_its_base_its_data_and_its_library() -> None:
    assert data(sample.done(), "adapter") == {
        "base_model": "unsloth/gpt-oss-20b",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "datasets": ["HuggingFaceH4/Multilingual-Thinking"],
        "language": ["ar", "fr", "ja"],
        "tags": ["finetune-job", "unsloth", "sft", "lora"],
    }


def test_a_merged_model_is_a_finetune_for_transformers() -> None:
    found = data(sample.done(), "merged")
    assert (found["base_model_relation"], found["library_name"]) == ("finetune", "transformers")


def test_a_norwegian_model_is_not_in_the_language_false() -> None:
    result = sample.done()
    result["audit"]["languages"] = {"Norwegian": 3}
    assert data(result, "merged")["language"] == ["no"]


def test_a_local_base_is_no_base_on_the_hub() -> None:
    found = data(local(), "adapter")
    assert not {"base_model", "base_model_relation", "datasets"} & set(found)


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_a_card_tells_no_path_bucket_or_address(kind: str) -> None:
    card = render_card(local(), kind)
    assert "a local folder" in card
    for private in ("/home", "jane-bucket", "rows.jsonl", "secret-model", "notes"):
        assert private not in card


def test_the_base_is_loaded_at_the_commit_that_was_trained_on() -> None:
    card = render_card(sample.done(), "adapter")
    assert f'"unsloth/gpt-oss-20b", revision="{"d" * 40}"' in card
    assert 'PeftModel.from_pretrained(base, "acme/gpt-oss-thinks-lora")' in card


def test_vllm_is_given_a_rank_that_it_allows_and_that_fits() -> None:
    result = sample.done()
    result["spec"]["lora_r"] = 12
    assert "--max-lora-rank 16" in render_card(result, "adapter")


def test_an_adapter_that_is_alone_is_at_the_root_of_its_repository() -> None:
    result = sample.done()
    result["spec"]["save"] = "lora"
    assert 'from_pretrained(base, "acme/gpt-oss-thinks")' in render_card(result, "adapter")


def test_python_in_the_card_is_python() -> None:
    for kind in ("adapter", "merged"):
        code = render_card(sample.done(), kind).split("```python\n")[1].split("```")[0]
        compile(code, "card", "exec")


def test_results_settings_data_and_a_sample_are_told() -> None:
    card = render_card(sample.done(), "merged")
    for fact in ("2.953 → 2.104", "| lora_r | 8 |", "| Dropped | 2 rows longer",
                 "unsloth 2026.10.7", "実数解は x ≈ 1.2915 です。", "Merge, logits"):  # fmt: skip
        assert fact in card


def test_a_sample_cannot_leave_its_code_block() -> None:
    result = sample.done()
    result["samples"][0]["after"]["final"] = "````\n# Injected\n[x](http://y)"
    card = render_card(result, "merged")
    assert "`````text\n````\n# Injected" in card


def test_a_table_cell_cannot_break_its_table() -> None:
    result = sample.done()
    result["device"]["name"] = "a | b\n<img src=x>"
    assert "| device | a \\| b &lt;img src=x> |" in render_card(result, "merged")


def test_the_card_of_a_run_that_did_not_finish_says_so(tmp_path: Path) -> None:
    write_card(tmp_path / "README.md", sample.out_of_memory(), "adapter")
    assert "did not finish" in (tmp_path / "README.md").read_text(encoding="utf-8")

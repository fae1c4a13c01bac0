"""The model card: metadata that the Hub accepts, commands that load, nothing private."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, ModelCard, ModelCardData

from job.report import write_card
from job.report.card import render_card
from tests.hub_cards import metadata_errors
from tests.hub_double import HubDouble
from tests.report import sample

KINDS = pytest.mark.parametrize("kind", ["adapter", "merged"])


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
        "license": "apache-2.0",
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


@KINDS
def test_the_hub_and_its_client_take_the_metadata(kind: str) -> None:
    card = render_card(sample.done(), kind)
    found = ModelCard(card, ignore_metadata_errors=False).data
    assert ModelCardData(**found.to_dict()).to_dict() == found.to_dict()
    with HubDouble() as hub:
        hub.add_repo("models", "acme/tuned", token="hf_acme")
        HfApi(endpoint=hub.url, token="hf_acme").upload_file(
            path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="acme/tuned"
        )
        assert hub.files("acme/tuned")["README.md"] == card.encode()
        info = HfApi(endpoint=hub.url, token="hf_acme").model_info("acme/tuned")
    assert info.card_data.base_model == "unsloth/gpt-oss-20b"


def test_the_stand_in_for_the_hub_refuses_what_the_hub_refuses() -> None:
    good = data(sample.done(), "adapter")
    assert metadata_errors(good) == []
    for wrong in (
        {"base_model": "/work/models/base"},
        {"base_model": "s3://bucket/base"},
        {"base_model_relation": "child"},
        {"license": "mine"},
        {"language": ["Norwegian"]},
        {"language": [False]},
        {"tags": [1]},
        {"pipeline_tag": 3},
    ):
        assert metadata_errors(good | wrong), wrong


def test_the_licence_is_that_of_the_base_with_a_link_that_leads_there() -> None:
    assert data(sample.done(), "merged")["license"] == "apache-2.0"
    result = sample.done()
    licence = {"license": "other", "license_name": "own", "license_link": "LICENSE"}
    result["model"]["licence"] = licence
    found = data(result, "adapter")
    commit = "d" * 40
    link = f"https://huggingface.co/unsloth/gpt-oss-20b/blob/{commit}/LICENSE"
    assert {key: found[key] for key in licence} == licence | {"license_link": link}
    result["model"]["licence"] = {"license_link": "https://example.com/terms"}
    assert data(result, "adapter")["license_link"] == "https://example.com/terms"


@pytest.mark.parametrize("uri", ["/home/jane/secret-model", "s3://jane-bucket/model"])
@KINDS
def test_a_base_that_is_not_on_the_hub_is_never_named(kind: str, uri: str) -> None:
    result = local()
    result["model"]["uri"] = result["spec"]["model"] = uri
    found = data(result, kind)
    assert not {"base_model", "base_model_relation", "datasets"} & set(found)
    assert metadata_errors(found) == []
    assert uri not in render_card(result, kind)


@KINDS
def test_a_card_tells_no_path_bucket_or_address(kind: str) -> None:
    card = render_card(local(), kind)
    assert "a local folder" in card
    for private in ("/home", "jane", "rows.jsonl", "secret-model", "notes"):
        assert private not in card


def test_the_base_is_loaded_at_the_commit_that_was_trained_on() -> None:
    card = render_card(sample.done(), "adapter")
    assert f'    "unsloth/gpt-oss-20b",\n    revision="{"d" * 40}",\n' in card
    assert f"vllm serve unsloth/gpt-oss-20b --revision {'d' * 40} --enable-lora" in card
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
        codes = re.findall(r"```python\n(.*?)```", render_card(sample.done(), kind), re.DOTALL)
        assert len(codes) == 2
        for code in codes:
            compile(code, "card", "exec")


def test_a_base_stored_as_mxfp4_is_loaded_as_the_adapter_was_trained() -> None:
    assert "Mxfp4Config(dequantize=True)" in render_card(sample.done(), "adapter")
    result = sample.done()
    result["model"]["stored"] = "16bit"
    assert "Mxfp4" not in render_card(result, "adapter")


def test_unsloth_loads_in_four_bits_what_was_trained_on_four() -> None:
    result = sample.done()
    assert "max_seq_length=4096, load_in_4bit=False" in render_card(result, "adapter")
    result["plan"]["precision"]["value"] = "4bit"
    assert "load_in_4bit=True" in render_card(result, "adapter")


def test_results_settings_data_and_a_sample_are_told() -> None:
    card = render_card(sample.done(), "merged")
    for fact in (
        "2.953 → 2.104",
        "| lora_r | 8 |",
        "| Dropped | 2 rows longer",
        "unsloth 2026.10.7",
        "実数解は x ≈ 1.2915 です。",
        "まず方程式を",
        "Merge, logits",
        "Held-out loss fell by 29 %",
        "| Best evaluation (held-out loss after step 40) | 2.098 |",
        "It was lowest after step 40",
        "| precision | native |",
    ):
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

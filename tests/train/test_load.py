"""Checks at load that the libraries leave out."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from job.errors import InternalError
from job.train.load import MissingWeights
from job.train.models import load


def without_one_weight(folder: Path) -> Path:
    """A tiny Llama whose checkpoint lacks the weights of one projection."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    return folder


def test_a_checkpoint_that_lacks_weights_is_not_trained(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = without_one_weight(tmp_path / "model")
    guard = MissingWeights()
    logging.getLogger("transformers").addHandler(guard)
    try:
        with pytest.raises(InternalError, match="lacks weights"):
            AutoModelForCausalLM.from_pretrained(folder)
    finally:
        logging.getLogger("transformers").removeHandler(guard)


def test_merged_weights_that_lack_a_key_do_not_pass(tmp_path: Path) -> None:
    folder = without_one_weight(tmp_path / "model")
    with pytest.raises(InternalError, match=r"down_proj"):
        load(folder, "cpu", strict=True)


def test_merged_weights_that_are_not_finite_do_not_pass(tmp_path: Path) -> None:
    folder = without_one_weight(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"] = weights["model.layers.0.mlp.up_proj.weight"]
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InternalError, match=r"norm\.weight holds values that are not finite"):
        load(folder, "cpu", strict=True)

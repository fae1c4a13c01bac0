"""gpt-oss with its experts left in MXFP4 gives the dequantised model's losses and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from bench.gptoss import TINY, write_checkpoint
from job.errors import InternalError
from job.spec import JobSpec, read_spec
from job.train import load_mxfp4, models
from job.train.gptoss import PackedGptOss
from job.train.mxfp4 import SCALES, Mxfp4, dequantise
from job.train.packed import pack
from tests.train.gptoss import documents, gradients, one_by_one, worst


def spec(**changes: str) -> JobSpec:
    good = {"JOB_MODEL": "org/name", "JOB_DATASET": "/data/rows.jsonl", "JOB_OUTPUT": "file:///out"}
    return read_spec(good | {f"JOB_{key.upper()}": value for key, value in changes.items()})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mxfp4") / "model"
    write_checkpoint(folder, TINY, "mxfp4")
    return folder


def in_float32(model: Any) -> Any:
    """The same numbers in float32, in which a comparison is exact."""
    causal = model.get_base_model()
    for module in (causal.lm_head, causal.model.embed_tokens):
        if hasattr(module, "kept"):
            module.kept = module.kept.float()
    for layer in causal.model.layers:
        experts = layer.mlp.experts
        while hasattr(experts, "base_layer"):
            experts = experts.base_layer
        for weight in experts.kept.values():
            weight.dtype = torch.float32
    return model.float()


def test_values_are_those_of_transformers() -> None:
    torch.manual_seed(0)
    blocks = torch.randint(0, 256, (3, 10, 4, 16), dtype=torch.uint8)
    scales = torch.randint(SCALES[0], SCALES[1] + 1, (3, 10, 4), dtype=torch.uint8)
    wanted = convert_moe_packed_tensors(blocks, scales, dtype=torch.bfloat16)
    weight = Mxfp4(blocks, scales, torch.bfloat16)
    assert weight.shape == wanted.shape == (3, 128, 10)
    assert torch.equal(weight[:], wanted)
    assert torch.equal(weight[1], wanted[1])
    assert torch.equal(weight.transpose(1, 2)[1:], wanted.transpose(1, 2)[1:])
    assert torch.isfinite(dequantise(blocks, scales, torch.bfloat16)).all()


@pytest.mark.parametrize("lean", [False, True])
def test_losses_and_gradients_are_those_of_the_dequantised_model(
    checkpoint: Path, lean: bool
) -> None:
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, Mxfp4Config

    ours = in_float32(load_mxfp4.load_model(spec(), checkpoint, "cpu", lean=lean))
    reference = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=torch.float32,
        quantization_config=Mxfp4Config(dequantize=True),
        attn_implementation="eager",
        experts_implementation="eager",
    ).float()
    reference = get_peft_model(reference, load_mxfp4.adapter_config(spec()))
    torch.manual_seed(1)
    pairs = zip(ours.named_parameters(), reference.named_parameters(), strict=True)
    for (name, mine), (other, theirs) in pairs:
        assert (name, mine.shape) == (other, theirs.shape)
        if mine.requires_grad:
            mine.data.normal_(0, 0.1)
            theirs.data.copy_(mine.data)
    docs = documents(5, 33, 2, 17)
    row = pack(docs)
    wanted = one_by_one(reference, docs, len(row.at))
    packed = PackedGptOss(ours)
    assert packed.lean == lean
    loss, losses = packed.loss(row, len(row.at))
    loss.backward()
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-5)
    assert worst(gradients(ours), gradients(reference)) < 1e-4
    scores = [score for score, _, _ in packed.document_scores(row)]
    assert scores[0] == pytest.approx(float(wanted[:4].mean()), rel=1e-4)


def test_a_lean_model_keeps_no_large_tensor_of_its_own(checkpoint: Path) -> None:
    model = load_mxfp4.load_model(spec(lora_r="1"), checkpoint, "cpu", lean=True)
    stored = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes()
              for p in model.parameters()}  # fmt: skip
    with safe_open(checkpoint / "outer.safetensors", "pt") as file:
        embedding = file.get_tensor("model.embed_tokens.weight").nbytes
    assert sum(stored.values()) < 0.02 * embedding


def test_its_adapter_is_saved_as_peft_loads_it(checkpoint: Path, tmp_path: Path) -> None:
    model = load_mxfp4.load_model(spec(), checkpoint, "cpu", lean=True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.1)
    model.save_pretrained(tmp_path / "adapter")
    found = models.with_adapter(models.load(checkpoint, "cpu"), tmp_path / "adapter")
    assert sum("lora_" in name for name, _ in found.named_parameters()) == 2 * 2 * (4 + 2)


def test_a_checkpoint_that_lacks_a_tensor_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).symlink_to(path)
    index = folder / "model.safetensors.index.json"
    content = index.read_text()
    index.unlink()
    index.write_text(content.replace("layers.1.mlp.experts.down_proj_scales", "gone"))
    with pytest.raises(InternalError, match=r"lacks model\.layers\.1\.mlp\.experts\.down_proj_sc"):
        load_mxfp4.load_model(spec(), folder, "cpu", lean=False)


def test_scales_that_no_bfloat16_follows_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).symlink_to(path)
    broken = load_file(checkpoint / "layer-01.safetensors")
    broken["model.layers.1.mlp.experts.down_proj_scales"][0, 0, 0] = 255
    (folder / "layer-01.safetensors").unlink()
    save_file(broken, folder / "layer-01.safetensors")
    with pytest.raises(InternalError, match="scales from 120 to 255"):
        load_mxfp4.load_model(spec(), folder, "cpu", lean=False)

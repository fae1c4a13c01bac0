"""gpt-oss with its experts left in MXFP4, for packed training; nothing is ever dequantised whole.

Unsloth 2026.10.7 on torch 2.8 makes 16 bits of an MXFP4 checkpoint as it loads it, three times the
memory. Here the published tensors go to the card as they are, beside a model whose large
parameters are stubs of the right shape: PEFT puts its adapters on those, and `job.train.gptoss`
computes with the real ones. The model's own forward pass is not for use.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from job.errors import InternalError
from job.spec import JobSpec
from job.train.mxfp4 import SCALES, Mxfp4

EXPERTS = ("gate_up_proj", "down_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def load_model(spec: JobSpec, folder: Path, device: str, *, lean: bool) -> Any:
    """The base model with a fresh adapter on it, a PeftModel in bfloat16.

    Each expert module has `kept`, its two `Mxfp4` by name; a lean model's embedding and output
    matrix are stubs too, and have their tensor in host memory as `kept`.

    Raises:
        InternalError: the checkpoint lacks a tensor, or holds scales that no bfloat16 can follow.
    """
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    tensors = _Tensors(folder, device)
    with torch.device(device):  # its frequencies are computed, not stored
        model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    for number, layer in enumerate(model.model.layers):
        prefix, experts = f"model.layers.{number}.mlp.experts", layer.mlp.experts
        experts.kept = {name: tensors.mxfp4(f"{prefix}.{name}") for name in EXPERTS}
        for name in EXPERTS:
            _stub(experts, name, device)
    if lean:
        for module, name in ((model.model.embed_tokens, "model.embed_tokens"),
                             (model.lm_head, "lm_head")):  # fmt: skip
            module.kept = tensors.on_host(f"{name}.weight")
            _stub(module, "weight", device)
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            path, _, last = name.rpartition(".")
            _set(model.get_submodule(path), last, tensors.on_card(name))
    torch.manual_seed(spec.seed)
    return get_peft_model(model.requires_grad_(False), adapter_config(spec))


def adapter_config(spec: JobSpec) -> Any:
    """PEFT's configuration of what the spec asks to train."""
    from peft import LoraConfig

    wanted = set(spec.lora_targets)
    parts = {"gate_up_proj": {"auto", "gate_proj", "up_proj"}, "down_proj": {"auto", "down_proj"}}
    return LoraConfig(
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,
        use_rslora=spec.lora_rslora,
        target_modules=[n for n in ATTENTION if wanted & {"auto", n}],
        target_parameters=[f"mlp.experts.{n}" for n in EXPERTS if wanted & parts[n]],
        task_type="CAUSAL_LM",
    )


def _set(module: Any, name: str, tensor: Any) -> None:
    module.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))


def _stub(module: Any, name: str, device: str) -> None:
    """A parameter of the shape that was there, one number in memory.

    Not zero: Unsloth 2026.10.7 refuses embeddings whose rows are (unsloth_zoo/tokenizer_utils.py,
    fix_untrained_tokens). `tests/train/packed_by_unsloth.py` has a lean model in its trainer.
    """
    shape = getattr(module, name).shape
    _set(module, name, torch.ones(1, dtype=torch.bfloat16, device=device).expand(shape))


class _Tensors:
    """A checkpoint's tensors by name, read one at a time."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        index = folder / "model.safetensors.index.json"
        self.files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]

    def _read(self, name: str, device: str) -> Any:
        from safetensors import safe_open

        if name not in self.files:
            raise InternalError(f"The checkpoint lacks {name}, which gpt-oss in MXFP4 has.")
        with safe_open(self.folder / self.files[name], "pt", device=device) as file:
            return file.get_tensor(name)

    def on_card(self, name: str) -> Any:
        return self._read(name, self.device).to(torch.bfloat16)

    def on_host(self, name: str) -> Any:
        tensor = self._read(name, "cpu").to(torch.bfloat16)
        return tensor if self.device == "cpu" else tensor.pin_memory()

    def mxfp4(self, name: str) -> Mxfp4:
        blocks, scales = (self._read(f"{name}_{p}", self.device) for p in ("blocks", "scales"))
        least, most = (int(v) for v in scales.aminmax())
        if least < SCALES[0] or most > SCALES[1]:
            raise InternalError(f"{name}: scales from {least} to {most} are no weights' scales.")
        return Mxfp4(blocks, scales, torch.bfloat16)

"""Models as their users load them: plain transformers and PEFT, without Unsloth."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

from job.errors import InternalError


def load(folder: Path, device: str, *, strict: bool = False) -> Any:
    """A causal language model from a folder; float32 on `cpu`, bfloat16 on `cuda` or `host`.

    Args:
        strict: fail on missing, unexpected or mismatched keys, and on values that are not finite.

    Raises:
        InternalError: a strict load found such a key or value.
    """
    import torch
    from transformers import AutoModelForCausalLM, Mxfp4Config

    options: dict[str, Any] = {"dtype": torch.float32 if device == "cpu" else torch.bfloat16}
    if stored_as(folder) == "mxfp4":
        options["quantization_config"] = Mxfp4Config(dequantize=True)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        device_map={"": 0 if device == "cuda" else "cpu"},
        local_files_only=True,
        output_loading_info=True,
        **options,
    )
    wrong = {kind: keys for kind, keys in info.items() if keys}
    if wrong and (strict or "missing_keys" in wrong):
        raise InternalError(f"{folder.name} does not load cleanly: {str(wrong)[:1000]}")
    if strict:
        for name, parameter in model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise InternalError(f"{folder.name}: {name} holds values that are not finite.")
    return model.eval()


def stored_as(folder: Path) -> str | None:
    """How a checkpoint's weights are quantised, e.g. `mxfp4`; None where they are not."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    method: str | None = (config.get("quantization_config") or {}).get("quant_method")
    return method


def place(folder: Path, device: str) -> str:
    """`cpu`; else `cuda` if the model fits there in 16 bits with room to work, or `host`.

    The latter also on a machine without a GPU, where only merging and verifying are left to do.
    """
    import torch

    if device == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        return "host"
    stored = stored_as(folder)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if stored == "mxfp4":
        size = int(size * 16 / 4.25)  # four bits and a shared scale become sixteen
    fits = bool(torch.cuda.mem_get_info()[0] > 1.15 * size)
    return "cuda" if fits or stored == "bitsandbytes" else "host"


def with_adapter(base: Any, folder: Path) -> Any:
    """The base with the saved adapter on it; every saved tensor must have found its place.

    Raises:
        InternalError: a tensor of the file is not in the model, or differs there.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    model = PeftModel.from_pretrained(base, folder).eval()
    saved = load_file(folder / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(model)
    if set(saved) != set(loaded):
        odd = sorted(set(saved) ^ set(loaded))[:5]
        raise InternalError(f"PEFT does not load the adapter completely: {odd}")
    for name, tensor in saved.items():
        if not torch.allclose(tensor, loaded[name].to(tensor.device, tensor.dtype)):
            raise InternalError(f"The adapter's {name} changed on the way through PEFT.")
    return model


def free() -> None:
    """Give the memory of dropped models back before the next is loaded."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

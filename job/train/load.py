"""Base model, tokenizer and adapter, through Unsloth; and the checks that Unsloth leaves out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from job.data.mask.tokenizer import load_tokenizer
from job.errors import InternalError, SpecError
from job.spec import JobSpec

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class MissingWeights(logging.Handler):
    """Turns transformers' LOAD REPORT, only a warning, into a failure.

    A weight that the checkpoint lacks is initialised at random and trained as if nothing were
    wrong. Unsloth 2026.10.7 looks for transformers 4's wording (unsloth/models/_utils.py:3597) and
    never sees version 5's (transformers/utils/loading_report.py:304). `tests/train/test_load.py`
    holds this; it can go when Unsloth by itself refuses the checkpoint of that test.
    """

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "LOAD REPORT" in message and ("MISSING" in message or "MISMATCH" in message):
            raise InternalError(
                "The checkpoint lacks weights that the model needs, so they would be random. "
                "Is its layout meant for another version or precision?\n" + message[:1500]
            )


def load_model(spec: JobSpec, plan: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    """Load the base model with a fresh adapter on it, and its tokenizer (right padding).

    By Unsloth, or by `load_mxfp4` where the plan leaves the experts in MXFP4.

    Args:
        plan: the bare values of `job.plan.Plan`.
        folder: the checkpoint, an absolute path (a relative one looks like a Hub id to Unsloth).

    Raises:
        InternalError: the checkpoint lacks weights, or was not quantised as asked.
        SpecError: `lora_targets` leaves nothing to train.
    """
    import torch
    from unsloth import FastLanguageModel, FastModel

    from job.train import load_mxfp4

    if plan["experts"] == "mxfp4":
        lean = plan["gradient_checkpointing"]
        model = load_mxfp4.load_model(spec, folder, "cuda:0", lean=lean)
        tokenizer = load_tokenizer(folder)
        tokenizer.padding_side = "right"
        return _trainable(model), tokenizer
    on_cpu = spec.device == "cpu"
    # Unsloth's own Llama class keeps its rotary cache on the GPU (unsloth/models/llama.py:2407).
    loader = FastModel if on_cpu else FastLanguageModel
    guard = MissingWeights()
    logging.getLogger("transformers").addHandler(guard)
    try:
        model, tokenizer = loader.from_pretrained(
            str(folder),
            max_seq_length=spec.max_seq_length,
            dtype=torch.float32 if on_cpu else None,
            load_in_4bit=plan["precision"] == "4bit",
            load_in_16bit=plan["precision"] == "16bit",
            device_map="cpu" if on_cpu else {"": 0},
            use_gradient_checkpointing=plan["gradient_checkpointing"],
            random_state=spec.seed,
            use_exact_model_name=True,
            local_files_only=True,
        )
    finally:
        logging.getLogger("transformers").removeHandler(guard)
    if plan["precision"] == "4bit":
        _require_quantised(model)
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor of a multimodal model
    tokenizer.padding_side = "right"
    return _add_adapter(spec, plan, model, loader), tokenizer


def _require_quantised(model: Any) -> None:
    if not any(type(p).__name__ == "Params4bit" for p in model.parameters()):
        raise InternalError("JOB_PRECISION=4bit was asked, but no weight was quantised to NF4.")


def _add_adapter(spec: JobSpec, plan: dict[str, Any], model: Any, loader: Any) -> Any:
    targets = list(PROJECTIONS if spec.lora_targets == ("auto",) else spec.lora_targets)
    # gate, up and down may be fused expert parameters instead of modules: Unsloth maps the names.
    known = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()} | set(PROJECTIONS)
    if unknown := [target for target in targets if target not in known]:
        raise SpecError(
            f"JOB_LORA_TARGETS: this model has no module named {', '.join(unknown)}; its "
            f"projections are {', '.join(sorted(n for n in known if n.endswith('proj')))}."
        )
    model = loader.get_peft_model(
        model,
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=targets,
        use_rslora=spec.lora_rslora,
        bias="none",
        use_gradient_checkpointing=plan["gradient_checkpointing"],
        random_state=spec.seed,
    )
    return _trainable(model)


def _trainable(model: Any) -> Any:
    if trainable_parameters(model) == 0:
        raise SpecError("JOB_LORA_TARGETS leaves nothing to train in this model.")
    return model


def trainable_parameters(model: Any) -> int:
    """How many numbers the optimizer changes."""
    return sum(int(p.numel()) for p in model.parameters() if p.requires_grad)

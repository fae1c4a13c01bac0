"""A gpt-oss small enough for float32 on a CPU, with an adapter that changes things."""

from __future__ import annotations

from typing import Any

from bench.gptoss import Shape, config

VOCAB = 512
SMALL = Shape(layers=2, hidden=96, heads=8, kv_heads=2, experts=8)


def small_model(device: str = "cpu", rank: int = 3, **changes: Any) -> Any:
    """transformers' own model in float32 with PEFT's adapter on q, k, v, o and the experts.

    All tensors are random, also those that start as zeros or ones, so that none drops out of a
    comparison. The window is 8, so that sliding layers see less than the documents of the tests.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, GptOssConfig

    values = config(SMALL, "bf16") | {
        "vocab_size": VOCAB,
        "sliding_window": 8,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "dtype": "float32",
        **changes,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        GptOssConfig(
            **{k: v for k, v in values.items() if k not in ("model_type", "architectures")}
        ),
        attn_implementation="eager",
        experts_implementation="eager",
    ).float()
    lora = LoraConfig(
        r=rank,
        lora_alpha=7,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, lora)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data = 1 + 0.1 * torch.randn_like(parameter)
        elif parameter.requires_grad:
            parameter.data.normal_(0, 0.1)
        elif "bias" in name or "sinks" in name:
            parameter.data.normal_(0, 0.5)
        else:
            parameter.data.normal_(0, 0.4 if "router" in name else 0.08)
    return model.to(device)


def documents(*lengths: int, seed: int = 0) -> list[dict[str, list[int]]]:
    """Random documents whose first third is not trained."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    found = []
    for n in lengths:
        ids = torch.randint(2, VOCAB, (n,), generator=generator).tolist()
        found.append({"input_ids": ids, "labels": [-100] * (n // 3) + ids[n // 3 :]})
    return found


def one_by_one(model: Any, docs: list[dict[str, list[int]]], items: int) -> Any:
    """The trained tokens' losses as transformers computes them; gradients go into the model."""
    import torch

    losses = []
    for doc in docs:
        ids = torch.tensor([doc["input_ids"]], device=model.device)
        labels = torch.tensor(doc["labels"], device=model.device)[1:]
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        (loss.sum() / items).backward()
        losses.append(loss.detach()[labels != -100])
    return torch.cat(losses)


def gradients(model: Any) -> dict[str, Any]:
    """Each adapter tensor's gradient, taken away from the model."""
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return found


def worst(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """Largest relative error of a tensor."""
    assert found.keys() == wanted.keys()
    return max(float((found[n] - wanted[n]).norm() / wanted[n].norm()) for n in wanted)

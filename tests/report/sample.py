"""Results as the supervisor hands them over: a finished run, and one that failed early."""

from __future__ import annotations

import math
from typing import Any

EQUATION = "x^5 + 3x^4 - 10 = 3 を解いてください。"


def history(steps: int) -> list[dict[str, float]]:
    """A falling, noisy loss, a warm-up of five steps and a linear learning rate."""
    return [
        {
            "step": step,
            "loss": 1.9 + 1.5 * math.exp(-step / 18) + 0.18 * math.sin(step * 2.7),
            "learning_rate": 2e-4 * min(step / 5, (steps - step) / (steps - 5) if step > 5 else 1),
            "grad_norm": 1.2,
            "tokens_per_second": 540.0 + 20 * math.sin(step),
            "memory_bytes": 38_400_000_000 - 90_000_000 * max(0, 9 - step),
        }
        for step in range(1, steps + 1)
    ]


def answer(
    text: str,
    analysis: str = "",
    stop: str = "eos",
    tokens: int = 42,
    language: tuple[str, bool | None] | None = None,
) -> dict[str, Any]:
    found = {"name": language[0], "as_asked": language[1]} if language else None
    parts = {"text": text, "analysis": analysis, "final": text, "stop": stop, "tokens": tokens}
    return parts | {"language": found}


def samples() -> list[dict[str, Any]]:
    return [
        {
            "decoding": "sampled",
            "effort": "medium",
            "prompt": [
                {"role": "system", "content": "reasoning language: Japanese"},
                {"role": "user", "content": EQUATION},
            ],
            "before": answer(
                "The equation x^5 + 3x^4 - 13 = 0 has one real root, about 1.38.",
                "We need to solve x^5 + 3x^4 - 13 = 0. Let us try Newton's method from 1.4.\n\n"
                "f(1.4) = 5.378 + 11.525 - 13 = 3.903, so the root is smaller.",
                stop="length",
                tokens=512,
                language=("English", False),
            ),
            "after": answer(
                "実数解は x ≈ 1.2915 です。\n\n検算: 1.2915⁵ ≈ 3.593。",
                "まず方程式を x^5 + 3x^4 - 13 = 0 と書き直します。中間値の定理を使うと、"
                "1 と 2 の間に実数解が一つあります。ニュートン法で近似します。",
                tokens=187,
                language=("Japanese", True),
            ),
        },
        {
            "decoding": "sampled",
            "effort": "medium",
            "prompt": [{"role": "user", "content": "ما هي عاصمة أستراليا؟ ولماذا ليست سيدني؟"}],
            "before": answer("<script>alert('x')</script> The capital is Sydney."),
            "after": answer(
                "عاصمة أستراليا هي كانبرا (Canberra)، وقد اختيرت عام 1908 حلًّا وسطًا "
                "بين سيدني وملبورن.",
                "السؤال عن العاصمة. كثيرون يظنون أنها سيدني لأنها أكبر مدينة.",
                language=("Arabic", None),
            ),
        },
    ]


def audit() -> dict[str, Any]:
    """Two weighted sources, the second of which is scarce, and a few things to warn of."""
    return {
        "train": {"rows": 75, "tokens": 39_700, "trained_tokens": 25_440},
        "available": {"rows": 91, "tokens": 48_213, "trained_tokens": 30_877},
        "eval": {"rows": 3, "tokens": 1_446, "trained_tokens": 907},
        "run": {
            "rows": 960,
            "tokens": 508_400,
            "trained_tokens": 325_600,
            "times": 13,
            "steps": 60,
            "batch_size": 16,
        },
        "sources": [
            {
                "source": "HuggingFaceH4/Multilingual-Thinking",
                "format": "multilingual-thinking",
                "read": 64,
                "available": 61,
                "asked": 0.6,
                "rows": 45,
                "tokens": 29_800,
                "trained_tokens": 20_790,
            },
            {
                "source": "/data/private/notes.jsonl",
                "format": "messages",
                "read": 32,
                "available": 30,
                "asked": 0.4,
                "rows": 30,
                "tokens": 9_900,
                "trained_tokens": 4_650,
            },
        ],
        "kinds": {
            "plain": {
                "available": 30,
                "asked": None,
                "rows": 30,
                "tokens": 9_900,
                "trained_tokens": 4_650,
            },
            "reasoning": {
                "available": 61,
                "asked": None,
                "rows": 45,
                "tokens": 29_800,
                "trained_tokens": 20_790,
            },
        },
        "dropped": {"overlength": 2},
        "cut": 0,
        "unstopped": 0,
        "worst_rows": {
            "overlength": [
                {"source": "/data/private/notes.jsonl", "row": 17, "tokens": 5120},
                {"source": "/data/private/notes.jsonl", "row": 31, "tokens": 4480},
            ]
        },
        "percentiles": {"p50": 431, "p90": 810, "p99": 1702, "max": 5120},
        "duplicates": 1,
        "near_duplicates": 2,
        "leakage": {
            "left_out": {"exact": 0, "normalized": 0, "conversation": 0},
            "remaining": {"exact": 0, "normalized": 0, "conversation": 0},
        },
        "stop_tokens": {"<|return|>": 75},
        "without_stop_token": 0,
        "reasoning_effort": {"medium": 65, "high": 10},
        "dropped_thinking": 3,
        "escaped": 4,
        "folded": 0,
        "languages": {"Japanese": 20, "French": 16, "Arabic": 12},
        "lengths": [
            {"from": 129, "to": 256, "rows": 11},
            {"from": 257, "to": 512, "rows": 52},
            {"from": 513, "to": 1024, "rows": 27},
            {"from": 1025, "to": 5120, "rows": 6},
        ],
        "train_on": "assistant",
        "max_seq_length": 4096,
        "template_date": "2026-01-31",
        "warnings": [
            "60 % of the rows hold reasoning. Less than 75 % may cost the model its ability to "
            "reason; JOB_REASONING_SHARE=0.75 mixes so.",
            "JOB_MAX_STEPS=60 needs 960 rows, which is 12.8 epochs: some rows are "
            "trained 13 times.",
        ],
    }


def spec() -> dict[str, Any]:
    return {
        "model": "unsloth/gpt-oss-20b",
        "dataset": ["HuggingFaceH4/Multilingual-Thinking", "/data/private/notes.jsonl"],
        "output": "s3://models/tuned,hf://acme/gpt-oss-thinks",
        "save": "lora,merged_16bit",
        "precision": "auto",
        "max_seq_length": 4096,
        "train_on": "assistant",
        "lora_r": 8,
        "lora_alpha": 16,
        "batch_size": 16,
        "learning_rate": 2e-4,
        "optimizer": "adamw_8bit",
        "scheduler": "linear",
        "warmup_steps": 5,
        "max_steps": 60,
        "seed": 3407,
        "eval_fraction": 0.05,
        "prompts": [[{"role": "user", "content": EQUATION}]],
        "work_dir": "/work",
    }


def done() -> dict[str, Any]:
    """Everything that a finished run knows."""
    points = history(60)
    return {
        "run": "run-3fa94c01b2d7",
        "status": "done",
        "spec": spec(),
        "model": {
            "uri": "hf://unsloth/gpt-oss-20b",
            "revision": "d" * 40,
            "type": "gpt_oss",
            "licence": {"license": "apache-2.0"},
            "stored": "mxfp4",
        },
        "datasets": [
            {
                "uri": "hf://HuggingFaceH4/Multilingual-Thinking?format=multilingual-thinking",
                "revision": "a" * 40,
                "rows": 64,
                "use": "train",
            },
            {"uri": "/data/private/notes.jsonl", "revision": None, "rows": 32, "use": "train"},
        ],
        "versions": {
            "finetune-job": "0.1.0",
            "torch": "2.8.0+cu128",
            "transformers": "5.17.0",
            "unsloth": "2026.10.7",
            "trl": "1.15.0",
            "peft": "0.21.2",
        },
        "device": {"name": "NVIDIA H100 80GB HBM3", "memory_gb": 79.2},
        "plan": {
            "precision": {"value": "native", "reason": "the checkpoint is stored as MXFP4"},
            "micro_batch_size": {"value": 4, "reason": "16 sequences a step, 4 fit the 79 GB card"},
            "packing": {"value": False, "reason": "one sequence a row"},
        },
        "estimates": {
            "weights": 24_250_000_000,
            "adapter": 369_819_648,
            "gradients": 369_819_648,
            "optimizer": 184_909_824,
            "activations": 14_500_000_000,
            "logits": 0,
            "reserve": 2_147_483_648,
            "results": 28_000_000_000,
        },
        "training": {
            "steps": 60,
            "planned_steps": 60,
            "epochs": 10.55,
            "loss_first": points[0]["loss"],
            "loss_last": points[-1]["loss"],
            "eval_loss_before": 2.953,
            "eval_loss_after": 2.104,
            "eval_accuracy_before": 0.4412,
            "eval_accuracy_after": 0.5527,
            "evals": [
                {"step": 0, "loss": 2.953, "accuracy": 0.4412, "rows": 3},
                {"step": 20, "loss": 2.31, "accuracy": 0.5215, "rows": 3},
                {"step": 40, "loss": 2.098, "accuracy": 0.5531, "rows": 3},
                {"step": 60, "loss": 2.104, "accuracy": 0.5527, "rows": 3},
            ],
            "best_step": 40,
            "tokens": 508_400,
            "trained_tokens": 325_600,
            "seconds": 941.0,
            "peak_memory_bytes": 38_400_000_000,
            "history": points,
        },
        "audit": audit(),
        "samples": samples(),
        "merge": {
            "compared": "merged with base + adapter",
            "relative_error": 0.0031,
            "relative_change_by_training": 0.214,
            "max_logit_difference": 0.0312,
            "tolerance": 0.05,
            "greedy_agreement": {"same": 2, "of": 2, "tokens": 32},
        },
        "timings": {
            "preflight": 1.4,
            "fetch": 73.0,
            "data": 4.2,
            "train": 941.0,
            "merge": 88.0,
            "verify": 61.5,
            "publish": 120.3,
        },
        "files": [
            {"path": "adapter/adapter_config.json", "size": 1_204, "sha256": "1" * 64},
            {"path": "adapter/adapter_model.safetensors", "size": 31_876_224, "sha256": "2" * 64},
            {
                "path": "merged/model-00001-of-00003.safetensors",
                "size": 4_792_272_488,
                "sha256": "3" * 64,
            },
            {"path": "merged/config.json", "size": 1_780, "sha256": "4" * 64},
        ],
        "failure": None,
    }


def resumed() -> dict[str, Any]:
    """A finished run whose first start was killed after step 22."""
    result = done()
    result["training"]["resumed_from"] = 22
    return result


def failed() -> dict[str, Any]:
    """A run that ended before its data was read to the end."""
    return {
        "run": "run-3fa94c01b2d7",
        "status": "failed",
        "spec": spec(),
        "model": {"uri": "hf://unsloth/gpt-oss-20b", "revision": "d" * 40, "type": "gpt_oss"},
        "datasets": [],
        "timings": {"preflight": 1.4, "fetch": 73.0},
        "failure": {
            "exit_code": 65,
            "code": "data",
            "phase": "data",
            "retryable": False,
            "message": "1 of 96 rows of /data/private/notes.jsonl cannot be read.",
            "problems": ["notes.jsonl row 17, column messages: the last turn has no content"],
        },
    }


def out_of_memory() -> dict[str, Any]:
    """A run that trained for a while and then failed: of its training there are only events."""
    result = done()
    training = result["training"]
    steps = [point | {"of": 60, "eta_seconds": 600} for point in training["history"][:21]]
    result.update(
        status="failed",
        training={"history": steps, "evals": training["evals"][:2]},
        timings={"preflight": 1.4, "fetch": 73.0, "data": 4.2, "train": 330.0},
        failure={
            "exit_code": 81,
            "code": "gpu-memory",
            "phase": "train",
            "retryable": False,
            "message": "The GPU's memory does not hold this configuration: 4.2 GB more asked for.",
            "problems": [],
        },
    )
    for part in ("merge", "files", "samples"):
        del result[part]
    return result


def stopped() -> dict[str, Any]:
    """A run that a signal stopped while it trained."""
    return out_of_memory() | {
        "failure": {
            "exit_code": 75,
            "code": "stopped",
            "phase": "train",
            "retryable": True,
            "message": "Stopped by a signal after step 21 of 60, which is kept.",
            "problems": [],
        }
    }

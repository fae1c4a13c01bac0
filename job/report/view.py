"""The result of a run as the sentences and tables that the page, card and summary show.

Pure functions from the result dict; every one copes with parts that a failed run never reached.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from job.report import words

Result = dict[str, Any]


class Headline(NamedTuple):
    """How it ended: `tone` is "good", "warn" or "bad"."""

    tone: str
    badge: str
    text: str
    note: str = ""


def headline(result: Result) -> Headline:
    """The one sentence to take away, honest about what the numbers do and do not show."""
    failure = result.get("failure")
    if result["status"] != "done" and failure:
        stopped = failure["exit_code"] == 75
        return Headline(
            "warn" if stopped else "bad",
            "Stopped" if stopped else "Failed",
            f"{'Stopped' if stopped else 'Failed'} in the phase “{failure['phase']}”",
        )
    known = training(result)
    before, after = known.get("eval_loss_before"), known.get("eval_loss_after")
    if words.finite(before) and words.finite(after):
        rows = ((result.get("audit") or {}).get("eval") or {}).get("rows")
        measured = (
            f"Measured on {words.count(rows) if rows else 'the'} rows that were not trained on"
        )
        return _held_out(before, after, f"{measured}; lower is better.{_best(known)}")
    losses = words.change(known.get("loss_first"), known.get("loss_last"))
    return Headline(
        "good",
        "Finished",
        f"Training loss {losses}",
        "No rows were held out, so this does not tell learning from learning by heart.",
    )


def training(result: Result) -> Result:
    """What is known of the training; of one that did not end, from its steps and evaluations."""
    found = dict(result.get("training") or {})
    history, evals = found.get("history") or [], found.get("evals") or []
    if history:
        first, last = history[0], history[-1]
        ends = {"loss_first": first["loss"], "loss_last": last["loss"], "steps": last["step"]}
        found = ends | found
    if evals:
        later = evals[-1] if len(evals) > 1 else {}
        for key in ("loss", "accuracy"):
            found.setdefault(f"eval_{key}_before", evals[0].get(key))
            found.setdefault(f"eval_{key}_after", later.get(key))
    return found


def best_evaluation(training: Result) -> Result | None:
    """The evaluation with the lowest loss, also of a training that did not end; None of one."""
    evals = [point for point in training.get("evals") or [] if words.finite(point.get("loss"))]
    return min(evals, key=lambda point: float(point["loss"])) if len(evals) > 1 else None


def _best(training: Result) -> str:
    """Where the held-out loss was lowest, if not at the end; else ""."""
    best = best_evaluation(training)
    if best is None or best["step"] == training["evals"][-1]["step"]:
        return ""
    return (
        f" It was lowest after step {best['step']}: {words.loss(best['loss'])}; "
        "what is published is the last."
    )


def _held_out(before: float, after: float, note: str) -> Headline:
    losses = words.change(before, after)
    if after < before:
        return Headline(
            "good",
            "Finished",
            f"Held-out loss fell by {words.share(before - after, before)}: {losses}",
            note,
        )
    return Headline(
        "warn",
        "Finished, look closer",
        f"Held-out loss did not fall: {losses}",
        note,
    )


def resumed(result: Result) -> str:
    """That an earlier start did a part of the training, and how much; "" when none did."""
    step = (result.get("training") or {}).get("resumed_from")
    if not step:
        return ""
    done = words.count(step)
    return f"Resumed: an earlier start was cut off; training went on after step {done}."


def what_was_done(result: Result) -> str:
    """A sentence on model, data and method, from what is known."""
    datasets = training_sets(result)
    rows = sum(dataset.get("rows") or 0 for dataset in datasets)
    text = words.short_name(model_uri(result))
    if datasets:
        names = ", ".join(words.short_name(dataset["uri"]) for dataset in datasets)
        text += f" on {words.count(rows)} rows of {names}" if rows else f" on {names}"
    rank = result["spec"].get("lora_r")
    device = (result.get("device") or {}).get("name")
    return text + (f" · LoRA rank {rank}" if rank else "") + (f" · {device}" if device else "")


def training_sets(result: Result) -> list[Result]:
    """The datasets that were trained on, without those for evaluation."""
    datasets = result.get("datasets") or []
    return [dataset for dataset in datasets if dataset.get("use") != "eval"]


def model_uri(result: Result) -> str:
    """The base model: as resolved, else as the person wrote it."""
    return str((result.get("model") or {}).get("uri") or result["spec"].get("model") or "model")


def merge_sentence(merge: Result | None) -> str:
    """What the verification came to: "" where nothing was merged."""
    found = merge or {}
    if not words.finite(found.get("relative_error")) or not words.finite(found.get("tolerance")):
        return ""
    off, allowed = (words.share(found[key], 1) for key in ("relative_error", "tolerance"))
    return (
        f"A fresh process loaded them and held their logits against base + adapter: {off} off, "
        f"{allowed} are allowed."
    )


def merge_facts(merge: Result | None) -> list[tuple[str, str]]:
    """The verification of the merged weights as (what, value)."""
    names = {
        "compared": "Compared",
        "merged_tensors": "Weights: tensors held against base + adapter",
        "largest_weight_error": "Weights: largest error, as a share of the change",
        "relative_error": "Logits: relative error of the merged model",
        "relative_noise": "Logits: difference that a merge in memory makes",
        "tolerance": "Logits: error allowed",
        "relative_change_by_training": "Logits: relative change by training",
        "max_logit_difference": "Logits: largest single difference",
        "greedy_agreement": "Prompts with the same greedy answer",
    }
    found = merge or {}
    facts = [(names[key], found[key]) for key in names if key in found]
    facts += [(key.replace("_", " "), found[key]) for key in found if key not in names]
    return [(label, _merge_value(value)) for label, value in facts]


def _merge_value(value: Any) -> str:
    if isinstance(value, dict) and {"same", "of"} <= set(value):
        tokens = f" (first {value['tokens']} tokens)" if value.get("tokens") else ""
        return f"{value['same']} of {value['of']}{tokens}"
    return words.number(value)


def settings(plan: Result | None) -> list[tuple[str, str, str]]:
    """What was decided for the person, as (setting, value, reason)."""
    return [
        (name, words.number(setting["value"]), str(setting.get("reason") or ""))
        for name, setting in (plan or {}).items()
    ]


def places(base: str, save: str) -> list[tuple[str, str]]:
    """Where the parts of a published run are, as (what, URI).

    Args:
        base: "s3://bucket/prefix/run", "file:///folder/run" or "hf://org/name".
        save: the spec's `save`, a comma list.
    """
    saves = words.items(save)
    hub = base.startswith("hf://")
    merged = "merged_16bit" in saves
    found = []
    if "lora" in saves:
        adapter = base + ("-lora" if merged else "") if hub else f"{base}/adapter"
        found.append(("adapter", adapter))
    if merged:
        found.append(("merged model", base if hub else f"{base}/merged"))
    return [*found, ("report", f"{base}/report"), ("receipt", f"{base}/receipt.json")]

"""The result of a run as the sentences and tables that the page, card and summary show.

Pure functions from the result dict; every one copes with parts that a failed run never reached.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from job.report import languages, memory, words
from job.report.advice import ADVICE

Result = dict[str, Any]


class Tile(NamedTuple):
    """One key number of the page."""

    label: str
    value: str
    note: str = ""


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
    training = result.get("training") or {}
    before, after = training.get("eval_loss_before"), training.get("eval_loss_after")
    if words.finite(before) and words.finite(after):
        return _held_out(before, after, _best(training))
    losses = words.change(training.get("loss_first"), training.get("loss_last"))
    return Headline(
        "good",
        "Finished",
        f"Training loss {losses}",
        "No rows were held out, so this does not tell learning from learning by heart. "
        "JOB_EVAL_FRACTION=0.05 would.",
    )


def best_evaluation(training: Result) -> Result | None:
    """The evaluation with the lowest loss, also of a training that did not end."""
    evals = [point for point in training.get("evals") or [] if words.finite(point.get("loss"))]
    return min(evals, key=lambda point: float(point["loss"]), default=None)


def _best(training: Result) -> str:
    """Where the held-out loss was lowest, if not at the end; else ""."""
    best = best_evaluation(training)
    if best is None or best["step"] == training["evals"][-1]["step"]:
        return ""
    return (
        f" It was lowest after step {best['step']}: {words.loss(best['loss'])}; "
        "what is published is the last."
    )


def _held_out(before: float, after: float, best: str) -> Headline:
    losses = words.change(before, after)
    if after < before:
        return Headline(
            "good",
            "Finished",
            f"Held-out loss fell by {words.share(before - after, before)}: {losses}",
            f"Measured on rows that were not trained on.{best}",
        )
    return Headline(
        "warn",
        "Finished, look closer",
        f"Held-out loss did not fall: {losses}",
        "On rows it had not seen the model got no better. Fewer steps or a lower learning rate "
        "are the first things to try.",
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


def tiles(result: Result) -> list[Tile]:
    """The key numbers, those that are known."""
    training = result.get("training") or {}
    found = [
        *_loss_tiles(training),
        *_language_tile(result),
        *_work_tiles(training),
        *_time_tiles(result, training),
        _memory_tile(result),
    ]
    return [tile for tile in found if tile.value]


def _loss_tiles(training: Result) -> list[Tile]:
    found = []
    if training.get("loss_first") is not None:
        losses = words.change(training["loss_first"], training.get("loss_last"))
        found.append(Tile("Training loss", losses, "first → last step"))
    before, after = training.get("eval_loss_before"), training.get("eval_loss_after")
    if before is not None:
        note = f"before → after, perplexity {words.perplexities(before, after)}"
        found.append(Tile("Held-out loss", words.change(before, after), note))
    right, then = training.get("eval_accuracy_before"), training.get("eval_accuracy_after")
    if words.finite(right):
        ends = [words.share(value, 1) for value in (right, then) if words.finite(value)]
        shares = "\u00a0→\u00a0".join(ends)
        found.append(Tile("Next token right", shares, "held out, before → after"))
    return [*found, *_best_tile(training)]


def _best_tile(training: Result) -> list[Tile]:
    best, evals = best_evaluation(training), training.get("evals") or []
    if best is None or len(evals) < 2:
        return []
    note = f"after step {best['step']}" if best["step"] else "before training"
    if best["step"] == evals[-1]["step"]:
        note += ", the last one"
    return [Tile("Best evaluation", words.loss(best["loss"]), note)]


def _work_tiles(training: Result) -> list[Tile]:
    steps, tokens, epochs = (training.get(key) for key in ("steps", "tokens", "epochs"))
    if not steps:
        return []
    planned = training.get("planned_steps") or steps
    notes = [
        f"shortened from {words.count(planned)} to fit the budget" if steps < planned else "",
        f"{words.count(tokens)} tokens" if tokens else "",
        f"{words.number(float(epochs))} epochs" if epochs else "",
    ]
    return [Tile("Optimizer steps", words.count(steps), _and(notes))]


def _time_tiles(result: Result, training: Result) -> list[Tile]:
    total = sum((result.get("timings") or {}).values())
    tokens, seconds = training.get("tokens"), training.get("seconds")
    if training.get("resumed_from"):  # the phases are those of the last start alone
        total = 0
    if not seconds:
        return [Tile("Time in all", words.duration(total), "all phases")] if total else []
    notes = [
        f"{words.count(tokens / seconds)} tokens/s" if tokens else "",
        f"{words.duration(total)} in all phases" if total else "",
    ]
    return [Tile("Training time", words.duration(seconds), _and(notes))]


def _and(notes: list[str]) -> str:
    return ", ".join(note for note in notes if note)


def _memory_tile(result: Result) -> Tile:
    card = (result.get("device") or {}).get("memory_gb")
    peak = memory.peak(result.get("training") or {})
    of = f"of {card:.0f} GB" if card else ""
    return Tile("Peak memory", words.size(peak) if peak else "", of)


def _language_tile(result: Result) -> list[Tile]:
    shares = languages.shares(result.get("samples") or [])
    if not shares:
        return []
    counts = [f"{right}\u00a0of\u00a0{of}" for right, of in shares.values()]
    return [Tile("Reasons in the language asked", " → ".join(counts), " → ".join(shares))]


def first_step(failure: Result) -> str:
    """What to do first: what the failure says itself, else the advice for its exit code."""
    return str(failure.get("advice") or ADVICE.get(failure["exit_code"], ""))


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

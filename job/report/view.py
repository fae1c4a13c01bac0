"""The result of a run as the sentences and tables that the page, card and summary show.

Pure functions from the result dict; every one copes with parts that a failed run never reached.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from job.report import words
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
        return _held_out(before, after)
    losses = words.change(training.get("loss_first"), training.get("loss_last"))
    return Headline(
        "good",
        "Finished",
        f"Training loss {losses}",
        "No rows were held out, so this does not tell learning from learning by heart. "
        "JOB_EVAL_FRACTION=0.05 would.",
    )


def _held_out(before: float, after: float) -> Headline:
    losses = words.change(before, after)
    if after < before:
        return Headline(
            "good",
            "Finished",
            f"Held-out loss fell by {words.share(before - after, before)}: {losses}",
            "Measured before and after training on rows that were not trained on.",
        )
    return Headline(
        "warn",
        "Finished, look closer",
        f"Held-out loss did not fall: {losses}",
        "On rows it had not seen the model got no better. Fewer steps or a lower learning rate "
        "are the first things to try.",
    )


def what_was_done(result: Result) -> str:
    """A sentence on model, data and method, from what is known."""
    datasets = training_sets(result)
    rows = sum(dataset.get("rows") or 0 for dataset in datasets)
    text = words.short_name(model_uri(result))
    if datasets:
        names = ", ".join(words.short_name(dataset["uri"]) for dataset in datasets)
        text += f" on {words.count(rows)} rows of {names}" if rows else f" on {names}"
    rank = result["spec"].get("lora_r")
    return text + (f" · LoRA rank {rank}" if rank else "")


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
        *_work_tiles(training),
        *_time_tiles(result, training),
        *_device_tiles(result),
    ]
    return [tile for tile in found if tile.value]


def _loss_tiles(training: Result) -> list[Tile]:
    pairs = (
        ("Training loss", "first → last step", "loss_first", "loss_last"),
        ("Held-out loss", "before → after", "eval_loss_before", "eval_loss_after"),
    )
    return [
        Tile(label, words.change(training[a], training.get(b)), note)
        for label, note, a, b in pairs
        if training.get(a) is not None
    ]


def _work_tiles(training: Result) -> list[Tile]:
    found = []
    if steps := training.get("steps"):
        epochs = training.get("epochs")
        note = f"{words.number(float(epochs))} epochs" if epochs else ""
        planned = training.get("planned_steps") or steps
        if steps < planned:
            note = f"shortened from {words.count(planned)} to fit the budget"
        found.append(Tile("Optimizer steps", words.count(steps), note))
    if tokens := training.get("tokens"):
        trained = training.get("trained_tokens")
        note = f"{words.share(trained, tokens)} of them trained on" if trained else ""
        found.append(Tile("Tokens seen", words.count(tokens), note))
    return found


def _time_tiles(result: Result, training: Result) -> list[Tile]:
    found = []
    if seconds := training.get("seconds"):
        tokens = training.get("tokens")
        note = f"{words.count(tokens / seconds)} tokens/s" if tokens else ""
        found.append(Tile("Training time", words.duration(seconds), note))
    if timings := result.get("timings"):
        found.append(Tile("Time in all", words.duration(sum(timings.values())), "all phases"))
    return found


def _device_tiles(result: Result) -> list[Tile]:
    device = result.get("device") or {}
    memory = device.get("memory_gb")
    peak = (result.get("training") or {}).get("peak_memory_bytes")
    of = f"of {memory:.0f} GB" if memory else ""
    return [
        Tile("Peak memory", words.size(peak) if peak else "", of),
        Tile("Device", device.get("name") or "", f"{memory:.0f} GB" if memory and not peak else ""),
    ]


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
        if "value" in setting
    ]


def estimates(plan: Result | None) -> list[tuple[str, str]]:
    """What the plan expected to need, as (what, size)."""
    found = (plan or {}).get("estimates") or {}
    return [(name.replace("_", " "), words.size(size)) for name, size in found.items() if size]


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

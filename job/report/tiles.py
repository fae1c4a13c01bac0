"""The key numbers of a run, those that are known, each with what it is."""

from __future__ import annotations

from typing import Any, NamedTuple

from job.report import languages, memory, view, words

Result = dict[str, Any]
ARROW = "\u00a0→\u00a0"


class Tile(NamedTuple):
    """One key number of the page."""

    label: str
    value: str
    note: str = ""


def tiles(result: Result) -> list[Tile]:
    """The numbers of a finished run, or how far another one came."""
    training = view.training(result)
    found = [
        *_loss_tiles(training),
        *_language_tile(result),
        *_work_tiles(training),
        *_time_tiles(result, training),
        *_cost_tiles(result),
        _memory_tile(result, training),
    ]
    return [tile for tile in found if tile.value]


def _loss_tiles(training: Result) -> list[Tile]:
    found = []
    if training.get("loss_first") is not None:
        losses = words.change(training["loss_first"], training.get("loss_last"))
        found.append(Tile("Training loss", losses, "first → last step"))
    before, after = training.get("eval_loss_before"), training.get("eval_loss_after")
    if before is not None:
        measured = [loss for loss in (before, after) if loss is not None]
        perplexity = ARROW.join(words.perplexity(loss) for loss in measured)
        note = f"{_moments(training)}, perplexity {perplexity}"
        losses = ARROW.join(words.loss(loss) for loss in measured)
        found.append(Tile("Held-out loss", losses, note))
    right, then = training.get("eval_accuracy_before"), training.get("eval_accuracy_after")
    if words.finite(right):
        ends = [words.share(value, 1) for value in (right, then) if words.finite(value)]
        found.append(Tile("Next token right", ARROW.join(ends), f"held out, {_moments(training)}"))
    return [*found, *_best_tile(training)]


def _moments(training: Result) -> str:
    """When the two evaluations of a tile were: "before → after", or "before → after step 45"."""
    evals = training.get("evals") or []
    if "planned_steps" in training or not evals:  # it came to its end
        return "before → after"
    return f"before → after step {evals[-1]['step']}" if len(evals) > 1 else "before training"


def _best_tile(training: Result) -> list[Tile]:
    best, evals = view.best_evaluation(training), training.get("evals") or []
    if best is None:
        return []
    note = f"held-out loss after step {best['step']}" if best["step"] else "before training"
    if best["step"] == evals[-1]["step"]:
        note += ", the last one"
    return [Tile("Best evaluation", words.loss(best["loss"]), note)]


def _work_tiles(training: Result) -> list[Tile]:
    steps, tokens, epochs = (training.get(key) for key in ("steps", "tokens", "epochs"))
    if not steps:
        return []
    planned = training.get("planned_steps") or steps
    of = (training.get("history") or [{}])[-1].get("of") or steps
    notes = [
        f"shortened from {words.count(planned)} to fit the budget" if steps < planned else "",
        f"of {words.count(of)} planned" if steps < of and "planned_steps" not in training else "",
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


def _memory_tile(result: Result, training: Result) -> Tile:
    card = (result.get("device") or {}).get("memory_gb")
    peak = memory.peak(training)
    of = f"of {card:.0f} GB" if card else ""
    return Tile("Peak memory", words.size(peak) if peak else "", of)


def _language_tile(result: Result) -> list[Tile]:
    shares = languages.shares(result.get("samples") or [])
    if not shares:
        return []
    counts = [f"{right}\u00a0of\u00a0{of}" for right, of in shares.values()]
    return [Tile("Reasons in the language asked", " → ".join(counts), " → ".join(shares))]


def _cost_tiles(result: Result) -> list[Tile]:
    """What all starts cost, where the machine's price is known."""
    if result.get("cost_usd") is None:
        return []
    price = words.dollars(result["spec"]["gpu_usd_per_hour"])
    note = f"at {price} an hour, all starts, until this page"
    return [Tile("Cost", words.dollars(result["cost_usd"]), note)]


def _and(notes: list[str]) -> str:
    return ", ".join(note for note in notes if note)

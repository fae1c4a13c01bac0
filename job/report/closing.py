"""The last lines on the terminal: what came out, one answer before and after, where it all is."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from job.report import advice, view, words

Result = dict[str, Any]
ANSWER_CHARACTERS = 400


def summarise(result: Result, receipts: Sequence[str]) -> str:
    """The summary as plain text, ended by a line end. See `job.report.summary`."""
    lines = [_title(result), *_losses(result.get("training") or {})]
    if result.get("samples"):
        lines += _sample(result["samples"][0])
    if result.get("failure"):
        page = f"{result['spec']['work_dir']}/{result['run']}/report/index.html"
        lines.append(_line("report", page))
    for receipt in receipts:
        base = receipt.removesuffix("/receipt.json")
        lines += [
            _line(what, uri) for what, uri in view.places(base, result["spec"].get("save", ""))
        ]
    if timings := result.get("timings"):
        phases = ", ".join(f"{name} {words.duration(took)}" for name, took in timings.items())
        lines.append(_line("time", phases))
    if result.get("cost_usd") is not None:
        lines.append(_line("cost", words.dollars(result["cost_usd"])))
    return "\n".join(["", *lines, ""])


def fit(text: str, width: int) -> str:
    """The summary's lines broken at spaces, what follows below the value; URIs stay whole."""
    lines = [
        textwrap.fill(
            line,
            width,
            subsequent_indent=" " * 16,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        for line in text.splitlines()
    ]
    return "\n".join([*lines, ""])


def _title(result: Result) -> str:
    took = sum((result.get("timings") or {}).values())
    after = f" after {words.duration(took)}" if took else ""
    failure = result.get("failure")
    if result["status"] == "done" or not failure:
        return f"Finished {result['run']}{after}"
    lines = [
        f"{view.headline(result).badge} in the phase {failure['phase']!r}{after}, "
        f"exit code {failure['exit_code']}: {words.printable(failure['message'])}",
        *(f"  - {words.printable(problem)}" for problem in failure.get("problems") or []),
    ]
    if first := advice.first_step(failure):
        lines.append(_line("first", first))
    return "\n".join(lines)


def _losses(training: Result) -> list[str]:
    lines = []
    if training.get("loss_first") is not None:
        text = f"{words.loss(training['loss_first'])} -> {words.loss(training.get('loss_last'))}"
        steps = f"  ({words.count(training['steps'])} steps)" if training.get("steps") else ""
        lines.append(_line("loss", text + steps))
    before, after = training.get("eval_loss_before"), training.get("eval_loss_after")
    if before is not None:
        lines.append(_line("held-out", f"{words.loss(before)} -> {words.loss(after)}"))
    return lines


def _sample(sample: Result) -> list[str]:
    lines = [_line("asked", _short(words.prompt_text(sample["prompt"])))]
    for moment in ("before", "after"):
        if answer := sample.get(moment):
            if reasoning := answer.get("analysis"):
                lines.append(_line(moment, f"[reasons] {_short(str(reasoning))}"))
            text = _short(words.answer_text(answer))
            lines.append(_line(moment, text or "(no answer)"))
    return lines


def _short(text: str) -> str:
    return words.shorten(text, ANSWER_CHARACTERS)


def _line(label: str, text: str) -> str:
    return f"  {label:<12}  {text}"

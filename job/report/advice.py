"""What to do: first after a failure, by its exit code; next after a run, by its numbers.

One or two steps each, most likely one first.
"""

from __future__ import annotations

from typing import Any

from job.report import view, words

Result = dict[str, Any]
STILL_FALLING = 0.01  # of the held-out loss, between the last two evaluations
ADVICE: dict[int, str] = {
    64: "Run `python entrypoint.py --help`; the commands and their arguments are listed there.",
    65: "Look at the rows named above in the dataset. `python entrypoint.py check` reads all rows "
    "again without training. A wrong format is named with ?format= on the source.",
    66: "Check the spelling and the revision. A private Hub repository looks like a missing one "
    "to a token that may not read it.",
    69: "Start the job again: on another host for a GPU or its memory, later for a service that is "
    "down. `nvidia-smi` in the container must show a GPU, with a driver for CUDA 12.8.",
    70: "This is a bug of the job or of a library. What was saved before it is kept. The log's "
    "last lines and this page's versions are what a bug report needs.",
    71: "Give the container more disk or memory: `python entrypoint.py check` prints what the job "
    "needs. Then start it again with the same spec.",
    73: "Another run has this name at the destination, or this one's files are gone there. Choose "
    "another JOB_NAME, or leave it out: then the name follows from the spec.",
    74: "Repair the destination, then start the job again with the same spec: it only uploads what "
    "is missing. All files are kept in the run's folder under JOB_WORK_DIR.",
    75: "Start the job again with the same spec (with a higher budget, if that ended it): it goes "
    "on from its newest checkpoint. Nothing was published as finished.",
    77: "Check the token or keys: they must be set, not expired, and allowed to read the sources "
    "and to write to the destination. A gated model also wants its terms accepted on the Hub.",
    78: "Correct the variables named above; the README has the table of all of them.",
    81: "Halve JOB_MAX_SEQ_LENGTH, or set JOB_MICRO_BATCH_SIZE=1, or set JOB_PRECISION=4bit; or "
    "take a GPU with more memory.",
    82: "Halve JOB_LEARNING_RATE and raise JOB_WARMUP_STEPS. If the loss was never finite, look "
    "for broken rows in the dataset.",
}


def first_step(failure: Result) -> str:
    """What to do first: what the failure says itself, else the advice for its exit code."""
    return str(failure.get("advice") or ADVICE.get(failure["exit_code"], ""))


def next_steps(result: Result) -> list[str]:
    """What to do with a finished run, and what to change in the next; [] for any other."""
    if result["status"] != "done":
        return []
    merged = "merged_16bit" in words.items(result["spec"].get("save"))
    part, libraries = ("merged", "") if merged else ("adapter", "PEFT, ")
    card = f"the card in `{part}/` (`README.md`) has the code for transformers, {libraries}"
    found = [f"Load it: {card}Unsloth and vLLM. What it is for is left for you to write there."]
    found += _of_losses(view.training(result))
    answers = [sample.get("after") or {} for sample in result.get("samples") or []]
    if cut := sum(answer.get("stop") == "length" for answer in answers):
        tokens = result["spec"].get("sample_tokens") or 512
        found.append(
            f"Answers cut at the token limit: {cut} of {len(answers)}. "
            f"`JOB_SAMPLE_TOKENS={2 * tokens}` shows more of them."
        )
    return found


def _of_losses(training: Result) -> list[str]:
    best, evals = view.best_evaluation(training), training.get("evals") or []
    if not evals:
        return [
            "Hold rows out next time: `JOB_EVAL_FRACTION=0.05` tells learning from learning by "
            "heart."
        ]
    if best is None:
        return []
    if best["step"] == 0:
        return ["Try fewer steps first, then a lower `JOB_LEARNING_RATE`."]
    if best["step"] < evals[-1]["step"]:
        return [
            f"Held-out loss rose again after step {best['step']}: `JOB_MAX_STEPS={best['step']}` "
            "ends about there."
        ]
    if len(evals) > 2 and evals[-1]["loss"] < (1 - STILL_FALLING) * evals[-2]["loss"]:
        return [
            "Held-out loss was still falling at the end: "
            f"`JOB_MAX_STEPS={2 * best['step']}` may lower it further."
        ]
    return []

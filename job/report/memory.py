"""What the job was thought to take of the card, part by part, against the card and what it took."""

from __future__ import annotations

from typing import Any

from job.memory import PARTS, on_card
from job.report import words

Result = dict[str, Any]
NAMES = {"optimizer": "optimizer state"}
ON_CPU = (
    "Estimated before training. This run used the CPU: all of it is main memory, and its peak was "
    "not measured."
)
ON_GPU = "Estimated before training; the peak was measured while it trained."


def facts(result: Result) -> dict[str, Any]:
    """What the page shows: "note", "parts" (bars) and "facts" (pairs); {} before there was a plan.

    The estimates are those of the last plan, if a first one did not fit.
    """
    estimates = result.get("estimates")
    if not estimates:
        return {}
    on_cpu = result["spec"].get("device") == "cpu"
    return {
        "note": ON_CPU if on_cpu else ON_GPU,
        "parts": _parts(estimates),
        "facts": [
            ("Together", words.size(on_card(estimates)) + _of_the_card(result)),
            *_peak(result),
        ],
    }


def peak(training: Result) -> int | None:
    """Most bytes that tensors took on the GPU, also of a training that did not end."""
    seen = [point.get("memory_bytes") or 0 for point in training.get("history") or []]
    return training.get("peak_memory_bytes") or max(seen, default=0) or None


def _parts(estimates: Result) -> list[tuple[str, float, str]]:
    """Each part as (name, percent of the largest, size). Chunks of logits count as activations."""
    largest = max(estimates[part] for part in PARTS) or 1
    names = NAMES | ({} if estimates["logits"] else {"activations": "activations, logits"})
    return [
        (names.get(part, part), 100 * estimates[part] / largest, words.size(estimates[part]))
        for part in PARTS
        if estimates[part]
    ]


def _of_the_card(result: Result) -> str:
    device, whole = result.get("device") or {}, on_card(result["estimates"])
    if not device.get("memory_gb"):
        return ""
    there = 1e9 * device["memory_gb"]
    return f", {words.share(whole, there)} of the {words.size(there)} of the {device['name']}"


def _peak(result: Result) -> list[tuple[str, str]]:
    """The measured peak, and how far the estimate is from it; the reserve is no tensor's."""
    measured = peak(result.get("training") or {})
    if not measured:
        return []
    estimate = on_card(result["estimates"]) - result["estimates"]["reserve"]
    off = f"{words.share(abs(estimate - measured), measured)} "
    off += "more" if estimate > measured else "less"
    return [
        ("Measured peak", f"{words.size(measured)}, of PyTorch's tensors"),
        ("Estimated for the same", f"{words.size(estimate)} without the reserve, {off}"),
    ]

"""Turns with several calls, for templates that say one call a turn (Harmony's, Llama 3.1's).

Such a model makes a call, reads its result and makes the next one. So the same calls and results
are said one after the other, each result right after its call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

from job.data.mask.marks import Turn
from job.data.rows import BadRow, Message


def one_call_a_turn(turns: list[Turn]) -> list[Turn]:
    """The turns, with a turn for each call; calls that have no results yet follow each other.

    Raises:
        BadRow: several calls, and not a result for each.
    """
    found: list[Turn] = []
    runs = [(kind, list(run)) for kind, run in groupby(turns, _kind)]
    for place, (kind, run) in enumerate(runs):
        if kind == "result" and found and place and runs[place - 1][0] == "call":
            continue  # said with the calls
        if kind != "call":
            found += run
            continue
        calls = [single for turn in run for single in _split(turn)]
        after, results = runs[place + 1] if place + 1 < len(runs) else ("", [])
        found += _paired(calls, results if after == "result" else [])
    return found


def _kind(turn: Turn) -> str:
    if "tool_calls" in turn.message:
        return "call"
    return "result" if turn.message["role"] == "tool" else "other"


def _split(turn: Turn) -> Iterator[Turn]:
    """A turn for each call; what is said beside them goes with the first."""
    said = turn.message
    for call in turn.message["tool_calls"]:
        yield replace(turn, message={**said, "tool_calls": [call]}, calls=1)
        said = {"role": "assistant", "content": ""}


def _paired(calls: list[Turn], results: list[Turn]) -> list[Turn]:
    """Each call with its result after it."""
    if len(calls) == 1 or not results:
        return [*calls, *results]
    if len(calls) != len(results):
        raise BadRow(
            f"{len(calls)} calls have {len(results)} results; the model's chat template says one "
            "call a turn, so that each needs its result",
            calls[0].column,
        )
    answers = {result.message.get("tool_call_id"): result for result in results}
    asked = [_id(call.message) for call in calls]
    if set(asked) == set(answers) and len(answers) == len(calls):
        results = [answers[identity] for identity in asked]
    return [turn for pair in zip(calls, results, strict=True) for turn in pair]


def _id(message: Message) -> str | None:
    identity: str | None = message["tool_calls"][0].get("id")
    return identity

"""In which language the model reasoned, against the one it was asked to reason in."""

from __future__ import annotations

from typing import Any

from job.report import words

Sample = dict[str, Any]


def sentence(samples: list[Sample]) -> str:
    """ "Answers that reason in the language asked for: 0 of 4 before, 3 of 4 after."

    "" when no prompt asks for a language.
    """
    parts = [f"{right} of {of} {moment}" for moment, (right, of) in shares(samples).items()]
    return f"Answers that reason in the language asked for: {', '.join(parts)}." if parts else ""


def shares(samples: list[Sample]) -> dict[str, tuple[int, int]]:
    """By "before" and "after": answers that reason in the language asked for, of how many."""
    found = {}
    for moment in ("before", "after"):
        answers = [(sample.get(moment) or {}).get("language") for sample in samples]
        judged = [answer for answer in answers if answer and answer.get("as_asked") is not None]
        if judged:
            found[moment] = (sum(answer["as_asked"] for answer in judged), len(judged))
    return found


def found(answer: Sample) -> str:
    """The language of an answer's reasoning, by name; "" when it was not looked at."""
    language = answer.get("language")
    if not language:
        return ""
    share = language.get("share")
    partly = f" {words.share(share, 1)}" if share is not None and share < 1 else ""
    return f"{language['name'] or 'language not clear'}{partly}"


def decoding(sample: Sample) -> str:
    """How an answer was made: "Greedy, reasoning effort high"; "" in results that do not tell."""
    names = {"greedy": "Greedy", "sampled": "Sampled as the model's makers advise"}
    how = names.get(str(sample.get("decoding")), "")
    effort = f"reasoning effort {sample['effort']}" if sample.get("effort") else ""
    return ", ".join(part for part in (how, effort) if part)

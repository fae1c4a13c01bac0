from __future__ import annotations

import pytest

from job.data.mask.answer import split_answer
from tests.data import families

HARMONY = "template:thinking"


@pytest.mark.parametrize(
    ("text", "analysis", "final"),
    [
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
            "Yes\nno<|return|>",
            "Hm.",
            "Yes\nno",
        ),
        ("<|channel|>analysis<|message|>Still thinking", "Still thinking", ""),
        ("<|channel|>final<|message|>Yes<|return|>", "", "Yes"),
        (
            "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>",
            "{}",
            "",
        ),
        ("No channel at all<|return|>", "", "No channel at all"),
    ],
)
def test_harmony_channels_are_told_apart(text, analysis, final):
    tokenizer = families.stand_in("gptoss")
    expected = {"analysis": analysis, "final": final}
    assert split_answer(text, tokenizer, HARMONY) == expected
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert split_answer(ids, tokenizer, HARMONY) == expected


@pytest.mark.parametrize(
    ("text", "analysis", "final"),
    [
        ("<think>\nHm.\n</think>\n\nYes<|im_end|>", "Hm.", "Yes"),
        ("Hm.\n</think>\n\nYes<|im_end|>", "Hm.", "Yes"),  # the prompt opened the tag
        ("<think>\nStill", "Still", ""),
        ("Yes<|im_end|>", "", "Yes"),
        ("A <|channel|>final<|message|>b", "", "A <|channel|>final<|message|>b"),
    ],
)
def test_think_tags_are_told_apart(text, analysis, final):
    tokenizer = families.stand_in("qwen3")
    for mode in ("template:reasoning_content", "think-tags"):
        assert split_answer(text, tokenizer, mode) == {"analysis": analysis, "final": final}

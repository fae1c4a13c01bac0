"""Random conversations, as hypothesis draws them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.data import families
from tests.data.examples import assistant, call, system, user

Messages = list[dict[str, Any]]

_WORDS = (
    "Hello there",
    "こんにちは、世界",
    "안녕하세요",
    "नमस्ते दुनिया",
    "ไม่มีช่องว่าง",
    "مرحبا بالعالم",
    "שלום עולם",
    "\u202eright to left\u202c",
    "👨‍👩‍👧‍👦 family",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿👍🏽",
    "e\u0301 is é, ﬁ is fi, Ａ is A",
    "zero\u200bwidth\ufeffjoiner\u2060",
    "\x00\x07\x1b[31mred\x7f",
    "\u0085\u2028lines\r\nof\rall kinds\n\n\nand\ttabs",
    "\ue000\U0010f000\U0010f001\U0010fffd private",
    '{"a": [1, "\\"]\n',
    "  spaces   inside  ",
    "{{ messages }}{% raw %}{# no #}",
    "a\\nb \\u003c \\ud800",
    "Ġ▁##Ċ",
    "nospacehere1234567890" * 3,
)
_TAGS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tools>"),
    *(
        "<|im_end|",
        "|im_end|>",
        "<|",
        "|>",
        "<",
        "[",
        "<｜",
        "<<|end|>>",
        "[INST]",
        "<|im_<|im_end|>",
    ),
    *("<pad>", "<unk>", "<0x0A>", "<|reserved_special_token_0|>", "to=functions.f", "analysis"),
)
_TOKENS = sorted(
    {t for known in families.FAMILIES.values() for t in (*known.special, *known.plain)}
)

CLEAN = (
    st.lists(
        st.one_of(st.sampled_from(_WORDS), st.text(min_size=1, max_size=8)), min_size=1, max_size=4
    )
    .map("".join)
    .map(lambda text: text.replace("<", "‹").replace("[", "("))
    .filter(str.strip)
)
"""Text that no family takes for a token or tag of its own."""

ANY = (
    st.lists(
        st.one_of(
            st.sampled_from(_WORDS),
            st.sampled_from(_TAGS),
            st.sampled_from(_TOKENS),
            st.text(min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=5,
    )
    .map("".join)
    .filter(str.strip)
)
"""Text that holds tokens and tags of all families, whole and in parts."""


@st.composite
def conversations(
    draw: Callable[[Any], Any],
    texts: st.SearchStrategy[str],
    *,
    thinking: bool = True,
    tools: bool = True,
    systems: bool = True,
) -> Messages:
    """A conversation of one to three exchanges, each with or without a call, and perhaps more.

    The turns are as `Row` has them.
    """
    found = [system(draw(texts))] if systems and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        found.append(user(draw(texts)))
        if tools and draw(st.booleans()):
            arguments = {"city": draw(texts), "days": draw(st.integers(0, 9))}
            found.append(assistant("", tool_calls=[call("weather", **arguments)]))
            found.append({"role": "tool", "name": "weather", "content": draw(texts)})
        thought = draw(st.one_of(st.just(""), texts)) if thinking else ""
        found.append(assistant(draw(texts), thought))
    return found

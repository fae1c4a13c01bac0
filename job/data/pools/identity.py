"""When two rows are the same: word for word, up to how it is written, or as one conversation.

Three digests a row, each following from the one before: rows that are exactly equal are equal when
normalised, and those are of the same conversation. So to keep conversations on one side of a split
keeps all three there.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from job.data.rows import Message, Row

SIZE = 16
"""Bytes of a digest; two of a billion different rows meet with a chance of 1 in 10^20."""

_BETWEEN = "\x1f"  # counts as a space, so it is in no folded text
_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False, check_circular=False).encode


def exact(row: Row) -> bytes:
    """Equal for rows that say the same, wherever they stand."""
    said = [
        *(row.messages, row.rejected, row.text, row.tools),
        *(row.reasoning_effort, row.context),
    ]
    return _digest(_json(said))


def normalized(row: Row) -> bytes:
    """Equal for rows whose words are the same but for case, spaces and how Unicode writes them.

    The reasoning counts: several ways to one answer are different rows. Effort, schemas of tools
    and what is prompt do not.
    """
    if row.text is not None:
        return _digest(folded(row.text))
    assert row.messages is not None  # noqa: S101 (a row has one of the two)
    said = _said(row.messages, with_thinking=True)
    if row.rejected is not None:
        said += ["rejected", *_said(row.rejected, with_thinking=True)]
    return _digest(_BETWEEN.join(said))


def conversation(row: Row) -> bytes:
    """Equal for rows that begin with the same exchange: up to the first answer to the user.

    The beginning of a conversation, the same one with other later turns, or with other reasoning
    or another rejected answer, are one conversation. Compared as in `normalized`, so that no split
    by conversations parts rows which are equal there. Text is equal as a whole only.
    """
    if row.text is not None:
        return _digest(folded(row.text))
    assert row.messages is not None  # noqa: S101 (a row has one of the two)
    return _digest(_BETWEEN.join(_said(_first_exchange(row.messages), with_thinking=False)))


@lru_cache(maxsize=64)  # one row asks twice, and many rows have the same system turn
def folded(text: str) -> str:
    """The text without what does not change its words: case, spaces, ligatures, full width.

    Compatibility composition (NFKC) and full case folding, one after the other; both again where
    folding has left something to compose (https://unicode.org/reports/tr15, D146 of the standard).
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(text.lower().split())


def _first_exchange(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages up to the first answer that follows a user turn; a greeting comes before."""
    asked = False
    for index, message in enumerate(messages):
        asked = asked or message["role"] == "user"
        if asked and message["role"] == "assistant":
            return messages[: index + 1]
    return messages


def _said(messages: Iterable[Message], *, with_thinking: bool) -> list[str]:
    """Roles and words, the latter folded; `thinking`, calls and names only where there are any."""
    found = []
    for message in messages:
        found += [message["role"], folded(message["content"])]
        if with_thinking and "thinking" in message:
            found += ["thinking", folded(message["thinking"])]
        if "tool_calls" in message:
            found += ["tool_calls", folded(_json(message["tool_calls"]))]
    return found


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=SIZE).digest()

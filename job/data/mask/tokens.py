"""Texts to tokens, and which token stands for which character.

A text may have breaks, over which no token shall reach. There the tokenizer gets a stranger: a
private-use character that no model has a token with, so that its tokens stand alone and can be
taken out again. Two texts, tokenised one by one, would not do: many tokenizers put a space where a
text begins.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from job.data.rows import BadRow

_STRANGERS = range(0x10F000, 0x10FFFE)


def broken(text: str, breaks: Sequence[int]) -> str:
    """The text for the tokenizer, with a stranger at each break."""
    if not breaks:
        return text
    stranger = next(chr(code) for code in _STRANGERS if chr(code) not in text)
    return stranger.join(text[a:b] for a, b in pairwise([0, *breaks, len(text)]))


def mended(encoding: Any, breaks: Sequence[int]) -> Any:
    """The tokens of a broken text without those of the strangers.

    Args:
        encoding: the `tokenizers.Encoding` of what `broken` gave.

    Returns:
        It, or a `_Mended` that answers as it does.

    Raises:
        BadRow: a token holds a stranger and something of the text.
    """
    return _Mended(encoding, breaks) if breaks else encoding


class _Mended:
    def __init__(self, encoding: Any, breaks: Sequence[int]) -> None:
        strangers = [place + index for index, place in enumerate(breaks)]
        self.ids: list[int] = []
        self._spans: list[tuple[int, int]] = []
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            before = bisect_left(strangers, start)
            inside = bisect_left(strangers, end) - before
            if inside and end - start > 1:
                raise BadRow(
                    "holds text that looks like a control token, and the model's tokenizer cannot "
                    "be kept from taking it for one"
                )
            if not inside:
                self.ids.append(token)
                self._spans.append((start - before, end - before))

    def char_to_token(self, place: int) -> int | None:
        """Index of the token that holds the character."""
        spans = enumerate(self._spans)
        return next((i for i, (start, end) in spans if start <= place < end), None)


class Pieces:
    """A text that was tokenised in one or several pieces."""

    def __init__(self, edges: list[int], encodings: list[Any]) -> None:
        """edges: the index of the first character of each piece, and the length of the text."""
        self._edges, self._encodings = edges, encodings
        if len(encodings) == 1:
            self.ids: list[int] = encodings[0].ids
            self._bases = [0, len(self.ids)]
            return
        parts = [encoding.ids for encoding in encodings]
        self._bases = [0, *accumulate(map(len, parts))]
        self.ids = [token for part in parts for token in part]

    def token_from(self, character: int) -> int:
        """Index of the token that holds the character, or of the first one after it.

        Byte-level tokenizers do not count a leading space to a token's offsets.
        """
        piece = bisect_right(self._edges, character) - 1
        begin, end = self._edges[piece : piece + 2]
        for place in range(character, end):
            token = self._encodings[piece].char_to_token(place - begin)
            if token is not None:
                return int(self._bases[piece] + token)
        return self._bases[piece + 1]

    def begins_at(self, character: int) -> bool:
        """Whether a token begins with this character."""
        if character in self._edges:
            return True
        return self.token_from(character - 1) < self.token_from(character)

"""Rendered rows to token ids and labels, and the proof that the labels are what was meant."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from job.data.render import EncodeOptions, Rendered, Renderer
from job.data.rows import BadRow, Findings, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["IGNORED", "EncodeOptions", "Encoded", "encode_rows"]

IGNORED = -100
"""The label of a token that is not trained, as PyTorch's cross entropy has it."""

_BATCH = 512
"""Rows that go to the tokenizer at once; it uses all cores on a batch."""


@dataclass(slots=True)
class Encoded:
    """A row as the trainer takes it.

    Attributes:
        input_ids: token ids.
        labels: as many; the token's id where it is trained, else `IGNORED`.
        stops: indices of the trained stop tokens.
    """

    row: Row
    input_ids: list[int]
    labels: list[int]
    stops: list[int]
    dropped_thinking: int

    @property
    def trained(self) -> int:
        """Trained tokens; the first token of a row is never predicted and does not count."""
        return sum(label != IGNORED for label in self.labels[1:])


def encode_rows(
    rows: Sequence[Row], renderer: Renderer, tokenizer: PreTrainedTokenizerFast
) -> Iterator[Encoded]:
    """Renders, tokenises and proves all rows, in their order.

    Raises:
        DataError: at the end, when at least one row cannot be trained on; the first are listed.
    """
    encoder, findings = _Encoder(tokenizer), Findings()
    for start in range(0, len(rows), _BATCH):
        rendered: list[tuple[Row, Rendered]] = []
        for row in rows[start : start + _BATCH]:
            try:
                rendered.append((row, renderer.render(row)))
            except BadRow as error:
                findings.add(row.place, error)
        whole = encoder.tokens([text.text for _, text in rendered])
        for (row, text), encoding in zip(rendered, whole, strict=True):
            try:
                yield encoder.encode(row, text, encoding)
            except BadRow as error:
                findings.add(row.place, error)
    findings.check(", ".join(dict.fromkeys(row.source for row in rows)), len(rows))


class _Encoder:
    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._unknown = str(tokenizer.unk_token)

    def tokens(self, texts: list[str]) -> list[Any]:
        """One `tokenizers.Encoding` a text; BOS and EOS are only those in the text."""
        if not texts:
            return []
        return list(self._tokenizer(texts, add_special_tokens=False, verbose=False).encodings)

    def encode(self, row: Row, rendered: Rendered, whole: Any) -> Encoded:
        """Labels for a row that is tokenised in one piece, or in several where that is needed.

        A token may reach over the place where the assistant begins ("Assistant: " + "Yes"). Such a
        row is cut there, as prompt and answer are when the model generates.

        Raises:
            BadRow: the trained tokens are not the text that was meant.
        """
        ids, unknown = whole.ids, self._tokenizer.unk_token_id
        if unknown is not None and ids.count(unknown) != rendered.text.count(self._unknown):
            raise BadRow("holds a character for which the model's tokenizer has no token")
        found = self._label(row, rendered, _Pieces([0, len(rendered.text)], [whole]), str.__eq__)
        if found is None:
            pieces = self._cut(rendered)
            found = self._label(row, rendered, pieces, str.__eq__)
            found = found or self._label(row, rendered, pieces, _alike)
        if found is None:
            raise BadRow("its trained tokens do not decode to the text that was meant")
        bos = self._tokenizer.bos_token_id
        if bos is not None and found.input_ids[:2] == [bos, bos]:
            raise BadRow("begins with two BOS tokens")
        return found

    def _cut(self, rendered: Rendered) -> _Pieces:
        """The text in pieces that begin where a trained part begins."""
        edges = sorted({0, *(span.start for span in rendered.spans), len(rendered.text)})
        texts = [rendered.text[a:b] for a, b in pairwise(edges)]
        return _Pieces(edges, self.tokens(texts))

    def _label(
        self, row: Row, rendered: Rendered, pieces: _Pieces, same: Callable[[str, str], bool]
    ) -> Encoded | None:
        """The labels, or None when the trained tokens are not the `same` as the text."""
        ids, labels = pieces.ids, [IGNORED] * len(pieces.ids)
        for span in rendered.spans:
            first, last = pieces.token_from(span.start), pieces.token_from(span.end - 1)
            run = ids[first : last + 1]
            if not same(self._decode(run), rendered.text[span.start : span.end]):
                return None
            labels[first : last + 1] = run
        stops = [pieces.token_from(stop.start) for stop in rendered.stops]
        for index, stop in zip(stops, rendered.stops, strict=True):
            token = self._tokenizer.convert_tokens_to_ids(rendered.text[stop.start : stop.end])
            if labels[index] != token:
                return None
        return Encoded(row, ids, labels, stops, rendered.dropped_thinking)

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False))


def _alike(decoded: str, text: str) -> bool:
    """Whether both are the same up to Unicode composition and spaces.

    Qwen's tokenizer composes (NFC); Llama 2's puts a space where a text begins.
    """
    one, other = (unicodedata.normalize("NFKC", words).split() for words in (decoded, text))
    return "".join(one) == "".join(other)


class _Pieces:
    """A text that was tokenised in one or several pieces."""

    def __init__(self, edges: list[int], encodings: list[Any]) -> None:
        """edges: the index of the first character of each piece, and the length of the text."""
        self._edges, self._encodings = edges, encodings
        self._bases = [0, *accumulate(len(encoding.ids) for encoding in encodings)]
        self.ids: list[int] = [token for encoding in encodings for token in encoding.ids]

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

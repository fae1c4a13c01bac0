"""Rows to token ids and labels, and the proof that the labels are what was meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from job.data.mask.proof import Proof, Run
from job.data.mask.render import Renderer
from job.data.mask.rendered import Rendered
from job.data.mask.template import EncodeOptions
from job.data.mask.tokens import Pieces, broken, mended
from job.data.rows import BadRow, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["IGNORED", "EncodeOptions", "Encoded", "RowEncoder"]

IGNORED = -100
"""The label of a token that is not trained, as PyTorch's cross entropy has it."""


@dataclass(slots=True)
class Encoded:
    """An example as the trainer takes it.

    Attributes:
        turn: with `expand_turns` the index of the message that is trained, else 0.
        input_ids: token ids.
        labels: as many; the token's id where it is trained, else `IGNORED`.
        stops: indices of the trained stop tokens.
        dropped_thinking: turns whose reasoning the template leaves out, and no other example shows.
        escaped: texts that look like control tokens and are encoded as the plain text they are.
        folded: something is said as text for which the template has no words: tool calls, results
            or schemas, or the system turn.
        reasoning: the example shows what the assistant thinks in a turn that is its to answer.
    """

    row: Row
    turn: int
    input_ids: list[int]
    labels: list[int]
    stops: list[int]
    dropped_thinking: int
    escaped: int
    folded: bool
    reasoning: bool

    @property
    def trained(self) -> int:
        """Trained tokens; the first token of a row is never predicted and does not count."""
        predicted = self.labels[1:]
        return len(predicted) - predicted.count(IGNORED)


class RowEncoder:
    """Renders, tokenises and proves rows, for one tokenizer and one set of options."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, options: EncodeOptions) -> None:
        self._renderer = Renderer(tokenizer, options)
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()  # which tokenizer.json may ask for
        self._backend.no_padding()
        self._proof = Proof(tokenizer, self._renderer.template)

    def encode(self, rows: Sequence[Row]) -> list[list[Encoded] | BadRow]:
        """What each row is trained as, or what is wrong with it.

        Raises:
            DataError: the rows are not of a kind that this checkpoint can be trained on.
        """
        rendered = [self._render(row) for row in rows]
        examples = [one for each in rendered if isinstance(each, list) for one in each]
        encodings = iter(self._tokens([(one.text, one.breaks) for one in examples]))
        found: list[list[Encoded] | BadRow] = []
        for row, each in zip(rows, rendered, strict=True):
            if isinstance(each, BadRow):
                found.append(each)
                continue
            pairs = [(one, next(encodings)) for one in each]
            try:
                found.append([self._encode(row, one, encoding) for one, encoding in pairs])
            except BadRow as error:
                found.append(error)
        return found

    def _render(self, row: Row) -> list[Rendered] | BadRow:
        try:
            return self._renderer.render(row)
        except BadRow as error:
            return error

    def _tokens(self, texts: Sequence[tuple[str, Sequence[int]]]) -> list[Any]:
        """One `tokenizers.Encoding` a broken text; BOS and EOS are only those in the text."""
        given = [broken(text, breaks) for text, breaks in texts]
        return list(self._backend.encode_batch(given, add_special_tokens=False)) if given else []

    def _encode(self, row: Row, text: Rendered, encoding: Any) -> Encoded:
        """Tokens and labels: of the whole text, or of pieces where that is needed.

        A token may reach over the place where the assistant begins ("Assistant: " + "Yes"). Such a
        row is cut there, as prompt and answer are when the model generates.

        Raises:
            BadRow: the trained tokens are not the text that was meant.
        """
        pieces = Pieces([0, len(text.text)], [mended(encoding, text.breaks)])
        self._proof.of_row(text, pieces.ids)
        runs = self._proof.of_trained(text, pieces)
        if runs is None:
            pieces = self._cut(text)
            self._proof.of_row(text, pieces.ids)
            runs = self._proof.of_trained(text, pieces)
        stops = [pieces.token_from(stop.start) for stop in text.stops]
        labels = _labels(pieces.ids, runs or [])
        if runs is None or not self._proof.of_stops(text, [labels[index] for index in stops]):
            raise BadRow("its trained tokens do not decode to the text that was meant")
        return Encoded(
            row,
            text.turn,
            pieces.ids,
            labels,
            stops,
            dropped_thinking=text.dropped_thinking,
            escaped=len(text.breaks),
            folded=text.folded,
            reasoning=text.reasoning,
        )

    def _cut(self, text: Rendered) -> Pieces:
        """The text in pieces that begin where a trained part begins."""
        edges = sorted({0, *(span.start for span in text.spans), len(text.text)})
        parts = [
            (text.text[a:b], [place - a for place in text.breaks if a < place < b])
            for a, b in pairwise(edges)
        ]
        encodings = self._tokens(parts)
        pairs = zip(encodings, parts, strict=True)
        return Pieces(edges, [mended(encoding, breaks) for encoding, (_, breaks) in pairs])


def _labels(ids: list[int], runs: list[Run]) -> list[int]:
    labels = [IGNORED] * len(ids)
    for first, end in runs:
        labels[first:end] = ids[first:end]
    return labels

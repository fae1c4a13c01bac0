"""The proof that tokens are what was meant: what is trained decodes to it, and no more steers."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from job.data.mask.rendered import Rendered
from job.data.mask.template import ChatTemplate
from job.data.mask.tokens import Pieces
from job.data.rows import BadRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Run = tuple[int, int]
"""Token indices [first, end)."""


class Proof:
    """Holds tokens against the text that they were made of, for one checkpoint."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, template: ChatTemplate) -> None:
        self._backend, self._template = tokenizer.backend_tokenizer, template
        self._unknown_id, self._unknown = tokenizer.unk_token_id, str(tokenizer.unk_token)
        self._bos = tokenizer.bos_token_id
        self._control = set(template.control_ids.values())
        self._added = tokenizer.get_added_vocab()

    def of_row(self, text: Rendered, ids: list[int]) -> None:
        """The row holds the control tokens that belong there, and no other.

        Raises:
            BadRow: it does not, or the tokenizer has no tokens for its text.
        """
        meant = text.control.count(self._unknown)
        if self._unknown_id is not None and ids.count(self._unknown_id) != meant:
            raise BadRow("holds a character for which the model's tokenizer has no token")
        known = self._template.control_ids
        steering = list(filter(self._control.__contains__, ids))
        if steering != [known[token] for token in text.control]:
            raise BadRow("holds text that the model's tokenizer takes for a control token")
        if self._bos is not None and ids[:2] == [self._bos, self._bos]:
            raise BadRow("begins with two BOS tokens")
        if text.breaks and not self._alike(self._decode(ids), text.text):
            raise BadRow("its tokens do not decode to its text, which looks like a control token")

    def of_stops(self, text: Rendered, labels: list[int]) -> bool:
        """Whether these labels, of the tokens where the stop tokens stand, are they."""
        return labels == [self._added[text.text[stop.start : stop.end]] for stop in text.stops]

    def of_trained(self, text: Rendered, pieces: Pieces) -> list[Run] | None:
        """The trained tokens, when they decode to the trained text; else None.

        They do exactly, or with a tokenizer that changes every text, as `_alike` has it; then no
        token may reach over the place where a trained part begins.
        """
        exact = self._runs(text, pieces, self._says)
        if exact is not None or not all(pieces.begins_at(span.start) for span in text.spans):
            return exact
        return self._runs(text, pieces, self._says_alike)

    def _runs(
        self, text: Rendered, pieces: Pieces, says: Callable[[list[int], int, int, str], bool]
    ) -> list[Run] | None:
        found = []
        for span in text.spans:
            first, end = pieces.token_from(span.start), pieces.token_from(span.end - 1) + 1
            if not says(pieces.ids, first, end, text.text[span.start : span.end]):
                return None
            found.append((first, end))
        return found

    def _says(self, ids: list[int], first: int, end: int, said: str) -> bool:
        """Whether the tokens decode to what is said, alone or after the one before them.

        Where a text begins, the decoders of SentencePiece models take a space away.
        """
        if self._decode(ids[first:end]) == said:
            return True
        before = self._decode(ids[first - 1 : first]) if first else ""
        return first > 0 and self._decode(ids[first - 1 : end]) == before + said

    def _says_alike(self, ids: list[int], first: int, end: int, said: str) -> bool:
        return self._alike(self._decode(ids[first:end]), said)

    def _alike(self, decoded: str, text: str) -> bool:
        """Whether both are the same but for what the tokenizer does to every text.

        That is its own normalisation (Qwen's composes characters, NFC), and space at the ends and
        around added tokens (Llama 2's puts some there, Phi 3's takes it away).
        """
        normalizer = self._backend.normalizer
        return decoded == text or self._bare(decoded) == self._bare(
            normalizer.normalize_str(text) if normalizer else text
        )

    def _bare(self, text: str) -> str:
        return self._around.sub(r"\1", text.replace("▁", " ")).strip()

    @cached_property
    def _around(self) -> re.Pattern[str]:
        return re.compile(rf"\s*({self._template.added.pattern})\s*")

    def _decode(self, ids: list[int]) -> str:
        return str(self._backend.decode(ids, skip_special_tokens=False))

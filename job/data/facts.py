"""What is remembered of every tokenised row: the small columns beside its tokens.

Splitting, mixing and the audit work on these columns alone, so that a data set larger than memory
needs a few dozen bytes a row there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

EFFORTS = ("low", "medium", "high")


@dataclass(frozen=True)
class Facts:
    """One entry for each stored row of one or several pools, in their order.

    Attributes:
        number: 1-based row of the source, which messages name.
        turn: with expand_turns, the index of the message that is trained; else 0.
        tokens: length, after cutting.
        trained: tokens that count in the loss.
        cut: tokens that `overlength=truncate` took away.
        unstopped: answers that lost their stop token by cutting.
        stops: trained stop tokens.
        dropped_thinking: earlier turns whose reasoning the template leaves out.
        escaped: texts that look like control tokens and were encoded as plain text.
        folded: tool calls or schemas were written as text.
        reasoning: the row says what the assistant thinks.
        effort: index into `EFFORTS`, of the row or else of the job.
        language: index into the pool's list of languages; -1 where none is stated.
        stop_token: id of the last trained stop token; -1 where there is none.
        exact: 16 bytes, equal for rows that say the same.
        normalized: 16 bytes, equal up to case, spaces and Unicode composition.
        conversation: 16 bytes, equal for rows that begin with the same exchange.
    """

    number: NDArray[np.int64]
    turn: NDArray[np.int16]
    tokens: NDArray[np.int32]
    trained: NDArray[np.int32]
    cut: NDArray[np.int32]
    unstopped: NDArray[np.int16]
    stops: NDArray[np.int16]
    dropped_thinking: NDArray[np.int16]
    escaped: NDArray[np.int16]
    folded: NDArray[np.bool_]
    reasoning: NDArray[np.bool_]
    effort: NDArray[np.int8]
    language: NDArray[np.int16]
    stop_token: NDArray[np.int32]
    exact: NDArray[np.void]
    normalized: NDArray[np.void]
    conversation: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.number)

    def take(self, indices: NDArray[np.intp] | NDArray[np.bool_]) -> Facts:
        """The facts of some of the rows, by index or mask."""
        return Facts(**{field.name: getattr(self, field.name)[indices] for field in fields(self)})

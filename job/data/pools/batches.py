"""A batch of rows to what is stored: the examples that fit, and what became of the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.data.mask.encode import Encoded, RowEncoder
from job.data.mask.template import EncodeOptions
from job.data.mask.tokenizer import load_tokenizer
from job.data.pools import identity
from job.data.pools.columns import Kept, to_columns
from job.data.pools.lengths import Lost, fit_row, unstopped
from job.data.rows import BadRow, Row


@dataclass
class Part:
    """The result for one batch.

    Attributes:
        columns: pyarrow RecordBatch of `columns.SCHEMA`: the examples that are kept.
        languages: what the columns' `language` counts.
        bad: (index in the batch, what is wrong).
        lost: what could not be kept of the good rows.
    """

    columns: Any = None
    languages: list[str] = field(default_factory=list)
    bad: list[tuple[int, BadRow]] = field(default_factory=list)
    lost: Lost = field(default_factory=Lost)


class BatchEncoder:
    """Does the work on batches, with the checkpoint's tokenizer loaded once."""

    def __init__(self, tokenizer_folder: Path, options: EncodeOptions) -> None:
        self._options = options
        self._encoder = RowEncoder(load_tokenizer(tokenizer_folder), options)

    def __call__(self, batch: list[Row | BadRow]) -> Part:
        """Encodes, fits and stores; a BadRow among the rows is passed on."""
        part, kept, languages = Part(), list[Kept](), dict[str, int]()
        encoded = iter(self._encoder.encode([row for row in batch if isinstance(row, Row)]))
        for index, row in enumerate(batch):
            found = row if isinstance(row, BadRow) else next(encoded)
            if isinstance(found, BadRow):
                part.bad.append((index, found))
            else:
                kept += self._fit(found, part.lost)
        part.columns = to_columns(kept, self._options.reasoning_effort, languages)
        part.languages = list(languages)
        return part

    def _fit(self, examples: list[Encoded], lost: Lost) -> list[Kept]:
        """The examples of one row that are kept."""
        kept = []
        row = examples[0].row
        digests = (identity.exact(row), identity.normalized(row), identity.conversation(row))
        for whole in examples:
            size = len(whole.input_ids)
            lost.see(size)
            fitting = fit_row(whole, self._options)
            if isinstance(fitting, str):
                lost.drop(fitting, row, size)
                continue
            cut = size - len(fitting.input_ids)
            if cut:
                lost.note("cut", row, size)
            kept.append(Kept(fitting, cut, unstopped(whole, fitting), digests))
        return kept

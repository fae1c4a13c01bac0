"""The prepared rows as the trainer takes them: mapped from disk, in the order of the whole run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.data.build import load_prepared


@dataclass(frozen=True)
class Rows:
    """Datasets with the columns `input_ids` and `labels`, neither in memory.

    Attributes:
        train: every row of every optimizer step, one after another; the trainer shuffles nothing.
        eval: held-out rows; None when there are none.
        steps: optimizer steps of the whole run.
        rows_an_epoch: how many of the training rows make one epoch.
        tokens: of all training rows, as often as they are trained.
    """

    train: Any
    eval: Any | None
    steps: int
    rows_an_epoch: int
    tokens: int


def load_rows(folder: Path) -> Rows:
    """What the data process wrote into `folder`."""
    prepared = load_prepared(folder)
    return Rows(
        train=_mapped(prepared.train, prepared.order),
        eval=_mapped(prepared.eval, prepared.held_out) if len(prepared.held_out) else None,
        steps=prepared.steps,
        rows_an_epoch=prepared.rows_an_epoch,
        tokens=prepared.audit["run"]["tokens"],
    )


def _mapped(pools: list[Path], indices: Any) -> Any:
    from datasets import Dataset, concatenate_datasets

    rows = concatenate_datasets([Dataset.from_file(str(pool / "rows.arrow")) for pool in pools])
    return rows.select_columns(["input_ids", "labels"]).select(indices)


def write_probe(rows: Rows, path: Path, count: int = 4, tokens: int = 128) -> None:
    """Keep the first tokens of a few rows, on which the saved weights are compared later."""
    first = rows.train.select(range(min(count, len(rows.train))))
    path.write_text(json.dumps([row["input_ids"][:tokens] for row in first]), encoding="utf-8")

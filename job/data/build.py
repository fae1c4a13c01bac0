"""Pools to what the trainer takes: which rows, in which order, for the whole run; and the audit."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from job.data.choose.audit import audit
from job.data.choose.holdout import SAMENESS, by_sameness, hold_out, same_as
from job.data.choose.mix import make_mix
from job.data.choose.pooled import Pooled, Split, join
from job.data.choose.warn import warnings
from job.data.mask.base_model import template_reasons, token_texts
from job.data.mask.template import EncodeOptions
from job.data.pools.lengths import check_lost
from job.disk import replace_text
from job.errors import DataError
from job.spec import JobSpec

if TYPE_CHECKING:
    from job.data.pools.pool import Pool

_OPTIONS = ("train_on", "max_seq_length", "template_date")  # that explain the audit's figures
_ORDER, _HELD_OUT, _ABOUT = "order.npy", "eval.npy", "prepared.json"


@dataclass(frozen=True)
class Prepared:
    """What is trained and evaluated, as row numbers into pools that are joined in their order.

    Attributes:
        train: folders of the pools that `order` counts through, one after another.
        order: index of every row of every optimizer step, int64; nothing shuffles it any more.
        eval: folders of the pools that `held_out` counts through; empty without evaluation rows.
        held_out: indices of the evaluation rows, int64.
        steps: optimizer steps of the whole run.
        rows_an_epoch: rows of one epoch.
        fingerprint: equal for runs that train and evaluate the same tokens in the same order.
        audit: what is in them, for report/data.json.
    """

    train: list[Path]
    order: NDArray[np.int64]
    eval: list[Path]
    held_out: NDArray[np.int64]
    steps: int
    rows_an_epoch: int
    fingerprint: str
    audit: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Writes order.npy, eval.npy and prepared.json; the last one tells that all are there."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _ABOUT).unlink(missing_ok=True)
        for name, indices in ((_ORDER, self.order), (_HELD_OUT, self.held_out)):
            np.save(folder / name, indices, allow_pickle=False)
        about = {
            "train": [str(path) for path in self.train],
            "eval": [str(path) for path in self.eval],
            "steps": self.steps,
            "rows_an_epoch": self.rows_an_epoch,
            "fingerprint": self.fingerprint,
            "audit": self.audit,
        }
        replace_text(folder / _ABOUT, json.dumps(about, ensure_ascii=False))


def load_prepared(folder: Path) -> Prepared:
    """What `Prepared.save` wrote; the indices are mapped, not read.

    Raises:
        FileNotFoundError: it was not written to its end.
    """
    about = json.loads((folder / _ABOUT).read_bytes())
    return Prepared(
        train=[Path(path) for path in about["train"]],
        order=np.load(folder / _ORDER, mmap_mode="r"),
        eval=[Path(path) for path in about["eval"]],
        held_out=np.load(folder / _HELD_OUT, mmap_mode="r"),
        steps=about["steps"],
        rows_an_epoch=about["rows_an_epoch"],
        fingerprint=about["fingerprint"],
        audit=about["audit"],
    )


def prepare(
    spec: JobSpec,
    options: EncodeOptions,
    train: Sequence[Pool],
    held_out: Sequence[Pool],
    model: Path,
) -> Prepared:
    """Split, mix, order and count.

    Args:
        spec: says how to split and mix, and how long the run is.
        options: as the pools were made.
        train: pools of `dataset`, at least one.
        held_out: pools of `eval_dataset`; with some, `eval_fraction` is not used.
        model: the checkpoint's folder, of which tokenizer files are read.

    Raises:
        DataError: too many rows are lost, none is left, or they cannot be split or mixed as asked.
    """
    check_lost((pool.lost for pool in train), options, "The training data")
    if held_out:
        check_lost((pool.lost for pool in held_out), options, "The evaluation data")
    split = _split(spec, join(train), join(held_out) if held_out else None)
    mix = make_mix(
        split.rows.labels,
        split.rows.source,
        split.rows.reasoning,
        split.free,
        [pool.source.weight for pool in train],
        spec.reasoning_share,
        spec.seed,
    )
    steps, length = run_length(spec, mix.rows_an_epoch)
    order = mix.order(length)
    figures = audit(split, mix, order, spec.reasoning_share, token_texts(model))
    figures["run"] |= {"steps": steps, "batch_size": spec.batch_size}
    figures |= {key: getattr(options, key) for key in _OPTIONS}
    figures["warnings"] = warnings(figures, spec, reasons=template_reasons(model))
    return Prepared(
        train=[pool.folder for pool in train],
        order=order,
        eval=[pool.folder for pool in split.evaluated.pools] if len(split.held_out) else [],
        held_out=split.held_out,
        steps=steps,
        rows_an_epoch=mix.rows_an_epoch,
        fingerprint=_fingerprint(split, order),
        audit=figures,
    )


def _split(spec: JobSpec, rows: Pooled, own: Pooled | None) -> Split:
    """Which rows are trained and which are evaluated.

    Args:
        own: the rows of `eval_dataset`; where there are none, `eval_fraction` is held out.
    """
    if own is not None:
        same = same_as(rows.facts, own.facts)
        if (same >= 0).all():
            raise DataError("No training row is left: all of them are also evaluation rows.")
        free = np.flatnonzero(same < 0)
        return Split(rows, free, own, np.arange(len(own)), by_sameness(same))
    taken: NDArray[np.bool_] = np.zeros(len(rows), dtype=bool)
    if spec.eval_fraction:
        taken = hold_out(rows.facts.conversation, spec.eval_fraction, spec.seed)
    return Split(
        rows, np.flatnonzero(~taken), rows, np.flatnonzero(taken), dict.fromkeys(SAMENESS, 0)
    )


def _fingerprint(split: Split, order: NDArray[np.int64]) -> str:
    """Over what each row says, how long it is and how much of it is trained, in order."""
    found = hashlib.sha256()
    for rows, indices in ((split.rows, order), (split.evaluated, split.held_out)):
        for column in (rows.facts.exact, rows.facts.tokens, rows.facts.trained):
            found.update(np.ascontiguousarray(column[indices]).tobytes())
    return found.hexdigest()


def run_length(spec: JobSpec, rows_an_epoch: int) -> tuple[int, int]:
    """Optimizer steps of the run, and the rows they take; the last step may have fewer.

    `max_steps` wins over `epochs`, which may be a fraction.
    """
    if spec.max_steps is not None:
        return spec.max_steps, spec.max_steps * spec.batch_size
    rows = math.ceil(Fraction(str(spec.epochs)) * rows_an_epoch)
    return math.ceil(rows / spec.batch_size), rows

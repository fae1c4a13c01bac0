"""All rows to what the trainer takes: the training and evaluation sets, and the audit of both."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from job.data.encode import Encoded, EncodeOptions, encode_rows
from job.data.lengths import Lengths, fit
from job.data.render import Renderer
from job.data.rows import Row
from job.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Built", "EncodeOptions", "build"]

Example = dict[str, list[int]]


@dataclass(frozen=True)
class Built:
    """What goes into the trainer.

    Attributes:
        train: examples {"input_ids", "labels"}, in the order of the sources' rows.
        eval: the same, held out; empty when nothing was asked for.
        audit: what is in them, for report/data.json.
        reasoning_mode: how the checkpoint's reasoning is written, as `split_answer` takes it.
    """

    train: list[Example]
    eval: list[Example]
    audit: dict[str, Any]
    reasoning_mode: str


def build(
    train_rows: Sequence[Row],
    eval_rows: Sequence[Row],
    eval_fraction: float,
    seed: int,
    tokenizer: PreTrainedTokenizerFast,
    options: EncodeOptions,
) -> Built:
    """Render, encode, prove, fit and split.

    Args:
        eval_rows: rows of `eval_dataset`; a training row equal to one of them is left out.
        eval_fraction: share of the training rows to hold out when there are no eval_rows, 0 to 1.
        seed: decides which.

    Raises:
        DataError: a row that cannot be trained on, or too many that would be lost.
    """
    renderer = Renderer(tokenizer, options)
    digests = {id(row): _digest(row) for row in (*train_rows, *eval_rows)}
    held_out = {digests[id(row)] for row in eval_rows}
    own = [row for row in train_rows if digests[id(row)] not in held_out]
    if not own:
        raise DataError("No training row is left: all of them are also evaluation rows.")
    encoded = encode_rows(own, renderer, tokenizer)
    train, lengths = fit(encoded, options, "The training data")
    held: list[Encoded] = []
    held_lengths = None
    if eval_rows:
        encoded = encode_rows(eval_rows, renderer, tokenizer)
        held, held_lengths = fit(encoded, options, "The evaluation data")
    elif eval_fraction:
        split = _held_out([digests[id(e.row)] for e in train], eval_fraction, seed)
        held = [e for e in train if digests[id(e.row)] in split]
        train = [e for e in train if digests[id(e.row)] not in split]
    if lost := len(train_rows) - len(own):
        lengths.dropped["also_in_evaluation"] = lost
    audit = _audit(train, held, lengths, held_lengths, tokenizer)
    audit["duplicates"] = len(own) - len({digests[id(row)] for row in own})
    audit["reasoning_mode"] = renderer.mode
    audit["template_date"] = options.template_date
    audit["train_on"] = options.train_on
    audit["max_seq_length"] = options.max_seq_length
    audit["reasoning_effort"] = dict(
        Counter(e.row.reasoning_effort or options.reasoning_effort for e in train)
    )
    return Built(_examples(train), _examples(held), audit, renderer.mode)


def _digest(row: Row) -> bytes:
    """Equal for rows that say the same, wherever they stand."""
    said = [row.messages, row.text, row.tools, row.reasoning_effort, row.context]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()


def _held_out(digests: list[bytes], fraction: float, seed: int) -> set[bytes]:
    """The rows to hold out: those whose seeded hash is smallest, equal rows together.

    At least one group is held out and at least one is left. The order of the rows and the machine
    make no difference.
    """
    sizes = Counter(digests)
    ranked = sorted(sizes, key=lambda digest: hashlib.sha256(b"%d:" % seed + digest).digest())
    if len(ranked) < 2:
        raise DataError("JOB_EVAL_FRACTION needs at least two different rows to split.")
    wanted, taken, found = fraction * len(digests), 0, set[bytes]()
    for digest in ranked[:-1]:
        if found and taken + sizes[digest] / 2 > wanted:
            break
        found.add(digest)
        taken += sizes[digest]
    return found


def _examples(rows: list[Encoded]) -> list[Example]:
    return [{"input_ids": row.input_ids, "labels": row.labels} for row in rows]


def _audit(
    train: list[Encoded],
    held: list[Encoded],
    lengths: Lengths,
    held_lengths: Lengths | None,
    tokenizer: PreTrainedTokenizerFast,
) -> dict[str, Any]:
    """The figures; see docs/architecture.md for each."""
    stops = Counter(row.input_ids[stop] for row in train for stop in row.stops)
    sources = list(dict.fromkeys(row.row.source for row in train))
    audit: dict[str, Any] = {
        "train": _counts(train),
        "eval": _counts(held),
        "sources": [_source(name, train) for name in sources],
        "lengths": lengths.histogram(),
        "percentiles": lengths.percentiles(),
        "dropped": dict(lengths.dropped),
        "cut": lengths.cut,
        "worst_rows": lengths.worst,
        "stop_tokens": {tokenizer.convert_ids_to_tokens(id_): n for id_, n in stops.items()},
        "dropped_thinking": sum(row.dropped_thinking for row in train),
    }
    if held_lengths is not None:
        audit["eval"] |= {
            "dropped": dict(held_lengths.dropped),
            "cut": held_lengths.cut,
            "worst_rows": held_lengths.worst,
        }
    return audit


def _counts(rows: list[Encoded]) -> dict[str, int]:
    return {
        "rows": len(rows),
        "tokens": sum(len(row.input_ids) for row in rows),
        "trained_tokens": sum(row.trained for row in rows),
    }


def _source(name: str, rows: list[Encoded]) -> dict[str, Any]:
    own = [row for row in rows if row.row.source == name]
    return {"source": name, "format": own[0].row.format, **_counts(own)}

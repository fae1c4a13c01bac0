"""What single values cannot tell: keys that contradict each other, and keys that do nothing yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from job.spec.model import JobSpec

DEFAULT_WARMUP = 5  # steps

# Keys without an effect yet, the values that already describe what happens,
# and why any other is refused: a setting is never ignored. Building a feature deletes its line.
NOT_BUILT: dict[str, tuple[tuple[str, ...], str]] = {
    "trust_remote_code": ((), "no repository's code is run"),
}


def not_built(key: str) -> str:
    """The sentence that refuses `key`."""
    allowed, reason = NOT_BUILT[key]
    instead = f", or set it to {' or '.join(allowed)}" if allowed else ""
    return f"not built yet ({reason}); leave it unset{instead}"


def contradictions(spec: JobSpec) -> Iterator[tuple[tuple[str, ...], str]]:
    """The keys that do not go together, and why, one finding at a time."""
    if spec.eval_dataset and spec.eval_fraction:
        yield (
            ("eval_dataset", "eval_fraction"),
            "both say where evaluation rows come from; allowed: one of them",
        )
    yield from _mix(spec)
    if spec.device == "cpu" and spec.precision == "4bit":
        yield ("device", "precision"), "4bit needs a GPU; allowed on cpu: auto, native or 16bit"
    if spec.device == "cpu" and spec.optimizer.startswith("paged"):
        yield ("device", "optimizer"), "paged optimizers need a GPU; allowed on cpu: the others"
    micro = spec.micro_batch_size
    if micro != "auto" and spec.batch_size % micro:
        yield (
            ("batch_size", "micro_batch_size"),
            f"{spec.batch_size} sequences per step are not a multiple of {micro};"
            " allowed: a micro-batch that divides the batch",
        )
    # The default gives way by itself in a run that is shorter or has no warm-up.
    warmup = 0 if spec.warmup_steps == DEFAULT_WARMUP else spec.warmup_steps
    if spec.max_steps is not None and warmup >= spec.max_steps:
        yield (
            ("warmup_steps", "max_steps"),
            f"{warmup} warm-up steps leave nothing of {spec.max_steps} steps;"
            " allowed: fewer warm-up steps than steps",
        )
    if spec.scheduler == "constant" and warmup:
        yield (
            ("scheduler", "warmup_steps"),
            "constant has no warm-up; allowed: warmup_steps 0, or constant_with_warmup",
        )
    yield from _budget(spec)
    yield from _places(spec)


def _budget(spec: JobSpec) -> Iterator[tuple[tuple[str, ...], str]]:
    """Money without a price, and a policy without a budget."""
    if spec.max_cost_usd and not spec.gpu_usd_per_hour:
        yield (
            ("max_cost_usd", "gpu_usd_per_hour"),
            "money needs the machine's price; allowed: both, or max_hours",
        )
    if spec.budget_policy == "shorten" and not (spec.max_hours or spec.max_cost_usd):
        yield (
            ("budget_policy", "max_hours", "max_cost_usd"),
            "there is no budget to shorten for; allowed: fail, or a budget",
        )


def _mix(spec: JobSpec) -> Iterator[tuple[tuple[str, ...], str]]:
    """Weights that say nothing."""
    weights = [source.weight for source in spec.dataset]
    if None in weights and any(weights):
        yield (
            ("dataset",),
            "some sources have a weight and others none; allowed: a weight for each, or for none",
        )
    if len(weights) == 1 and any(weights):
        yield ("dataset",), "a single source needs no weight; allowed: leave it away"
    if any(source.weight or source.kind for source in spec.eval_dataset):
        yield (
            ("eval_dataset",),
            "weight and kind mix training rows; evaluation rows are all used; allowed: neither",
        )


def _places(spec: JobSpec) -> Iterator[tuple[tuple[str, ...], str]]:
    """Destinations that would overwrite each other, the base model or the work in progress."""
    hub = {ref.location for ref in spec.output if ref.scheme == "hf"}
    if any(f"{repository}-lora" in hub for repository in hub) and "lora" in spec.save:
        yield ("output",), "hf://org/name also writes org/name-lora, which is another destination"
    if spec.model.scheme == "hf" and spec.model.uri.removeprefix("hf://") in hub:
        yield (
            ("model", "output"),
            "the results would overwrite the base; allowed: another name",
        )
    work = PurePosixPath(spec.work_dir)
    for ref in spec.output:
        folder = PurePosixPath(ref.location)
        if ref.scheme == "file" and (folder.is_relative_to(work) or work.is_relative_to(folder)):
            yield (
                ("output", "work_dir"),
                "one is inside the other, and scratch files are deleted;"
                " allowed: two separate folders",
            )

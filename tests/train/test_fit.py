"""How the training loop counts steps and when it gives up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from job.channel import as_job_error
from job.errors import CudaOutOfMemory, Diverged, InternalError, OutOfResources
from job.spec import read_spec
from job.train.fit import _watcher, planned_steps


def spec(**keys: str) -> Any:
    variables = {f"JOB_{key.upper()}": value for key, value in keys.items()}
    required = {"JOB_MODEL": "org/m", "JOB_DATASET": "org/d", "JOB_OUTPUT": "file:///out"}
    return read_spec(required | variables)


@pytest.mark.parametrize(
    ("keys", "rows", "steps"),
    [
        ({"max_steps": "7"}, 1000, 7),
        ({}, 1000, 63),  # the last batch has 8 rows
        ({"epochs": "2"}, 32, 4),
        ({"epochs": "0.5"}, 32, 1),
        ({"epochs": "0.1"}, 4, 1),
    ],
)
def test_steps_are_planned_from_rows_and_epochs(
    keys: dict[str, str], rows: int, steps: int
) -> None:
    assert planned_steps(spec(**keys), rows) == steps


BF16 = SimpleNamespace(fp16=False)


class Listener:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def emit(self, kind: str, **fields: Any) -> None:
        self.events.append({"event": kind, **fields})


def state(step: int) -> Any:
    return SimpleNamespace(global_step=step, num_input_tokens_seen=100 * step)


def test_each_step_is_reported() -> None:
    listener = Listener()
    watcher = _watcher(listener, SimpleNamespace(is_set=False), steps=10)  # type: ignore[arg-type]
    watcher.on_log(BF16, state(4), None, {"loss": "1.5", "grad_norm": "0.2", "learning_rate": 1e-4})
    (event,) = listener.events
    assert (event["step"], event["of"], event["loss"]) == (4, 10, 1.5)


@pytest.mark.parametrize("logs", [{"loss": "nan"}, {"loss": "2.0", "grad_norm": "inf"}])
def test_a_number_that_is_none_stops_the_run(logs: dict[str, str]) -> None:
    watcher = _watcher(Listener(), SimpleNamespace(is_set=False), steps=10)  # type: ignore[arg-type]
    with pytest.raises(Diverged, match="Step 3"):
        watcher.on_log(BF16, state(3), None, {"learning_rate": 1e-4, **logs})


def test_in_float16_the_scaler_may_overflow_but_the_loss_may_not() -> None:
    watcher = _watcher(Listener(), SimpleNamespace(is_set=False), steps=10)  # type: ignore[arg-type]
    fp16 = SimpleNamespace(fp16=True)
    logs = {"learning_rate": 1e-4, "loss": "2.0", "grad_norm": "inf"}
    watcher.on_log(fp16, state(1), None, logs)
    with pytest.raises(Diverged):
        watcher.on_log(fp16, state(2), None, {**logs, "loss": "nan"})


def test_a_stop_ends_training_after_the_step() -> None:
    watcher = _watcher(Listener(), SimpleNamespace(is_set=True), steps=10)  # type: ignore[arg-type]
    control = SimpleNamespace(should_training_stop=False)
    watcher.on_step_end(None, state(3), control)
    assert control.should_training_stop is True


def test_errors_of_libraries_become_ours() -> None:
    import torch

    out_of_memory = as_job_error(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
    assert isinstance(out_of_memory, CudaOutOfMemory)
    assert isinstance(as_job_error(OSError(28, "No space left")), OutOfResources)
    written = RuntimeError("Error while serializing: I/O error: No space left (os error 28)")
    assert isinstance(as_job_error(written), OutOfResources)
    assert isinstance(as_job_error(KeyError("x")), InternalError)

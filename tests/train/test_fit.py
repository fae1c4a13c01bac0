"""How the training loop counts steps and when it gives up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from job.budget import Meter
from job.channel import as_job_error
from job.errors import CudaOutOfMemory, Diverged, InternalError, OutOfResources
from job.pace import Pace
from job.train.watcher import Watcher, callback

BF16 = SimpleNamespace(fp16=False)


class Listener:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def emit(self, kind: str, **fields: Any) -> None:
        self.events.append({"event": kind, **fields})


class NothingKept:
    """Stands for the keeper."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.kept = 0

    def is_due(self) -> bool:
        return False

    def keep(self, trainer: Any) -> None:
        self.kept += 1


def watcher(listener: Any = None, keeper: Any = None, *, stop: bool = False) -> Any:
    trainer = SimpleNamespace(args=SimpleNamespace(max_steps=10), eval_dataset=None)
    flag = SimpleNamespace(is_set=stop)
    channel = listener or Listener()
    meter = Meter(None, trainer.args.max_steps, channel)
    kept = keeper or NothingKept()
    watching = Watcher(trainer, channel, kept, flag, meter, Pace(10, 1000))  # type: ignore[arg-type]
    return callback(watching)


def state(step: int) -> Any:
    return SimpleNamespace(global_step=step, num_input_tokens_seen=100 * step)


def test_the_eta_is_not_that_of_a_single_step(monkeypatch: pytest.MonkeyPatch) -> None:
    listener, now = Listener(), [0.0]
    monkeypatch.setattr("job.train.watcher.time.monotonic", lambda: now[0])
    look = watcher(listener)
    for step, seconds in enumerate((40.0, 20.0, 1.0, 3.0, 2.0), start=1):
        now[0] += seconds
        look.on_log(BF16, state(step), None, GOOD)
    # Of ten steps; in the first two, kernels are compiled.
    assert [event["eta_seconds"] for event in listener.events] == [360, 160, 7, 12, 10]


GOOD = {"loss": "1.5", "grad_norm": "0.2", "learning_rate": 1e-4}


def test_each_step_is_reported() -> None:
    listener = Listener()
    watcher(listener).on_log(BF16, state(4), None, GOOD)
    (event,) = listener.events
    assert (event["step"], event["of"], event["loss"]) == (4, 10, 1.5)


@pytest.mark.parametrize("logs", [{"loss": "nan"}, {"loss": "2.0", "grad_norm": "inf"}])
def test_a_number_that_is_none_stops_the_run_and_nothing_is_kept(logs: dict[str, str]) -> None:
    keeper = NothingKept()
    with pytest.raises(Diverged, match="Step 3"):
        watcher(keeper=keeper, stop=True).on_log(BF16, state(3), None, {**GOOD, **logs})
    assert keeper.kept == 0


def test_in_float16_the_scaler_may_overflow_but_the_loss_may_not() -> None:
    fp16 = SimpleNamespace(fp16=True)
    one = watcher()
    one.on_log(fp16, state(1), None, {**GOOD, "grad_norm": "inf"})
    with pytest.raises(Diverged):
        one.on_log(fp16, state(2), None, {**GOOD, "loss": "nan"})


def test_a_stop_keeps_the_step_and_ends_training() -> None:
    keeper, control = NothingKept(), SimpleNamespace(should_training_stop=False)
    watcher(keeper=keeper, stop=True).on_log(BF16, state(3), control, GOOD)
    assert keeper.kept == 1
    assert control.should_training_stop is True


def test_errors_of_libraries_become_ours() -> None:
    import torch

    out_of_memory = as_job_error(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
    assert isinstance(out_of_memory, CudaOutOfMemory)
    assert isinstance(as_job_error(OSError(28, "No space left")), OutOfResources)
    written = RuntimeError("Error while serializing: I/O error: No space left (os error 28)")
    assert isinstance(as_job_error(written), OutOfResources)
    assert isinstance(as_job_error(KeyError("x")), InternalError)

"""What happens at each step of a training: it is told, kept, looked at, stopped, or given up."""

from __future__ import annotations

import math
import signal
import time
from typing import Any

from job.budget import Meter, warped
from job.channel import Channel
from job.errors import Diverged, SpecError
from job.pace import Pace
from job.train.checkpoint import Keeper
from job.train.evaluate import evaluate, steps_between
from job.train.merge import peak_memory


class StopFlag:
    """While it is entered, SIGTERM ends training after the optimizer step under way.

    At any other time there is nothing to finish, and SIGTERM ends the process.
    """

    def __init__(self) -> None:
        self.is_set = False

    def __enter__(self) -> StopFlag:
        signal.signal(signal.SIGTERM, self._set)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _set(self, *_: Any) -> None:
        self.is_set = True


class Watcher:
    """Follows the steps of `trainer`; a callback of its calls `begin` and `step`."""

    def __init__(
        self,
        trainer: Any,
        channel: Channel,
        keeper: Keeper,
        stop: StopFlag,
        meter: Meter,
        pace: Pace,
    ) -> None:
        self.trainer, self.channel, self.keeper = trainer, channel, keeper
        self.stop, self.meter, self.pace = stop, meter, pace
        self.looks: set[int] = set()  # steps after which held-out rows are evaluated
        if trainer.eval_dataset is not None:
            self.looks = steps_between(
                trainer.args.max_steps, len(trainer.train_dataset), len(trainer.eval_dataset)
            )
        self.clock, self.tokens = time.monotonic(), 0

    def begin(self, tokens: int) -> None:
        """The first step begins; so many tokens were trained by earlier processes."""
        self.clock, self.tokens = time.monotonic(), tokens
        self.keeper.start()
        if self.meter.warps:  # by an earlier process
            shorten(self.trainer, self.meter)

    def step(self, number: int, tokens: int, logs: dict[str, Any], *, fp16: bool) -> bool:
        """A step is done, by optimizer and schedule too.

        Args:
            tokens: trained so far.
            logs: what the HF Trainer logs of a step.
            fp16: whether gradients are scaled.

        Returns:
            Whether training shall end.

        Raises:
            Diverged: the loss or the gradient norm is not finite.
            SpecError: the run will not fit its budget.
        """
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
        # In float16 the gradient scaler finds its scale by overflowing: such a step is skipped.
        if not math.isfinite(loss) or not (fp16 or math.isfinite(norm)):
            raise Diverged(
                f"Step {number}: loss {loss}, gradient norm {norm}. Lower JOB_LEARNING_RATE or "
                "look at the data; nothing was published."
            )
        self._tell(number, tokens, loss, float(logs["learning_rate"]), norm)
        try:
            if self.meter.stepped(number):
                shorten(self.trainer, self.meter)
        except SpecError:
            self.keeper.keep(self.trainer)  # whoever raises the budget goes on from here
            raise
        last = number == self.meter.steps
        ending = self.stop.is_set or self.meter.ended
        look = number in self.looks and not last
        # An evaluation that follows may take long enough to lose something.
        before_look = look or (last and self.trainer.eval_dataset is not None)
        if ending or before_look or self.keeper.is_due():
            self.keeper.keep(self.trainer)
        if look and not ending:
            look_at(self.trainer, number, self.channel, self.keeper, self.pace)
            self.clock = time.monotonic()
            self.meter.evaluated()
        return ending

    def _tell(self, number: int, tokens: int, loss: float, rate: float, norm: float) -> None:
        elapsed, trained = time.monotonic() - self.clock, tokens - self.tokens
        self.clock, self.tokens = time.monotonic(), tokens
        self.pace.stepped(elapsed, trained)
        point = {
            "step": number,
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": norm,
            "tokens_per_second": round(trained / elapsed, 1),
        }
        if (memory := peak_memory()) is not None:
            point["memory_bytes"] = memory
        steps = self.meter.steps
        looks = sum(number < look < steps for look in self.looks)
        eta = round(self.pace.left(number, steps, tokens, looks))
        self.channel.emit("step", **point, of=steps, eta_seconds=eta)
        self.keeper.history.append(point)


def look_at(trainer: Any, step: int, channel: Channel, keeper: Keeper, pace: Pace) -> None:
    """Evaluate the held-out rows, if there are such."""
    began = time.monotonic()
    keeper.evaluated(evaluate(trainer, step, channel))
    pace.looked(time.monotonic() - began)


def callback(watcher: Watcher) -> Any:
    """What the HF Trainer calls, so that the watcher is told."""
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watcher.begin(state.num_input_tokens_seen)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
        ) -> None:
            if logs and "loss" in logs:
                step, tokens = state.global_step, state.num_input_tokens_seen
                if watcher.step(step, tokens, logs, fp16=args.fp16):
                    control.should_training_stop = True

    return Callback()


def shorten(trainer: Any, meter: Meter) -> None:
    """Have the training end after `meter.steps`, the learning rate included.

    The schedule keeps its own length, and is gone through faster. transformers ends when
    `state.max_steps` is reached (trainer_callback.py, DefaultFlowCallback).
    """
    trainer.state.max_steps = meter.steps
    schedule = trainer.lr_scheduler
    schedule = getattr(schedule, "scheduler", schedule)  # accelerate's wrapper
    # Not kept in the schedule, all of whose attributes go into a checkpoint.
    rates = trainer.first_rates = getattr(trainer, "first_rates", schedule.lr_lambdas)
    schedule.lr_lambdas = [
        lambda step, rate=rate: rate(warped(step, meter.warps)) for rate in rates
    ]

"""The training itself: TRL's SFTTrainer as Unsloth rewrites it, fed with rows that are ready.

Rows come tokenised, with labels, from `job.data`; the trainer's own preparation is switched off.
Every setting is written out, since Unsloth's SFTConfig has other defaults than TRL's.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from job.budget import Meter, warped
from job.channel import Channel
from job.data.mask.encode import IGNORED
from job.errors import Diverged, InternalError, SpecError, Stopped
from job.pace import Pace
from job.spec import JobSpec
from job.train.checkpoint import Keeper, load_finished
from job.train.data import Rows
from job.train.evaluate import by_row, evaluate, steps_between
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


def make_trainer(
    spec: JobSpec, plan: dict[str, Any], model: Any, tokenizer: Any, rows: Rows
) -> Any:
    """An SFTTrainer for these rows, in their order. It writes and reports nothing by itself."""
    import torch
    from transformers import DataCollatorForSeq2Seq
    from trl import SFTConfig

    from job.train.gptoss import PackedGptOss
    from job.train.packed import packed_trainer
    from job.train.packed_library import PackedLibrary, autocast

    on_cpu = spec.device == "cpu"
    bf16 = not on_cpu and torch.cuda.is_bf16_supported(including_emulation=False)
    config = SFTConfig(
        output_dir=str(Path(spec.work_dir) / spec.run_name / "trainer"),
        per_device_train_batch_size=plan["micro_batch_size"],
        gradient_accumulation_steps=plan["gradient_accumulation"],
        # One row at a time: gpt-oss evaluates with eager attention (unsloth #3363).
        per_device_eval_batch_size=1,
        max_steps=rows.steps,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        warmup_steps=min(spec.warmup_steps, rows.steps - 1),
        lr_scheduler_type=spec.scheduler,
        optim=plan["optimizer"],
        max_grad_norm=1.0,
        seed=spec.seed,
        train_sampling_strategy="sequential",
        use_cpu=on_cpu,
        bf16=bf16,
        fp16=not on_cpu and not bf16,
        gradient_checkpointing=bool(plan["gradient_checkpointing"]) and not plan["experts"],
        max_length=spec.max_seq_length,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        include_num_input_tokens_seen="no" if plan["packing"] else "non_padding",
        logging_steps=1,
        logging_nan_inf_filter=False,  # the default hides a loss that is not finite
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    options = {
        "model": model,
        "args": config,
        "train_dataset": rows.train,
        "eval_dataset": rows.eval,
        "processing_class": tokenizer,
    }
    collator = DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=IGNORED)
    if plan["packing"]:
        engine: Callable[[Any], Any] = partial(PackedLibrary, context=autocast(spec))
        if plan["experts"]:
            engine = partial(PackedGptOss, grouped=plan["expert_products"] == "grouped")
        return packed_trainer(plan["packing"], engine, collator, **options)
    return by_row()(**options, data_collator=collator)


def fit(
    trainer: Any, rows: Rows, channel: Channel, keeper: Keeper, resume: Path | None
) -> dict[str, Any]:
    """Train to the end and return the totals; each step is an event.

    Args:
        keeper: writes the checkpoints; knows what was done before this process.
        resume: the checkpoint to go on from.

    Raises:
        Diverged: a loss, a gradient norm or a weight is not finite.
        Stopped: SIGTERM came, or the budget ends; the last whole step is done, and kept in a
            checkpoint.
        SpecError: the run will not fit its budget.
        InternalError: the trainer returned before its last step.
    """
    meter = keeper.meter or Meter(None, trainer.args.max_steps, channel)
    with StopFlag() as stop:
        pace = Pace(rows.steps, rows.tokens)
        trainer.add_callback(_watcher(trainer, channel, keeper, stop, meter, pace))
        if resume is not None and keeper.step == meter.steps:
            load_finished(trainer, resume)  # train() would do one step more
        else:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    done, planned = trainer.state.global_step, meter.steps
    if meter.ended and done < planned:
        raise meter.stop(done)
    if stop.is_set and done < planned:
        raise Stopped(f"Stopped by a signal after step {done} of {planned}, which is kept.")
    if done != planned:
        raise InternalError(f"Training ended after step {done} of {planned} for no known reason.")
    return {
        "steps": done,
        "planned_steps": meter.planned,
        "epochs": round(len(rows.train) * done / meter.planned / rows.rows_an_epoch, 3),
        "loss_first": keeper.history[0]["loss"],
        "loss_last": keeper.history[-1]["loss"],
        "tokens": int(trainer.state.num_input_tokens_seen),
        "seconds": round(keeper.seconds(), 1),
    }


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


def _watcher(
    trainer: Any, channel: Channel, keeper: Keeper, stop: StopFlag, meter: Meter, pace: Pace
) -> Any:
    """A callback that reports each step, has it kept, stops, and fails on numbers that are none."""
    from transformers import TrainerCallback

    between: set[int] = set()
    if trainer.eval_dataset is not None:
        between = steps_between(
            trainer.args.max_steps, len(trainer.train_dataset), len(trainer.eval_dataset)
        )

    class Watcher(TrainerCallback):
        def __init__(self) -> None:
            self.clock = time.monotonic()
            self.tokens = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.clock, self.tokens = time.monotonic(), state.num_input_tokens_seen
            keeper.start()
            if meter.warps:  # by an earlier process
                shorten(trainer, meter)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
        ) -> None:
            """Optimizer and schedule have done the step when this is called."""
            if not logs or "loss" not in logs:
                return
            loss, norm = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
            # In float16 the gradient scaler finds its scale by overflowing: such a step is skipped.
            if not math.isfinite(loss) or not (args.fp16 or math.isfinite(norm)):
                raise Diverged(
                    f"Step {state.global_step}: loss {loss}, gradient norm {norm}. Lower "
                    "JOB_LEARNING_RATE or look at the data; nothing was published."
                )
            elapsed, seen = time.monotonic() - self.clock, state.num_input_tokens_seen
            pace.stepped(elapsed, seen - self.tokens)
            rate = (seen - self.tokens) / elapsed
            self.clock, self.tokens = time.monotonic(), seen
            point = {
                "step": state.global_step,
                "loss": loss,
                "learning_rate": float(logs["learning_rate"]),
                "grad_norm": norm,
                "tokens_per_second": round(rate, 1),
            }
            if (memory := peak_memory()) is not None:
                point["memory_bytes"] = memory
            looks = sum(state.global_step < look < meter.steps for look in between)
            pace.looked(getattr(trainer, "look_seconds", 0.0))
            eta = pace.left(state.global_step, meter.steps, seen, looks)
            channel.emit("step", **point, of=meter.steps, eta_seconds=round(eta))
            keeper.history.append(point)
            try:
                if meter.stepped(state.global_step):
                    shorten(trainer, meter)
            except SpecError:
                keeper.keep(trainer)  # whoever raises the budget goes on from here
                raise
            # An evaluation that follows may take long enough to lose something.
            last = state.global_step == meter.steps and trainer.eval_dataset is not None
            look = state.global_step in between and state.global_step < meter.steps
            ending = stop.is_set or meter.ended
            if ending or last or look or keeper.is_due():
                keeper.keep(trainer)
            if look and not ending:
                keeper.evaluated(evaluate(trainer, state.global_step, channel))
                self.clock = time.monotonic()
                meter.evaluated()
            if ending:
                control.should_training_stop = True

    return Watcher()

"""The training itself: TRL's SFTTrainer as Unsloth rewrites it, fed with rows that are ready.

Rows come tokenised, with labels, from `job.data`; the trainer's own preparation is switched off.
Every setting is written out, since Unsloth's SFTConfig has other defaults than TRL's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from job.budget import Meter
from job.channel import Channel
from job.data.mask.encode import IGNORED
from job.errors import InternalError, Stopped
from job.pace import Pace
from job.spec import JobSpec
from job.train.checkpoint import Keeper, load_finished
from job.train.data import Rows
from job.train.evaluate import by_row
from job.train.watcher import StopFlag, Watcher, callback


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
    trainer: Any, rows: Rows, channel: Channel, keeper: Keeper, pace: Pace, resume: Path | None
) -> dict[str, Any]:
    """Train to the end and return the totals; each step is an event.

    Args:
        keeper: writes the checkpoints; knows what was done before this process.
        pace: tells how long it will take.
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
        trainer.add_callback(callback(Watcher(trainer, channel, keeper, stop, meter, pace)))
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

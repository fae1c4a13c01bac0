"""JobSpec: every key a user may set, its type, its range, its default and its meaning.

The table in the README, the JSON Schema and the error texts are all made from these fields.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from job.spec import sources, uris, values
from job.spec.rules import DEFAULT_WARMUP, NOT_BUILT
from job.spec.values import Above0, Choice, Flag, Number, Positive, Share, Whole

# Keys that say where, how safely and at what price, but not what is trained and saved.
NOT_HASHED = frozenset(
    {
        *("output", "name", "work_dir", "hub_private", "log_format", "report_to", "webhook_url"),
        *("checkpoint_minutes", "resume", "max_attempts", "stop_grace", "on_finish"),
        *("max_hours", "max_cost_usd", "gpu_usd_per_hour", "budget_policy"),
    }
)


class JobSpec(BaseModel):
    """One job, frozen and validated; `read_spec` makes it and also holds the keys together.

    `None` and empty tuples mean unset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: uris.Model = Field(
        description="base model: Hub id with optional `@revision`, absolute folder, or"
        " `s3://bucket/prefix`"
    )
    precision: Literal["auto", "4bit", "native", "16bit"] = Field(
        "auto",
        description="how the base is held while training: `4bit` (NF4), `native` (as the"
        " checkpoint is stored, e.g. MXFP4), `16bit`, or `auto`",
    )
    max_seq_length: Whole = Field(
        4096, ge=64, le=1048576, description="longest training row, in tokens"
    )
    trust_remote_code: values.RemoteCode | None = Field(
        None,
        description="`org/name@<40-hex commit>`: the one repository whose code may run",
    )
    device: Literal["cuda", "cpu"] = Field(
        "cuda",
        description="`cuda`, or `cpu` for the demo and the tests; never falls back from one to"
        " the other",
    )
    dataset: sources.Sources = Field(
        description="training rows: one source or a JSON list of sources. A source is a Hub id or"
        " `hf://org/name[@rev]`, `s3://…`, `https://…` or an absolute path, with options as a"
        " query: `?split=train&config=x&format=sharegpt&weight=0.75&kind=reasoning&sha256=…`"
    )
    eval_dataset: sources.Sources = Field((), description="held-out rows, written as `dataset`")
    eval_fraction: Number = Field(
        0, ge=0, le=0.5, description="share of the rows split off for evaluation, by `seed`"
    )
    train_on: Literal["all", "assistant", "final"] = Field(
        "assistant",
        description="tokens that carry loss: `all`, `assistant` (every assistant channel), `final`"
        " (only the text that the user sees)",
    )
    overlength: Literal["error", "drop", "truncate"] = Field(
        "drop", description="what happens to rows longer than `max_seq_length`; always counted"
    )
    max_dropped: Number = Field(
        0.05,
        ge=0,
        le=1,
        description="the job fails when more than this share of the rows would be lost or left"
        " without a trained token",
    )
    reasoning_share: Share | None = Field(
        None, description="share of reasoning rows to sample towards, e.g. 0.75"
    )
    reasoning_effort: Literal["low", "medium", "high"] = Field(
        "medium", description="for chat templates that know it; a row's own column wins"
    )
    expand_turns: Flag = Field(
        False,
        description="one training row per assistant turn, for templates that drop the thinking of"
        " earlier turns",
    )
    template_date: values.Day | None = Field(
        None, description="the date (YYYY-MM-DD) that the chat template prints; recorded"
    )
    lora_r: Whole = Field(8, ge=1, le=1024, description="rank of the adapter")
    lora_alpha: Whole = Field(
        16, ge=1, le=65536, description="scale of the adapter: its update counts alpha / r"
    )
    lora_dropout: Number = Field(0, ge=0, lt=1, description="dropout before the adapter")
    lora_targets: values.Targets = Field(
        ("auto",),
        description="comma list of modules; `auto` = the q, k, v, o, gate, up and down projections"
        " (experts included on mixture models)",
    )
    lora_rslora: Flag = Field(False, description="scale by alpha / sqrt(r) instead")
    epochs: Number = Field(1, gt=0, le=1000, description="passes over the data")
    max_steps: Positive | None = Field(
        None, description="optimizer steps; wins over `epochs` when set"
    )
    learning_rate: Number = Field(2e-4, gt=0, le=1, description="its peak, after the warm-up")
    weight_decay: Number = Field(0.01, ge=0, le=1, description="decoupled weight decay")
    warmup_steps: Whole = Field(DEFAULT_WARMUP, ge=0, description="steps of linear warm-up")
    scheduler: Literal[
        "linear",
        "cosine",
        "constant",
        "constant_with_warmup",
        "cosine_with_restarts",
        "polynomial",
    ] = Field("linear", description="how the learning rate goes down")
    optimizer: Literal[
        "adamw_8bit",
        "adamw_torch",
        "adamw_torch_fused",
        "paged_adamw_8bit",
        "paged_adamw_32bit",
        "sgd",
    ] = Field("adamw_8bit", description="by its name in transformers")
    batch_size: Whole = Field(
        16, ge=1, le=65536, description="sequences per optimizer step, whatever the micro-batch"
    )
    micro_batch_size: values.WholeOrAuto = Field(
        "auto", description="sequences per forward pass; divides `batch_size`"
    )
    packing: Annotated[Literal["auto", "true", "false"], Choice] = Field(
        "auto",
        description="several sequences in one row, as many as memory allows"
        " (gpt-oss, Llama, Mistral, Qwen)",
    )
    gradient_checkpointing: Annotated[Literal["auto", "unsloth", "true", "false"], Choice] = Field(
        "auto", description="recompute activations to save memory"
    )
    seed: Whole = Field(3407, ge=0, le=2**32 - 1, description="of everything that is random")
    output: uris.Destinations = Field(
        description="one destination or a comma list: `s3://bucket/prefix`, `hf://org/name`,"
        " `file:///folder`"
    )
    name: values.Name | None = Field(
        None,
        description="the run's folder at the destination; the default is made of the first 12 hex"
        " digits of the spec's hash, so the same spec is the same run",
    )
    save: values.Saves = Field(
        values.SAVES, description="comma list of what to publish, in this order"
    )
    hub_private: Flag = Field(True, description="repositories made on the Hub are private")
    checkpoint_minutes: Number = Field(
        10, gt=0, le=1440, description="at most this much work is lost"
    )
    resume: Literal["auto", "never"] = Field(
        "auto", description="go on from a complete checkpoint of the same run"
    )
    max_attempts: Whole = Field(3, ge=1, le=100, description="starts that may fail the same way")
    stop_grace: Whole = Field(
        25, ge=0, le=3600, description="seconds between SIGTERM and the end of the container"
    )
    max_hours: Above0 | None = Field(None, description="budget of time")
    max_cost_usd: Above0 | None = Field(None, description="budget of money")
    gpu_usd_per_hour: Above0 | None = Field(None, description="price of the machine")
    budget_policy: Literal["fail", "shorten"] = Field(
        "fail",
        description="`fail` refuses a job that will not fit its budget, `shorten` shortens its"
        " schedule",
    )
    prompts: values.Prompts = Field(
        (), description="JSON list of prompts or chats, answered before and after training"
    )
    sample_tokens: Whole = Field(
        512, ge=1, le=8192, description="longest answer to a prompt, in tokens"
    )
    report_to: values.Trackers = Field(
        ("none",),
        description="comma list: `none`, `wandb`, `mlflow`, `trackio`, `tensorboard`",
    )
    webhook_url: values.Url | None = Field(
        None,
        description="gets each state change, signed when `JOB_WEBHOOK_SECRET` is set",
    )
    on_finish: Literal["auto", "terminate", "stop", "exit", "hold"] = Field(
        "auto", description="what a RunPod pod does at the end"
    )
    log_format: Literal["auto", "lines", "json"] = Field(
        "auto", description="`auto` (panel on a terminal, lines elsewhere), `lines`, `json`"
    )
    work_dir: values.Folder = Field(
        Path("/work"), description="scratch space: downloads and artefacts"
    )

    @property
    def spec_hash(self) -> str:
        """sha256 (64 hex digits) over the keys that decide what is trained and saved."""
        decisive = self.model_dump(mode="json", exclude=set(NOT_HASHED))
        text = json.dumps(decisive, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def run_name(self) -> str:
        """The run's folder: `name`, or one made of the spec's hash."""
        return self.name or f"run-{self.spec_hash[:12]}"

    def public(self) -> dict[str, Any]:
        """The keys as a user writes them, as JSON types; reads back to an equal spec.

        Unset keys are left out, and so are the defaults of keys that nothing acts on yet.
        """
        dumped = self.model_dump(mode="json", exclude_none=True)
        silent = {key for key in NOT_BUILT if getattr(self, key, None) == _default(key)}
        return {k: v for k, v in dumped.items() if k not in silent and v not in ("", [])}


def _default(key: str) -> Any:
    field = JobSpec.model_fields.get(key)
    return field.default if field else None

"""What users and later runs rely on: the keys, their defaults, the hash, the documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from job.spec import JobSpec, json_schema, read_spec, table
from job.spec.rules import NOT_BUILT
from tests.test_spec import FLAT, GOOD

# The public surface: a change here changes what users type, and belongs into the changelog.
KEYS = """
model precision max_seq_length trust_remote_code device dataset eval_dataset eval_fraction train_on
overlength max_dropped reasoning_share reasoning_effort expand_turns template_date lora_r lora_alpha
lora_dropout lora_targets lora_rslora epochs max_steps learning_rate weight_decay warmup_steps
scheduler optimizer batch_size micro_batch_size packing gradient_checkpointing seed output name save
hub_private checkpoint_minutes resume max_attempts stop_grace max_hours max_cost_usd
gpu_usd_per_hour budget_policy prompts sample_tokens report_to webhook_url on_finish log_format
work_dir
""".split()  # noqa: SIM905 - a list of 51 strings reads worse


def test_the_keys_are_the_ones_that_were_promised():
    assert list(JobSpec.model_fields) == KEYS
    assert list(json_schema()["properties"]) == KEYS


def test_the_defaults_are_the_ones_of_the_reference_recipe():
    spec = read_spec(GOOD)
    assert spec.public() == FLAT | {
        "model": "hf://org/name",
        "precision": "auto",
        "max_seq_length": 4096,
        "device": "cuda",
        "eval_fraction": 0,
        "train_on": "assistant",
        "overlength": "drop",
        "max_dropped": 0.05,
        "reasoning_effort": "medium",
        "expand_turns": False,
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0,
        "lora_targets": "auto",
        "lora_rslora": False,
        "epochs": 1,
        "learning_rate": 2e-4,
        "weight_decay": 0.01,
        "warmup_steps": 5,
        "scheduler": "linear",
        "optimizer": "adamw_8bit",
        "batch_size": 16,
        "micro_batch_size": "auto",
        "packing": "auto",
        "gradient_checkpointing": "auto",
        "seed": 3407,
        "save": "lora,merged_16bit",
        "hub_private": True,
        "checkpoint_minutes": 10,
        "resume": "auto",
        "max_attempts": 3,
        "stop_grace": 25,
        "budget_policy": "fail",
        "sample_tokens": 512,
        "report_to": "none",
        "on_finish": "auto",
        "log_format": "auto",
        "work_dir": "/work",
    }
    assert spec.report_to == ("none",)
    assert spec.work_dir == Path("/work")


def test_the_same_job_has_the_same_hash_in_every_carrier_and_spelling():
    one = read_spec(GOOD | {"JOB_LEARNING_RATE": "2e-4", "JOB_EPOCHS": "1"})
    flat = FLAT | {
        "model": "hf://org/name",
        "learning_rate": 0.0002,
        "dataset": ["/data/rows.jsonl/"],
    }
    assert one.spec_hash == read_spec({"JOB_SPEC": json.dumps(flat)}).spec_hash
    assert one.run_name == f"run-{one.spec_hash[:12]}"
    assert len(one.spec_hash) == 64


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("OUTPUT", "s3://bucket/elsewhere"),
        ("NAME", "mine"),
        ("WORK_DIR", "/scratch"),
        ("LOG_FORMAT", "json"),
        ("STOP_GRACE", "5"),
        ("HUB_PRIVATE", "false"),
        ("RESUME", "never"),
    ],
)
def test_where_and_how_a_job_runs_does_not_change_its_hash(key, value):
    assert read_spec(GOOD | {f"JOB_{key}": value}).spec_hash == read_spec(GOOD).spec_hash


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL", "org/name@v2"),
        ("DATASET", "/data/rows.jsonl?format=text"),
        ("SEED", "1"),
        ("SAVE", "lora"),
        ("LORA_TARGETS", "q_proj,v_proj"),
        ("PROMPTS", '["Who are you?"]'),
        ("TEMPLATE_DATE", "2026-01-31"),
    ],
)
def test_what_is_trained_and_saved_changes_the_hash(key, value):
    assert read_spec(GOOD | {f"JOB_{key}": value}).spec_hash != read_spec(GOOD).spec_hash


def test_the_name_is_the_run_name_when_given():
    assert read_spec(GOOD | {"JOB_NAME": "my-run.1"}).run_name == "my-run.1"


part = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)
option = st.sampled_from(["", "?split=test", "?format=alpaca&split=a.b", "?sha256=" + "0a" * 32])


@given(
    model=st.one_of(part, st.tuples(part, part).map("/".join), part.map(lambda p: f"/{p}/@{p}")),
    rows=st.lists(
        st.tuples(part, option).map(lambda t: f"/rows/{t[0]}{t[1]}"), min_size=1, unique=True
    ),
    rate=st.floats(1e-9, 1),
    seed=st.integers(0, 2**32 - 1),
    save=st.sampled_from(["lora", "merged_16bit", "lora,merged_16bit", "merged_16bit,lora"]),
    prompts=st.lists(st.text(min_size=1).filter(lambda t: t.strip()), max_size=3),
    private=st.sampled_from(["true", "0", "Yes"]),
)
def test_the_public_form_reads_back_to_an_equal_spec(
    model, rows, rate, seed, save, prompts, private
):
    spec = read_spec(
        {
            "JOB_MODEL": model,
            "JOB_DATASET": json.dumps(rows),
            "JOB_OUTPUT": "file:///out,hf://org/tuned",
            "JOB_LEARNING_RATE": repr(rate),
            "JOB_SEED": str(seed),
            "JOB_SAVE": save,
            "JOB_PROMPTS": json.dumps(prompts),
            "JOB_HUB_PRIVATE": private,
        }
    )
    again = read_spec({"JOB_SPEC": json.dumps(spec.public())})
    assert again == spec
    assert again.spec_hash == spec.spec_hash
    assert again.public() == spec.public()


def test_a_spec_is_frozen():
    with pytest.raises(ValidationError):
        read_spec(GOOD).seed = 1


def test_the_table_has_a_row_with_a_meaning_for_every_key():
    lines = table().splitlines()
    assert len(lines) == 2 + len(KEYS)
    for key, line in zip(KEYS, lines[2:], strict=True):
        name, variable, default, meaning = line.strip("| ").split(" | ", 3)
        assert name.strip("*") == key
        assert variable == f"`JOB_{key.upper()}`"
        assert default
        assert len(meaning) > 5
        assert ("*(not built yet)*" in meaning) == (key in NOT_BUILT)


def test_the_schema_states_type_range_default_and_meaning():
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["model", "dataset", "output"]
    assert schema["additionalProperties"] is False
    rank = schema["properties"]["lora_r"]
    expected = {"type": "integer", "minimum": 1, "maximum": 1024, "default": 8}
    assert rank == expected | {"description": "rank of the adapter"}
    assert schema["properties"]["max_steps"]["minimum"] == 1
    assert all(prop["description"] for prop in schema["properties"].values())
    assert json.loads(json.dumps(schema)) == schema


def test_every_default_in_the_schema_reads_back_as_that_default():
    defaults = {k: p["default"] for k, p in json_schema()["properties"].items() if "default" in p}
    built = {key: value for key, value in defaults.items() if key not in NOT_BUILT}
    assert read_spec({"JOB_SPEC": json.dumps(built | FLAT)}) == read_spec(GOOD)
    assert JobSpec(**(defaults | FLAT)) == read_spec(GOOD)

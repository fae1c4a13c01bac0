"""Bad specs: every problem at once, by the name the user gave, and never a secret."""

from __future__ import annotations

import base64
import json

import pytest

from job.errors import SpecError
from job.spec import read_spec

CANARY = "canary-secret-9f8e7d6c"
TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3f"
AWS_KEY = "AKIAIOSFODNN7EXAMPLE"
GOOD = {"JOB_MODEL": "org/name", "JOB_DATASET": "/data/rows.jsonl", "JOB_OUTPUT": "file:///out"}


def refusal(environ: dict[str, str]) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read_spec(environ)
    return caught.value


S3_WITH_KEY = f"s3://{AWS_KEY}:{CANARY}@bucket/rows"
BAD: list[tuple[str, dict[str, str], list[str]]] = [
    # unknown names
    ("unknown", {"JOB_LORA_RANK": CANARY}, ["JOB_LORA_RANK"]),
    ("misspelt", {"JOB_MAX_STEP": "5"}, ["JOB_MAX_STEP"]),
    ("lower case", {"job_seed": "5"}, ["job_seed"]),
    ("unknown key", {"JOB_SPEC": '{"lora_rank": 3}'}, ["lora_rank"]),
    ("variable as key", {"JOB_SPEC": '{"JOB_SEED": 3}'}, ["JOB_SEED"]),
    ("number as key", {"JOB_SPEC": "3: 4"}, ["3"]),
    # missing
    ("no model", {"JOB_MODEL": ""}, ["JOB_MODEL"]),
    ("no dataset", {"JOB_DATASET": "  "}, ["JOB_DATASET"]),
    ("no output", {"JOB_OUTPUT": ""}, ["JOB_OUTPUT"]),
    # wrong types and ranges
    ("fraction of a step", {"JOB_MAX_STEPS": "1.5"}, ["JOB_MAX_STEPS"]),
    ("no steps", {"JOB_MAX_STEPS": "0"}, ["JOB_MAX_STEPS"]),
    ("word for a number", {"JOB_BATCH_SIZE": "many"}, ["JOB_BATCH_SIZE"]),
    ("empty batch", {"JOB_BATCH_SIZE": "0"}, ["JOB_BATCH_SIZE"]),
    ("underscore", {"JOB_SEED": "1_000"}, ["JOB_SEED"]),
    ("negative seed", {"JOB_SEED": "-1"}, ["JOB_SEED"]),
    ("rank 0", {"JOB_LORA_R": "0"}, ["JOB_LORA_R"]),
    ("rank 1025", {"JOB_LORA_R": "1025"}, ["JOB_LORA_R"]),
    ("alpha 0", {"JOB_LORA_ALPHA": "0"}, ["JOB_LORA_ALPHA"]),
    ("dropout 1", {"JOB_LORA_DROPOUT": "1"}, ["JOB_LORA_DROPOUT"]),
    ("rate nan", {"JOB_LEARNING_RATE": "nan"}, ["JOB_LEARNING_RATE"]),
    ("rate inf", {"JOB_LEARNING_RATE": "inf"}, ["JOB_LEARNING_RATE"]),
    ("rate overflow", {"JOB_LEARNING_RATE": "1e999"}, ["JOB_LEARNING_RATE"]),
    ("rate 0", {"JOB_LEARNING_RATE": "0"}, ["JOB_LEARNING_RATE"]),
    ("no epochs", {"JOB_EPOCHS": "0"}, ["JOB_EPOCHS"]),
    ("too short", {"JOB_MAX_SEQ_LENGTH": "63"}, ["JOB_MAX_SEQ_LENGTH"]),
    ("all held out", {"JOB_EVAL_FRACTION": "0.6"}, ["JOB_EVAL_FRACTION"]),
    ("all dropped", {"JOB_MAX_DROPPED": "1.1"}, ["JOB_MAX_DROPPED"]),
    ("negative warm-up", {"JOB_WARMUP_STEPS": "-1"}, ["JOB_WARMUP_STEPS"]),
    ("no tokens", {"JOB_SAMPLE_TOKENS": "0"}, ["JOB_SAMPLE_TOKENS"]),
    ("long grace", {"JOB_STOP_GRACE": "3601"}, ["JOB_STOP_GRACE"]),
    ("micro-batch 0", {"JOB_MICRO_BATCH_SIZE": "0"}, ["JOB_MICRO_BATCH_SIZE"]),
    ("boolean on", {"JOB_LORA_RSLORA": "on"}, ["JOB_LORA_RSLORA"]),
    ("boolean 2", {"JOB_HUB_PRIVATE": "2"}, ["JOB_HUB_PRIVATE"]),
    ("typed boolean for a number", {"JOB_SPEC": '{"seed": true}'}, ["seed"]),
    ("typed nan", {"JOB_SPEC": '{"learning_rate": NaN}'}, ["learning_rate"]),
    ("typed number for a name", {"JOB_SPEC": '{"name": 12}'}, ["name"]),
    ("mapping for a number", {"JOB_SPEC": "seed: {a: b}"}, ["seed"]),
    # choices and lists
    ("device", {"JOB_DEVICE": "tpu"}, ["JOB_DEVICE"]),
    ("precision", {"JOB_PRECISION": "8bit"}, ["JOB_PRECISION"]),
    ("optimizer", {"JOB_OPTIMIZER": "adam"}, ["JOB_OPTIMIZER"]),
    ("scheduler", {"JOB_SCHEDULER": "sawtooth"}, ["JOB_SCHEDULER"]),
    ("train_on", {"JOB_TRAIN_ON": "user"}, ["JOB_TRAIN_ON"]),
    ("checkpointing", {"JOB_GRADIENT_CHECKPOINTING": "maybe"}, ["JOB_GRADIENT_CHECKPOINTING"]),
    ("save what", {"JOB_SAVE": "gguf"}, ["JOB_SAVE"]),
    ("save twice", {"JOB_SAVE": "lora,lora"}, ["JOB_SAVE"]),
    ("save a gap", {"JOB_SAVE": "lora,"}, ["JOB_SAVE"]),
    ("targets", {"JOB_LORA_TARGETS": "auto,q_proj"}, ["JOB_LORA_TARGETS"]),
    ("target names", {"JOB_LORA_TARGETS": "q proj"}, ["JOB_LORA_TARGETS"]),
    ("date", {"JOB_TEMPLATE_DATE": "2026-02-30"}, ["JOB_TEMPLATE_DATE"]),
    ("date form", {"JOB_TEMPLATE_DATE": "31.01.2026"}, ["JOB_TEMPLATE_DATE"]),
    ("prompts", {"JOB_PROMPTS": "Who are you?"}, ["JOB_PROMPTS"]),
    ("prompts from a source", {"JOB_PROMPTS": "/data/prompts.json"}, ["JOB_PROMPTS"]),
    ("prompt role", {"JOB_PROMPTS": '[[{"role":"bot","content":"x"}]]'}, ["JOB_PROMPTS"]),
    ("answered", {"JOB_PROMPTS": '[[{"role":"assistant","content":"x"}]]'}, ["JOB_PROMPTS"]),
    ("empty prompt", {"JOB_PROMPTS": '["ok", " "]'}, ["JOB_PROMPTS"]),
    # models, sources, destinations
    ("relative model", {"JOB_MODEL": "./model"}, ["JOB_MODEL"]),
    ("deep relative model", {"JOB_MODEL": "a/b/c"}, ["JOB_MODEL"]),
    ("model from the web", {"JOB_MODEL": "https://huggingface.co/org/name"}, ["JOB_MODEL"]),
    ("model escape", {"JOB_MODEL": "/models/../etc"}, ["JOB_MODEL"]),
    ("model revision", {"JOB_MODEL": "org/name@"}, ["JOB_MODEL"]),
    ("model options", {"JOB_MODEL": "org/name?split=train"}, ["JOB_MODEL"]),
    ("model bucket", {"JOB_MODEL": "s3://B_/x"}, ["JOB_MODEL"]),
    ("relative rows", {"JOB_DATASET": "../rows.jsonl"}, ["JOB_DATASET"]),
    ("a file as a Hub id", {"JOB_DATASET": "examples/rows.jsonl"}, ["JOB_DATASET"]),
    ("rows over http", {"JOB_DATASET": "http://host/rows.jsonl"}, ["JOB_DATASET"]),
    ("broken address", {"JOB_DATASET": "https://[host/rows.jsonl"}, ["JOB_DATASET"]),
    ("escape on s3", {"JOB_DATASET": "s3://bucket/a/../b"}, ["JOB_DATASET"]),
    ("escape in https", {"JOB_DATASET": "https://host/a/%2e%2e/b"}, ["JOB_DATASET"]),
    ("unknown option", {"JOB_DATASET": "/rows?splt=x"}, ["JOB_DATASET"]),
    ("option twice", {"JOB_DATASET": "/rows?split=a&split=b"}, ["JOB_DATASET"]),
    ("unknown format", {"JOB_DATASET": "/rows?format=csv"}, ["JOB_DATASET"]),
    ("short sha256", {"JOB_DATASET": "/rows?sha256=abc"}, ["JOB_DATASET"]),
    ("config of a path", {"JOB_DATASET": "/rows?config=x"}, ["JOB_DATASET"]),
    ("split of a file", {"JOB_DATASET": "https://h/rows.jsonl?split=x"}, ["JOB_DATASET"]),
    ("no weight", {"JOB_DATASET": '["/a?weight=0", "/b?weight=1"]'}, ["JOB_DATASET"]),
    ("negative weight", {"JOB_DATASET": '["/a?weight=-1", "/b?weight=1"]'}, ["JOB_DATASET"]),
    ("weight nan", {"JOB_DATASET": '["/a?weight=nan", "/b?weight=1"]'}, ["JOB_DATASET"]),
    ("odd kind", {"JOB_DATASET": "/rows?kind=odd"}, ["JOB_DATASET"]),
    ("no reasoning share", {"JOB_REASONING_SHARE": "1.5"}, ["JOB_REASONING_SHARE"]),
    ("broken list", {"JOB_DATASET": '["org/a", '}, ["JOB_DATASET"]),
    ("rows twice", {"JOB_DATASET": '["org/a", "hf://org/a"]'}, ["JOB_DATASET"]),
    ("relative output", {"JOB_OUTPUT": "out"}, ["JOB_OUTPUT"]),
    ("output without file://", {"JOB_OUTPUT": "/out"}, ["JOB_OUTPUT"]),
    ("output escape", {"JOB_OUTPUT": "file:///out/../etc"}, ["JOB_OUTPUT"]),
    ("output on s3 escape", {"JOB_OUTPUT": "s3://bucket/../x"}, ["JOB_OUTPUT"]),
    ("output is the root", {"JOB_OUTPUT": "file:///"}, ["JOB_OUTPUT"]),
    ("output on a host", {"JOB_OUTPUT": "file://host/out"}, ["JOB_OUTPUT"]),
    ("output options", {"JOB_OUTPUT": "s3://bucket/x?region=y"}, ["JOB_OUTPUT"]),
    ("output without organisation", {"JOB_OUTPUT": "hf://name"}, ["JOB_OUTPUT"]),
    ("output revision", {"JOB_OUTPUT": "hf://org/name@v1"}, ["JOB_OUTPUT"]),
    ("output twice", {"JOB_OUTPUT": "s3://bucket/x,s3://bucket/x/"}, ["JOB_OUTPUT"]),
    ("name escape", {"JOB_NAME": "../other"}, ["JOB_NAME"]),
    ("name with a slash", {"JOB_NAME": "a/b"}, ["JOB_NAME"]),
    ("hidden name", {"JOB_NAME": ".run"}, ["JOB_NAME"]),
    ("long name", {"JOB_NAME": "a" * 97}, ["JOB_NAME"]),
    ("relative work_dir", {"JOB_WORK_DIR": "work"}, ["JOB_WORK_DIR"]),
    ("work_dir escape", {"JOB_WORK_DIR": "/work/../etc"}, ["JOB_WORK_DIR"]),
    # contradictions
    ("half weighted", {"JOB_DATASET": '["/a?weight=2", "/b"]'}, ["JOB_DATASET"]),
    ("weight of one source", {"JOB_DATASET": "/a?weight=2"}, ["JOB_DATASET"]),
    ("weight of evaluation", {"JOB_EVAL_DATASET": "/e?weight=2"}, ["JOB_EVAL_DATASET"]),
    (
        "two evaluations",
        {"JOB_EVAL_DATASET": "/eval", "JOB_EVAL_FRACTION": "0.1"},
        ["JOB_EVAL_DATASET", "JOB_EVAL_FRACTION"],
    ),
    (
        "4bit on cpu",
        {"JOB_DEVICE": "cpu", "JOB_PRECISION": "4bit"},
        ["JOB_DEVICE", "JOB_PRECISION"],
    ),
    (
        "paged on cpu",
        {"JOB_DEVICE": "cpu", "JOB_OPTIMIZER": "paged_adamw_8bit"},
        ["JOB_DEVICE", "JOB_OPTIMIZER"],
    ),
    (
        "uneven micro-batch",
        {"JOB_BATCH_SIZE": "16", "JOB_MICRO_BATCH_SIZE": "3"},
        ["JOB_BATCH_SIZE", "JOB_MICRO_BATCH_SIZE"],
    ),
    ("large micro-batch", {"JOB_MICRO_BATCH_SIZE": "32"}, ["JOB_MICRO_BATCH_SIZE"]),
    (
        "only warm-up",
        {"JOB_WARMUP_STEPS": "10", "JOB_MAX_STEPS": "10"},
        ["JOB_WARMUP_STEPS", "JOB_MAX_STEPS"],
    ),
    (
        "constant warm-up",
        {"JOB_SCHEDULER": "constant", "JOB_WARMUP_STEPS": "9"},
        ["JOB_SCHEDULER", "JOB_WARMUP_STEPS"],
    ),
    ("output in work_dir", {"JOB_OUTPUT": "file:///work/out"}, ["JOB_OUTPUT", "JOB_WORK_DIR"]),
    ("work_dir in output", {"JOB_WORK_DIR": "/out/tmp"}, ["JOB_OUTPUT", "JOB_WORK_DIR"]),
    ("over the base", {"JOB_OUTPUT": "hf://org/name"}, ["JOB_MODEL", "JOB_OUTPUT"]),
    ("over the adapter", {"JOB_OUTPUT": "hf://org/a,hf://org/a-lora"}, ["JOB_OUTPUT"]),
    # secrets in the wrong place
    ("token as variable", {"JOB_HF_TOKEN": CANARY}, ["JOB_HF_TOKEN"]),
    ("token as key", {"JOB_SPEC": json.dumps({"hf_token": CANARY})}, ["hf_token"]),
    ("webhook secret as key", {"JOB_SPEC": f"webhook_secret: {CANARY}"}, ["webhook_secret"]),
    ("AWS key as variable", {"JOB_AWS_SECRET_ACCESS_KEY": CANARY}, ["JOB_AWS_SECRET_ACCESS_KEY"]),
    ("some password", {"JOB_DB_PASSWORD": CANARY}, ["JOB_DB_PASSWORD"]),
    ("token as a name", {"JOB_NAME": TOKEN}, ["JOB_NAME"]),
    ("token as a number", {"JOB_SEED": TOKEN}, ["JOB_SEED"]),
    ("AWS key as a seed", {"JOB_SEED": AWS_KEY}, ["JOB_SEED"]),
    ("token in a prompt", {"JOB_PROMPTS": json.dumps([f"say {TOKEN}"])}, ["JOB_PROMPTS"]),
    ("known secret", {"JOB_NAME": CANARY, "HF_TOKEN": CANARY}, ["JOB_NAME"]),
    ("known secret inside", {"JOB_DATASET": f"/{CANARY}/x", "HF_TOKEN": CANARY}, ["JOB_DATASET"]),
    ("user in https", {"JOB_DATASET": f"https://me:{CANARY}@h/rows"}, ["JOB_DATASET"]),
    ("key in s3", {"JOB_DATASET": S3_WITH_KEY}, ["JOB_DATASET"]),
    ("signed rows", {"JOB_DATASET": f"https://h/x?X-Amz-Signature={CANARY}"}, ["JOB_DATASET"]),
    ("signed output", {"JOB_OUTPUT": f"s3://bucket/x?Signature={CANARY}"}, ["JOB_OUTPUT"]),
    ("key in a list", {"JOB_SPEC": json.dumps({"eval_dataset": [S3_WITH_KEY]})}, ["eval_dataset"]),
    ("secret as a key", {"JOB_SPEC": json.dumps({TOKEN: 1})}, ["[redacted]"]),
    ("long value for a number", {"JOB_SEED": CANARY}, ["JOB_SEED"]),
    # credentials
    ("two tokens", {"HF_TOKEN": CANARY, "HF_TOKEN_FILE": "/x"}, ["HF_TOKEN and HF_TOKEN_FILE"]),
    ("token file", {"HF_TOKEN_FILE": f"/none/{CANARY}"}, ["HF_TOKEN_FILE"]),
    ("half a pair", {"AWS_ACCESS_KEY_ID": CANARY}, ["AWS_SECRET_ACCESS_KEY"]),
    # the carrier
    ("broken text", {"JOB_SPEC": f'{{"name": "{CANARY}'}, ["JOB_SPEC"]),
    ("broken yaml", {"JOB_SPEC": f"name: [{CANARY}"}, ["JOB_SPEC"]),
    ("yaml alias", {"JOB_SPEC": f"name: *{CANARY}"}, ["JOB_SPEC"]),
    ("yaml object", {"JOB_SPEC": "name: !!python/object:os.system {}"}, ["JOB_SPEC"]),
    ("a list", {"JOB_SPEC": '["org/name"]'}, ["JOB_SPEC"]),
    ("a relative path", {"JOB_SPEC": "job.yaml"}, ["JOB_SPEC"]),
    ("key twice in json", {"JOB_SPEC": '{"seed": 1, "seed": 2}'}, ["JOB_SPEC"]),
    ("key twice in yaml", {"JOB_SPEC": "seed: 1\nseed: 2"}, ["JOB_SPEC"]),
    ("broken base64", {"JOB_SPEC": "base64:***"}, ["JOB_SPEC"]),
    ("bytes", {"JOB_SPEC": "base64:" + base64.b64encode(b"\xff\xfe").decode()}, ["JOB_SPEC"]),
    ("no file", {"JOB_SPEC": f"/none/{CANARY}"}, ["JOB_SPEC"]),
    ("no way to fetch", {"JOB_SPEC": "s3://bucket/job.yaml"}, ["JOB_SPEC"]),
    ("other address", {"JOB_SPEC": "ftp://host/job.yaml"}, ["JOB_SPEC"]),
    ("signed address", {"JOB_SPEC": f"https://h/j?X-Amz-Signature={CANARY}"}, ["JOB_SPEC"]),
]


@pytest.mark.parametrize(("environ", "names"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_spec_is_refused_by_name_and_shows_no_secret(environ, names):
    error = refusal(GOOD | environ)
    assert error.exit_code == 78
    (problem,) = error.problems
    assert all(name in problem.split(":")[0] for name in names)
    for secret in (CANARY, TOKEN, AWS_KEY):
        assert secret not in str(error) + repr(error)


def test_every_problem_is_reported_at_once_with_the_name_the_user_gave():
    error = refusal(
        {
            "JOB_SPEC": json.dumps(
                {"seed": "x", "lora_r": 0, "dataset": "http://h/x", "bach_size": 1}
            ),
            "JOB_LORA_R": "9999",
            "JOB_MODEL": "../x",
            "JOB_EVAL_DATASET": "/eval",
            "JOB_EVAL_FRACTION": "0.1",
            "JOB_TRUST_REMOTE_CODE": "org/name@" + "a" * 40,
            "HF_TOKEN_FILE": "/none",
        }
    )
    names = [problem.split(":")[0] for problem in error.problems]
    assert sorted(names) == sorted(
        [
            "HF_TOKEN_FILE",
            "bach_size",
            "JOB_MODEL",
            "dataset",
            "JOB_LORA_R",
            "seed",
            "JOB_OUTPUT",
            "JOB_EVAL_DATASET and JOB_EVAL_FRACTION",
            "JOB_TRUST_REMOTE_CODE",
        ]
    )
    assert error.message == "the job spec has 9 problems"


def test_a_line_says_what_was_given_and_what_is_allowed():
    (problem,) = refusal(GOOD | {"JOB_LORA_R": "0"}).problems
    assert problem == "JOB_LORA_R: given '0'; allowed: a whole number >= 1 and <= 1024"
    (problem,) = refusal(GOOD | {"JOB_DEVICE": "gpu"}).problems
    assert problem == "JOB_DEVICE: given 'gpu'; allowed: cuda, cpu"
    (problem,) = refusal(GOOD | {"JOB_HUB_PRIVATE": "on"}).problems
    assert problem == "JOB_HUB_PRIVATE: given 'on'; allowed: true, false, 1, 0, yes, no"
    (problem,) = refusal(GOOD | {"JOB_MICRO_BATCH_SIZE": "x"}).problems
    assert problem == "JOB_MICRO_BATCH_SIZE: given 'x'; allowed: auto or a whole number >= 1"


def test_an_unknown_name_is_answered_with_the_nearest_one_in_the_same_spelling():
    (problem,) = refusal(GOOD | {"JOB_LORA_RANK": "8"}).problems
    assert problem == "JOB_LORA_RANK: unknown variable; did you mean JOB_LORA_R?"
    (problem,) = refusal(GOOD | {"JOB_SPEC": '{"learning-rate": 1}'}).problems
    assert problem == "learning-rate: unknown key; did you mean learning_rate?"
    (problem,) = refusal(GOOD | {"JOB_XYZZY": "8"}).problems
    assert problem == "JOB_XYZZY: unknown variable; the command `schema` prints all keys"


def test_a_secret_among_the_keys_is_sent_to_its_own_variable():
    (problem,) = refusal(GOOD | {"JOB_HF_TOKEN": CANARY}).problems
    assert "secrets are never keys" in problem
    assert "set HF_TOKEN" in problem


def test_a_mistake_in_yaml_is_pointed_at_without_its_content():
    (problem,) = refusal({"JOB_SPEC": f"seed: 1\nname: [{CANARY}"} | GOOD).problems
    assert "line 2" in problem

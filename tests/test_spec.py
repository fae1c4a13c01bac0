"""Good specs from every carrier, and what their URIs become."""

from __future__ import annotations

import base64
import json

import pytest

from job.spec import JobSpec, read_spec

TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3f"
GOOD = {"JOB_MODEL": "org/name", "JOB_DATASET": "/data/rows.jsonl", "JOB_OUTPUT": "file:///out"}
FLAT = {"model": "org/name", "dataset": "/data/rows.jsonl", "output": "file:///out"}

YAML = """
# a comment
model: org/name
dataset: /data/rows.jsonl
output: file:///out
lora_r: 32
learning_rate: 1e-4
template_date: 2026-01-31
hub_private: no
eval_dataset: ~
name: "010"
prompts:
  - Who are you?
  - - {role: system, content: Be brief.}
    - {role: user, content: 1984}
"""


def check_what_yaml_says(spec: JobSpec) -> None:
    assert (spec.lora_r, spec.learning_rate, spec.template_date) == (32, 1e-4, "2026-01-31")
    assert (spec.hub_private, spec.eval_dataset, spec.name) == (False, (), "010")
    assert spec.prompts == (
        ({"role": "user", "content": "Who are you?"},),
        ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1984"}),
    )


def test_a_spec_can_be_yaml_text():
    check_what_yaml_says(read_spec({"JOB_SPEC": YAML}))


def test_a_spec_can_be_json_text_with_typed_values():
    typed = FLAT | {"lora_r": 32, "hub_private": False, "epochs": 2, "packing": False}
    spec = read_spec({"JOB_SPEC": json.dumps(typed | {"save": ["merged_16bit"], "name": None})})
    assert (spec.lora_r, spec.hub_private, spec.epochs) == (32, False, 2)
    assert (spec.save, spec.packing, spec.name) == (("merged_16bit",), "false", None)


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_spec_can_be_base64_text(encode):
    encoded = encode(YAML.encode()).decode()
    for text in (encoded, encoded.rstrip("="), encoded[:40] + "\n" + encoded[40:]):
        check_what_yaml_says(read_spec({"JOB_SPEC": f"base64:{text}"}))


def test_a_spec_can_be_a_file(tmp_path):
    (tmp_path / "job.yaml").write_text(YAML)
    check_what_yaml_says(read_spec({"JOB_SPEC": f"{tmp_path}/job.yaml"}))
    check_what_yaml_says(read_spec({"JOB_SPEC": f"file://{tmp_path}/job.yaml"}))


@pytest.mark.parametrize("uri", ["s3://bucket/job.yaml", "https://host/job.yaml"])
def test_a_spec_can_be_fetched(uri):
    asked: list[str] = []

    def fetch(address: str) -> bytes:
        asked.append(address)
        return YAML.encode()

    check_what_yaml_says(read_spec({"JOB_SPEC": uri}, fetch))
    assert asked == [uri]


def test_a_variable_overrides_the_carrier_and_an_empty_one_does_not():
    carrier = json.dumps(FLAT | {"lora_r": 32, "seed": 1})
    spec = read_spec({"JOB_SPEC": carrier, "JOB_LORA_R": "4", "JOB_SEED": " "})
    assert (spec.lora_r, spec.seed) == (4, 1)


def test_a_bad_value_in_the_carrier_is_no_problem_once_overridden():
    carrier = json.dumps(FLAT | {"lora_r": "many"})
    assert read_spec({"JOB_SPEC": carrier, "JOB_LORA_R": "4"}).lora_r == 4


def test_an_empty_string_means_unset():
    empty = {f"JOB_{key.upper()}": "" for key in JobSpec.model_fields}
    assert read_spec(empty | GOOD) == read_spec(GOOD)


def test_other_variables_are_left_alone():
    assert read_spec(GOOD | {"PATH": "/bin", "JOBS": "4", "HF_TOKEN": TOKEN}) == read_spec(GOOD)


MODELS = [
    ("unsloth/gpt-oss-20b", "hf", "hf://unsloth/gpt-oss-20b", None),
    ("gpt2", "hf", "hf://gpt2", None),
    ("org/name@refs/pr/1", "hf", "hf://org/name", "refs/pr/1"),
    ("hf://org/name@0123abc", "hf", "hf://org/name", "0123abc"),
    ("/models//small/", "path", "/models/small", None),
    ("/models/a@b", "path", "/models/a@b", None),
    ("s3://bucket/models/small/", "s3", "s3://bucket/models/small", None),
]


@pytest.mark.parametrize(("text", "scheme", "uri", "revision"), MODELS)
def test_a_model_is_a_hub_id_a_folder_or_a_prefix(text, scheme, uri, revision):
    model = read_spec(GOOD | {"JOB_MODEL": text}).model
    assert (model.scheme, model.uri, model.revision) == (scheme, uri, revision)


def test_a_hub_dataset_may_be_named_like_a_file():
    (source,) = read_spec(GOOD | {"JOB_DATASET": "hf://org/rows.jsonl"}).dataset
    assert source.uri == "hf://org/rows.jsonl"


def test_a_source_carries_its_options():
    sha = "A" * 64
    text = f"hf://org/rows@v1?split=test&config=de&format=sharegpt&sha256={sha}"
    (source,) = read_spec(GOOD | {"JOB_DATASET": text}).dataset
    assert (source.uri, source.scheme, source.revision) == ("hf://org/rows", "hf", "v1")
    assert (source.split, source.config, source.format) == ("test", "de", "sharegpt")
    assert source.sha256 == sha.lower()


def test_several_sources_are_a_list_in_json_or_yaml():
    texts = ["org/rows", "s3://bucket/rows", "https://host/rows.jsonl?format=text", "/rows"]
    from_variable = read_spec(GOOD | {"JOB_DATASET": json.dumps(texts)}).dataset
    from_carrier = read_spec({"JOB_SPEC": json.dumps(FLAT | {"dataset": texts})}).dataset
    assert from_variable == from_carrier
    assert [s.scheme for s in from_variable] == ["hf", "s3", "https", "path"]
    assert [s.uri for s in from_variable][2] == "https://host/rows.jsonl"


def test_several_destinations_are_a_comma_list():
    text = "s3://bucket/runs/, hf://org/tuned,file:///out/"
    refs = read_spec(GOOD | {"JOB_OUTPUT": text}).output
    assert [ref.uri for ref in refs] == ["s3://bucket/runs", "hf://org/tuned", "file:///out"]
    assert [ref.location for ref in refs] == ["bucket/runs", "org/tuned", "/out"]

from __future__ import annotations

import json

import pytest

from job.errors import DataError, NotFound
from job.sources import RemoteFile
from job.sources.layout import Layout, read_layout
from tests.sources.parts import INDEX, NEEDED, SHARDS, WEIGHT_BYTES, index_of, model_files


def layout_of(files: dict[str, bytes]) -> Layout:
    listed = [RemoteFile(name, len(content)) for name, content in files.items()]
    return read_layout(listed, files.__getitem__, "JOB_MODEL x")


def test_only_what_transformers_loads_is_chosen():
    layout = layout_of(model_files())
    assert tuple(file.name for file in layout.files) == NEEDED
    assert layout.config == {"model_type": "llama"}
    assert layout.weight_bytes == WEIGHT_BYTES


def test_a_single_file_wins_over_shards_as_in_transformers():
    layout = layout_of({**model_files(), "model.safetensors": b"whole"})
    names = [file.name for file in layout.files]
    assert "model.safetensors" in names
    assert not {INDEX, *SHARDS} & set(names)
    assert layout.weight_bytes == 5


def test_a_second_set_of_weights_beside_the_index_is_left_out():
    layout = layout_of({**model_files(), "consolidated.safetensors": b"again"})
    assert "consolidated.safetensors" not in [file.name for file in layout.files]


def test_named_chat_templates_in_their_folder_are_taken():
    files = {**model_files(), "additional_chat_templates/tools.jinja": b"t", "other/x.jinja": b"x"}
    names = [file.name for file in layout_of(files).files]
    assert "additional_chat_templates/tools.jinja" in names
    assert "other/x.jinja" not in names


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.gguf", "model.pt", "model.pth", "model.ckpt"]
)
def test_a_model_without_safetensors_is_refused_by_the_name_of_what_it_has(name: str):
    files = {"config.json": b"{}", "tokenizer.json": b"{}", name: b"x"}
    with pytest.raises(NotFound, match=rf"holds no safetensors weights .*found {name}.*convert"):
        layout_of(files)


def test_an_adapter_is_told_apart_from_a_model():
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "adapter_model.safetensors": b"x"}
    with pytest.raises(NotFound, match="LoRA adapter, not a model"):
        layout_of(files)


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        (("config.json",), "no config.json"),
        (("tokenizer.json", "tokenizer_config.json"), "no tokenizer"),
        ((SHARDS[1],), rf"names 2 files and 1 of them are not there \({SHARDS[1]}\)"),
    ],
)
def test_what_is_missing_is_named(gone: tuple[str, ...], told: str):
    files = {name: data for name, data in model_files().items() if name not in gone}
    with pytest.raises(NotFound, match=told):
        layout_of(files)


@pytest.mark.parametrize(
    "shard", ["../../etc/x.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "model.bin"]
)
def test_an_index_that_leads_outside_the_folder_is_refused(shard: str):
    files = {**model_files(), INDEX: index_of(SHARDS[0], shard)}
    with pytest.raises(DataError, match="is no safetensors file of the same folder; it is refused"):
        layout_of(files)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"weight_map": {}}', b"\xff"])
def test_an_index_that_cannot_be_read_is_told(content: bytes):
    with pytest.raises(DataError, match=r"model\.safetensors\.index\.json"):
        layout_of({**model_files(), INDEX: content})


def test_a_config_that_is_no_object_is_told():
    with pytest.raises(DataError, match=r"config\.json is no JSON object"):
        layout_of({**model_files(), "config.json": json.dumps("x").encode()})

"""The disk that a whole job needs: the sum, item by item, against what is free."""

from __future__ import annotations

from pathlib import Path

import pytest

from job import space
from job.errors import OutOfResources
from job.memory import adapter_parameters
from job.spec import read_spec

LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}


def needs(folder: Path, download: int | None = 500, **keys: str) -> dict[str, int]:
    given = {"JOB_MODEL": "org/name", "JOB_DATASET": "/d", "JOB_OUTPUT": "s3://bucket/a"}
    given |= {"JOB_WORK_DIR": f"{folder}/work", "JOB_NAME": "run-a"}
    spec = read_spec(given | {f"JOB_{key.upper()}": value for key, value in keys.items()})
    base = (folder / "work/downloads/base", download) if download else None
    found = space.needs(spec, LLAMA_8B, 1000, base, (7, 10))
    return {need.what: need.size for need in found}


def test_every_part_of_a_job_is_in_the_sum(tmp_path):
    parameters = adapter_parameters(LLAMA_8B, 8, ("auto",))
    found = needs(tmp_path)
    assert found["base model"] == 500
    assert found["downloaded data"] == 7
    assert found["rows as tokens"] == 30
    assert found["3 checkpoints"] == 36 * parameters
    assert found["adapter"] == 4 * parameters
    assert found["merged weights"] == 1000
    assert "merged weights" not in needs(tmp_path, save="lora")
    assert "base model" not in needs(tmp_path, download=None)
    assert set(needs(tmp_path, output=f"file://{tmp_path}/out")) - set(found) == {
        "published, with checkpoints"
    }


def test_a_disk_that_is_too_small_is_refused_with_the_sum_line_by_line(tmp_path):
    wanted = [space.Need("one", 2**60, tmp_path / "a"), space.Need("two", 2**20, tmp_path / "b")]
    with pytest.raises(OutOfResources) as caught:
        space.require(wanted)
    text = str(caught.value)
    assert f"{2**30:.2f} GiB for one" in text
    assert "1.0 MiB for two" in text
    assert "free" in text
    assert "JOB_WORK_DIR" in text


def test_what_is_there_already_is_not_needed_again(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base/weights").write_bytes(bytes(2**20))
    lines = space.require([space.Need("base model", 3 * 2**20, tmp_path / "base")])
    assert "3.0 MiB for base model, 1.0 MiB of it there already" in lines[0]
    assert "2.0 MiB still to be written" in lines[1]


def test_the_disk_is_asked_about_a_folder_that_is_not_made_yet(tmp_path):
    space.require([space.Need("one", 1, tmp_path / "not/yet")])
    assert not (tmp_path / "not").exists()

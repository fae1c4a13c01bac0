"""What is tried before a run: the card, the destinations, the model, the data, the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from job import preflight
from job.credentials import Credentials
from job.errors import NotFound, Unavailable
from job.spec import JobSpec, read_spec
from job.store import Destination, open_destination
from tests.jobs import job

UUID = "GPU-1b2c3d4e-aaaa-bbbb-cccc-0123456789ab"
H100 = f"0, {UUID}, NVIDIA H100 80GB HBM3, 81559, 80994, 9.0, 570.133.20"
T4 = "1, GPU-ffff0000-1111-2222-3333-444444444444, Tesla T4, 15360, 15000, 7.5, 570.133.20"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a program of that name first on the PATH; it knows one question and no other."""

    def put(answer: str, code: int = 0) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "answer").write_text(answer)
        fields = "index,uuid,name,memory.total,memory.free,compute_cap,driver_version"
        question = f"--query-gpu={fields}"
        script = folder / "nvidia-smi"
        script.write_text(
            "#!/bin/sh\n"
            f'[ "$*" = "{question} --format=csv,noheader,nounits" ] || exit 99\n'
            f'cat "{folder}/answer"; exit {code}\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return put


def test_the_card_is_what_the_driver_says(nvidia_smi):
    nvidia_smi(H100 + "\n")
    gpu = preflight.find_gpu({})
    assert gpu.name == "NVIDIA H100 80GB HBM3"
    assert gpu.memory == 81559 * 2**20
    assert gpu.free == 80994 * 2**20
    assert gpu.capability == (9, 0)
    assert gpu.driver == "570.133.20"


@pytest.mark.parametrize(
    ("visible", "name"),
    [
        (None, "NVIDIA H100 80GB HBM3"),
        ("0", "NVIDIA H100 80GB HBM3"),
        ("1", "Tesla T4"),
        (" 1 ,0", "Tesla T4"),
        ("GPU-ffff0000-1111-2222-3333-444444444444", "Tesla T4"),
        ("GPU-ffff,0", "Tesla T4"),
        (UUID, "NVIDIA H100 80GB HBM3"),
    ],
)
def test_of_several_cards_it_is_the_first_that_cuda_sees(nvidia_smi, visible, name):
    nvidia_smi(f"{H100}\n{T4}\n")
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert preflight.find_gpu(environ).name == name


@pytest.mark.parametrize("visible", ["", " ", "-1", "2", "2,0", "NoDevFiles", "MIG-1234"])
def test_a_variable_that_hides_the_cards_is_named_with_what_there_is(nvidia_smi, visible):
    nvidia_smi(f"{H100}\n{T4}\n")
    with pytest.raises(Unavailable) as caught:
        preflight.find_gpu({"CUDA_VISIBLE_DEVICES": visible})
    assert f"CUDA_VISIBLE_DEVICES={visible!r}" in caught.value.message
    assert "0 (NVIDIA H100 80GB HBM3), 1 (Tesla T4)" in caught.value.message


@pytest.mark.parametrize("said", ["[N/A]", "[Insufficient Permissions]"])
@pytest.mark.parametrize(
    ("value", "field"),
    [("81559", "memory.total"), ("9.0", "compute_cap"), ("570.133.20", "driver")],
)
def test_a_card_that_tells_too_little_is_refused_by_what_is_missing(nvidia_smi, said, value, field):
    nvidia_smi(H100.replace(value, said))
    with pytest.raises(Unavailable) as caught:
        preflight.find_gpu({})
    assert f"no {field}" in caught.value.message
    assert said in caught.value.message


def test_a_card_that_does_not_tell_what_is_free_is_taken_as_free(nvidia_smi):
    nvidia_smi(H100.replace("80994", "[N/A]"))
    gpu = preflight.find_gpu({})
    assert gpu.free == gpu.memory == 81559 * 2**20


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ("No devices were found\n", 6, "No devices were found"),
        ("NVIDIA-SMI has failed because it couldn't communicate\n", 9, "couldn't communicate"),
        ("", 0, "none is listed"),
    ],
)
def test_a_driver_without_a_card_is_answered_with_the_way_out(nvidia_smi, answer, code, words):
    nvidia_smi(answer, code)
    with pytest.raises(Unavailable) as caught:
        preflight.find_gpu({})
    assert words in caught.value.message
    assert "--gpus all" in caught.value.message


def test_a_machine_without_a_driver_is_answered_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable) as caught:
        preflight.find_gpu({})
    assert "nvidia-smi is missing" in caught.value.message
    assert "--gpus all" in caught.value.message


def parts(environ: dict[str, str]) -> tuple[JobSpec, list[Destination]]:
    spec = read_spec(environ)
    return spec, [
        open_destination(ref, spec.run_name, spec.save, Credentials(), spec.hub_private)
        for ref in spec.output
    ]


def test_a_good_job_is_found_good_and_nothing_is_left_behind(tmp_path):
    said: list[str] = []
    spec, destinations = parts(job(tmp_path))
    found = preflight.inspect(spec, Credentials(), {}, destinations, said.append)
    assert found.gpu is None
    assert found.device() == {"name": "CPU", "memory_gb": None}
    told = {"type": "llama", "revision": None, "licence": {}, "stored": "16bit"}
    assert found.base() == told | {"uri": f"{tmp_path}/model"}
    assert [dataset.source.uri for dataset in found.train] == [f"{tmp_path}/rows.jsonl"]
    assert found.eval == ()
    assert found.plan.values()["precision"] == "16bit"
    first = [line.split(":")[0] for line in said]
    assert first[:4] == ["device", "destination", "model", "dataset"]
    assert set(first[4:]) == {"disk"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "rows.jsonl"]


def test_the_card_decides_the_plan_and_is_named(tmp_path, nvidia_smi):
    nvidia_smi(H100)
    spec, destinations = parts(job(tmp_path, JOB_DEVICE="cuda"))
    found = preflight.inspect(spec, Credentials(), {}, destinations, lambda _: None)
    assert found.device() == {
        "name": "NVIDIA H100 80GB HBM3",
        "memory_gb": 85.5,
        "driver": "570.133.20",
    }
    assert "NVIDIA H100 80GB HBM3" in found.plan.packing.reason


def test_held_out_rows_are_looked_for_too(tmp_path):
    spec, destinations = parts(job(tmp_path, JOB_EVAL_DATASET=f"{tmp_path}/none.jsonl"))
    with pytest.raises(NotFound, match=r"none\.jsonl"):
        preflight.inspect(spec, Credentials(), {}, destinations, lambda _: None)

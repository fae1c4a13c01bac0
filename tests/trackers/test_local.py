"""Trackers that write files: wandb offline, tensorboard, trackio; each read back."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from tests.jobs import texts
from tests.trackers.conftest import SECRET, Speaker

STEPS = list(range(1, 9))
HEADER, BLOCK = 7, 32768  # bytes of LevelDB's log format, in which wandb keeps a run


def records(path: Path) -> Iterator[wandb_internal_pb2.Record]:
    """What a `.wandb` file holds: records in blocks, one record perhaps in several pieces."""
    content, at, whole = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (1, 4):  # the only piece, or the last one
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def wandb_file(folder: Path) -> Path:
    (path,) = folder.glob("trackers/wandb/offline-run-*/*.wandb")
    return path


def test_wandb_offline_has_settings_curves_and_outcome(tmp_path: Path) -> None:
    speaker = Speaker(tmp_path, "wandb", WANDB_MODE="offline", WANDB_API_KEY=SECRET)
    speaker.trackers.start()
    speaker.whole()
    speaker.end()
    assert speaker.warnings() == []
    history: dict[str, dict[int, float]] = defaultdict(dict)
    config, summary, code = {}, {}, None
    for record in records(wandb_file(speaker.folder)):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            assert (record.run.project, record.run.display_name) == ("finetune-job", "run-a")
            assert record.run.run_id == f"run-a-{speaker.spec.spec_hash[:12]}"
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "config":
            config |= {item.key: json.loads(item.value_json) for item in record.config.update}
        elif kind == "summary":
            for item in record.summary.update:
                summary[item.key or item.nested_key[0]] = json.loads(item.value_json)
        elif kind == "exit":
            code = record.exit.exit_code
        elif kind == "history":
            step = record.history.step.num
            for item in record.history.item:
                name = item.key or item.nested_key[0]
                history[name][step] = json.loads(item.value_json)
    assert list(history["train/grad_norm"]) == STEPS
    assert list(history["train/loss"]) == [1, 2, 4, 5, 6, 7, 8]
    assert history["train/loss"][8] == 0.5
    assert history["eval/loss"] == {0: 2.5, 8: 1.5}
    assert (config["lora_r"], config["plan.micro_batch_size"]) == (8, 4)
    assert (summary["state"], code) == ("done", 0)
    assert SECRET not in texts(tmp_path)


def test_wandb_that_cannot_reach_its_server_costs_a_bounded_end(tmp_path: Path) -> None:
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "k" * 40}
    speaker = Speaker(tmp_path, "wandb", **nobody)
    speaker.trackers.start()
    speaker.whole()
    assert speaker.end(seconds=5) < 12
    assert speaker.warnings()[-1].startswith("wandb: not everything was taken in time")


def test_tensorboard_files_have_settings_curves_and_outcome(tmp_path: Path) -> None:
    speaker = Speaker(tmp_path, "tensorboard")
    speaker.trackers.start()
    speaker.whole()
    speaker.end()
    assert speaker.warnings() == []
    board = EventAccumulator(str(speaker.folder / "trackers/tensorboard"))
    board.Reload()
    assert [point.step for point in board.Scalars("train/grad_norm")] == STEPS
    assert [(p.step, p.value) for p in board.Scalars("eval/loss")] == [(0, 2.5), (8, 1.5)]
    losses = {point.step: point.value for point in board.Scalars("train/loss")}
    assert losses[8] == 0.5

    def text(tag: str) -> str:
        values = board.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val
        return b"".join(values).decode()

    assert "| lora_r | 8 |" in text("settings")
    assert "| state | done |" in text("outcome")


def test_trackio_keeps_settings_curves_and_outcome(tmp_path: Path) -> None:
    speaker = Speaker(tmp_path, "trackio")
    speaker.trackers.start()
    speaker.whole()
    speaker.end()
    assert speaker.warnings() == []
    (path,) = speaker.folder.glob("trackers/trackio/*.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("select step, metrics from metrics order by id").fetchall()
        configs = database.execute("select config from configs").fetchall()
    points = [(step, json.loads(metrics)) for step, metrics in rows]
    assert [step for step, values in points if "train/grad_norm" in values] == STEPS
    assert {s: v["eval/loss"] for s, v in points if "eval/loss" in v} == {0: 2.5, 8: 1.5}
    config = {key: value for (text,) in configs for key, value in json.loads(text).items()}
    told = {key: value for _, values in points for key, value in values.items()}
    assert config["lora_r"] == 8
    assert (told["plan.micro_batch_size"], told["outcome.state"]) == ("4", "done")


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_a_second_start_goes_on_where_the_first_one_ended(tmp_path: Path, name: str) -> None:
    for first, last in ((1, 4), (5, 8)):
        speaker = Speaker(tmp_path, name)
        speaker.trackers.start()
        speaker.steps(first, last)
        speaker.end()
    if name == "tensorboard":
        board = EventAccumulator(str(speaker.folder / "trackers/tensorboard"))
        board.Reload()
        found = [point.step for point in board.Scalars("train/grad_norm")]
    else:
        (path,) = speaker.folder.glob("trackers/trackio/*.db")
        with sqlite3.connect(path) as database:
            found = [step for (step,) in database.execute("select step from metrics order by id")]
    assert found == STEPS

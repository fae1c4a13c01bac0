"""Packed rows give the losses and gradients of the same documents one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from job.train.gptoss import PackedGptOss
from job.train.packed import pack, pack_step, split
from tests.train.gptoss import VOCAB, documents, gradients, one_by_one, small_model, worst

LENGTHS = (5, 33, 2, 17, 21)


@pytest.fixture(scope="module")
def model() -> Any:
    return small_model()


def test_losses_and_gradients_are_those_of_unpacked_documents(model: Any) -> None:
    docs = documents(*LENGTHS)
    row = pack(docs)
    items = len(row.at)
    wanted = one_by_one(model, docs, items)
    wanted_gradients = gradients(model)
    loss, losses = PackedGptOss(model).loss(row, items)
    loss.backward()
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss, wanted.sum() / items, rtol=1e-5, atol=1e-5)
    assert worst(gradients(model), wanted_gradients) < 1e-4


def test_rows_of_a_step_add_up_to_one_row(model: Any) -> None:
    docs, packed = documents(*LENGTHS), PackedGptOss(model)
    whole = pack_step(docs, limit=1000)
    parts = pack_step(docs, limit=40)
    assert len(whole.rows) == 1 < len(parts.rows)
    assert (whole.items, whole.tokens) == (parts.items, parts.tokens)
    found = []
    for step in (whole, parts):
        loss = sum(packed.loss(row, step.items)[0] for row in step.rows)
        loss.backward()
        found.append((loss.detach(), gradients(model)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    assert worst(found[1][1], found[0][1]) < 1e-4


@settings(max_examples=8, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 20), min_size=2, max_size=5),
    changed=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_a_document_sees_no_other(model: Any, lengths: list[int], changed: int, seed: int) -> None:
    packed, docs = PackedGptOss(model), documents(*lengths)
    before = [loss for loss, _, _ in packed.document_scores(pack(docs))]
    changed %= len(docs)
    docs[changed] = documents(lengths[changed], seed=1000 + seed)[0]
    after = [loss for loss, _, _ in packed.document_scores(pack(docs))]
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        assert (i == changed) or abs(a - b) < 1e-5


def test_an_adapter_on_attention_alone_is_trained() -> None:
    from peft import LoraConfig, get_peft_model

    base = small_model().unload()
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "o_proj"]))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.1)
    docs = documents(9, 12)
    row = pack(docs)
    one_by_one(model, docs, len(row.at))
    wanted = gradients(model)
    PackedGptOss(model).loss(row, len(row.at))[0].backward()
    assert worst(gradients(model), wanted) < 1e-4


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(1, 300))
def test_every_document_is_in_one_row_and_rows_keep_the_limit(
    lengths: list[int], limit: int
) -> None:
    rows = split(lengths, limit)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    for row in rows:
        assert sum(lengths[i] for i in row) <= limit or len(row) == 1


def test_positions_restart_and_a_first_token_is_not_predicted() -> None:
    docs = [
        {"input_ids": [7, 8, 9], "labels": [7, -100, 9]},
        {"input_ids": [5, 6], "labels": [5, 6]},
    ]
    row = pack(docs)
    assert row.input_ids.tolist() == [7, 8, 9, 5, 6]
    assert row.position_ids.tolist() == [0, 1, 2, 0, 1]
    assert row.starts.tolist() == [0, 3, 5]
    assert (row.at.tolist(), row.target.tolist()) == ([1, 3], [9, 6])
    assert docs[0]["labels"] == [7, -100, 9]  # the caller's rows stay as they are


def share_right(model: Any, docs: list[dict[str, Any]]) -> float:
    """Trained tokens that transformers' own forward pass finds likeliest, over all of them."""
    right = trained = 0
    with torch.no_grad():
        for doc in docs:
            likeliest = model(input_ids=torch.tensor([doc["input_ids"]])).logits[0].argmax(-1)
            pairs = list(zip(likeliest.tolist(), doc["labels"][1:], strict=False))
            right += sum(found == label for found, label in pairs if label != -100)
            trained += sum(label != -100 for _, label in pairs)
    return right / trained


def test_the_trainer_takes_packed_steps_and_evaluates_by_document(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig

    from bench.gptoss import write_tokenizer
    from job.data.mask.tokenizer import load_tokenizer
    from job.train.packed import packed_trainer

    model = small_model()
    write_tokenizer(tmp_path)
    docs = documents(9, 14, 6, 20, 11, 8, 13, 5)
    config = SFTConfig(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=4,
        max_steps=3,
        learning_rate=1e-2,
        optim="adamw_torch",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = packed_trainer(
        40,
        PackedGptOss,
        None,
        model=model,
        args=config,
        train_dataset=Dataset.from_list(docs),
        eval_dataset=Dataset.from_list(docs[:3]),
        processing_class=load_tokenizer(tmp_path),
    )
    found = trainer.evaluate()
    before = found["eval_loss"]
    assert found["eval_accuracy"] == pytest.approx(share_right(model, docs[:3]))
    mean = [float(one_by_one(model, [doc], 1).mean()) for doc in docs[:3]]
    model.zero_grad()
    assert before == pytest.approx(sum(mean) / 3, rel=1e-5)
    trainer.train()
    assert trainer.state.num_input_tokens_seen >= 3 * sum(len(d["labels"]) for d in docs) // 3
    assert trainer.evaluate()["eval_loss"] < before
    assert model.config.vocab_size == VOCAB

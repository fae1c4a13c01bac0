from __future__ import annotations

import pytest
from tokenizers import processors

from job.data.encode import IGNORED, encode_rows
from job.data.lengths import fit
from job.data.render import Renderer
from job.data.rows import Row
from job.errors import DataError
from tests.data import families
from tests.data.examples import assistant, options, row, user


def encode(tokenizer, rows, **changed):
    return list(encode_rows(rows, Renderer(tokenizer, options(**changed)), tokenizer))


def text_row(text, number=1):
    return Row(None, text, None, "c4", number, format="text")


def with_bos(family):
    """A stand-in that puts BOS before plain text, as Llama 3's tokenizer does."""
    tokenizer = families.stand_in(family)
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    return tokenizer


def test_bos_comes_once_from_the_template_or_from_the_tokenizer():
    tokenizer = with_bos("llama3")
    chat, text = encode(tokenizer, [row(user("Hi"), assistant("Hello")), text_row("Once")])
    assert chat.input_ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(text.input_ids) == "<|begin_of_text|>Once<|eot_id|>"
    assert tokenizer.decode([i for i in text.labels if i != IGNORED]) == "Once<|eot_id|>"


def test_a_row_with_two_bos_tokens_is_an_error():
    tokenizer = families.stand_in("llama3")
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    with pytest.raises(DataError, match="1 of 1 rows") as caught:
        encode(tokenizer, [row(user("Hi"), assistant("Hello"))])
    assert caught.value.problems == ["rows.jsonl, row 1: begins with two BOS tokens"]


def test_bad_rows_are_reported_together_after_all_were_looked_at(smollm2):
    rows = [
        row(user("Hi"), assistant("<|im_end|>" if n % 2 else "Hello"), number=n)
        for n in range(1, 51)
    ]
    with pytest.raises(DataError, match="25 of 50 rows") as caught:
        encode(smollm2, rows)
    assert len(caught.value.problems) == 20
    assert caught.value.problems[1] == (
        "rows.jsonl, row 3, column messages[1].content: holds the model's control token <|im_end|>"
    )


def test_a_token_across_the_start_of_an_answer_is_cut_there(smollm2):
    """The template ends its prompt with a space, which the first word would swallow."""
    tokenizer = families.smollm2_with(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
        smollm2,
    )
    (found,) = encode(tokenizer, [row(user("Is it?"), assistant("Yes, it is."))])
    first = next(i for i, label in enumerate(found.labels) if label != IGNORED)
    assert tokenizer.decode(found.input_ids[first:]) == "Yes, it is.<|im_end|>"
    assert tokenizer.decode(found.input_ids[:first]).endswith("assistant: ")


def test_decomposed_characters_survive_a_tokenizer_that_composes_them():
    from tokenizers import normalizers

    tokenizer = families.stand_in("qwen3")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    (found,) = encode(tokenizer, [row(user("Cafe?"), assistant("Cafe\u0301"))])
    assert tokenizer.decode([i for i in found.labels if i != IGNORED]).endswith("Café<|im_end|>")


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(DataError, match=r"tokenizer\.json"):
        Renderer(Slow(), options())


LONG = [row(user("Hi"), assistant("word " * 100), number=n) for n in (1, 2)]
SHORT = [row(user("Hi"), assistant("Hello"), number=n) for n in range(3, 43)]


def fitted(tokenizer, rows, **changed):
    encoded = encode(tokenizer, rows, **changed)
    return fit(encoded, options(**changed), "The training data")


def test_long_rows_are_dropped_and_counted_with_their_numbers(smollm2):
    kept, lengths = fitted(smollm2, [*LONG, *SHORT], max_seq_length=64)
    assert [e.row.number for e in kept] == list(range(3, 43))
    assert lengths.dropped == {"overlength": 2}
    assert [entry["row"] for entry in lengths.worst["overlength"]] == [1, 2]
    assert lengths.percentiles()["max"] == lengths.worst["overlength"][0]["tokens"] > 100
    assert sum(bin_["rows"] for bin_ in lengths.histogram()) == 42


def test_long_rows_are_cut_at_the_end_and_keep_a_trained_token(smollm2):
    kept, lengths = fitted(smollm2, [*LONG, *SHORT], max_seq_length=64, overlength="truncate")
    assert (len(kept), lengths.cut, lengths.dropped) == (42, 2, {})
    assert [len(e.input_ids) for e in kept[:2]] == [64, 64]
    assert kept[0].trained > 0
    assert kept[0].stops == []
    assert "Hi<|im_end|>" in smollm2.decode(kept[0].input_ids)


def test_a_row_that_would_lose_its_whole_answer_is_dropped_not_cut(smollm2):
    long_question = row(user("word " * 100), assistant("Hello"))
    kept, lengths = fitted(
        smollm2, [long_question, *SHORT], max_seq_length=64, overlength="truncate"
    )
    assert len(kept) == 40
    assert lengths.dropped == {"cut_before_the_answer": 1}


def test_long_rows_are_an_error_when_that_is_asked_for(smollm2):
    with pytest.raises(DataError, match="JOB_OVERLENGTH=error allows none") as caught:
        fitted(smollm2, [*LONG, *SHORT], max_seq_length=64, overlength="error")
    assert "rows.jsonl, row 1" in caught.value.problems[0]


def test_too_many_lost_rows_stop_the_job_with_what_to_change(smollm2):
    with pytest.raises(DataError, match=r"2 of 42 rows would be lost \(2 overlength") as caught:
        fitted(smollm2, [*LONG, *SHORT], max_seq_length=64, max_dropped=0.04)
    for name in ("JOB_MAX_SEQ_LENGTH", "JOB_OVERLENGTH", "JOB_MAX_DROPPED=0.04"):
        assert name in caught.value.message


def test_rows_without_a_trained_token_count_as_lost():
    tokenizer = families.stand_in("qwen3")
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    only_call = row(user("Hi"), assistant("", tool_calls=[call]))
    with pytest.raises(DataError, match="1 no trained token"):
        fitted(tokenizer, [only_call, SHORT[0]], train_on="final")


def test_nothing_is_left_when_every_row_is_too_long(smollm2):
    with pytest.raises(DataError, match="2 of 2 rows would be lost"):
        fitted(smollm2, LONG, max_seq_length=16, max_dropped=1.0)

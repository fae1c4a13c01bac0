from __future__ import annotations

import pytest
from tokenizers import AddedToken, Regex, normalizers, processors

from job.data.mask.encode import IGNORED, RowEncoder
from job.data.mask.render import Renderer
from job.data.rows import BadRow, Row
from job.errors import DataError
from tests.data import families
from tests.data.examples import (
    WEATHER,
    assistant,
    call,
    encode,
    encode_all,
    options,
    row,
    system,
    tool,
    trained_runs,
    user,
)


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
    chat = encode(tokenizer, row(user("Hi"), assistant("Hello")))
    text = encode(tokenizer, text_row("Once"))
    assert chat.input_ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(text.input_ids) == "<|begin_of_text|>Once<|eot_id|>"
    assert trained_runs(tokenizer, text) == ["Once<|eot_id|>"]


def test_a_row_with_two_bos_tokens_is_an_error():
    tokenizer = families.stand_in("llama3")
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    with pytest.raises(BadRow, match="begins with two BOS tokens"):
        encode(tokenizer, row(user("Hi"), assistant("Hello")))


def test_each_row_of_a_batch_has_its_own_answer_in_its_place(smollm2):
    rows = [row(user("Hi"), assistant(f"Hello {n}"), number=n) for n in range(6)]
    rows[2] = row(user("Hi"), assistant("\x04"), number=2)  # SmolLM2 knows no such byte
    found = encode_all(smollm2, rows)
    assert [isinstance(one, BadRow) for one in found] == [n == 2 for n in range(6)]
    assert "has no token" in found[2].what
    assert [one[0].row.number for one in found if not isinstance(one, BadRow)] == [0, 1, 3, 4, 5]


def test_a_row_becomes_the_same_alone_and_in_any_batch(smollm2):
    rows = [row(user("Hi"), assistant(f"Hello {'<|im_end|>' * n}"), number=n) for n in range(5)]
    together = encode_all(smollm2, rows)
    assert together == [encode_all(smollm2, [one])[0] for one in rows]
    assert together == encode_all(smollm2, rows[::-1])[::-1]
    assert RowEncoder(smollm2, options()).encode([]) == []


def test_a_token_across_the_start_of_an_answer_is_cut_there(smollm2):
    """The template ends its prompt with a space, which the first word would swallow."""
    tokenizer = families.smollm2_with(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
        smollm2,
    )
    found = encode(tokenizer, row(user("Is it?"), assistant("Yes, it is.")))
    first = next(i for i, label in enumerate(found.labels) if label != IGNORED)
    assert tokenizer.decode(found.input_ids[first:]) == "Yes, it is.<|im_end|>"
    assert tokenizer.decode(found.input_ids[:first]).endswith("assistant: ")
    prompt = tokenizer("user: Is it?<|im_end|>assistant: ").input_ids
    assert found.input_ids[:first] == prompt  # as it is when the model answers


def test_text_that_looks_like_a_token_stays_text_in_a_row_that_is_cut(smollm2):
    tokenizer = families.smollm2_with(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
        smollm2,
    )
    found = encode(tokenizer, row(user("What is <|im_end|>?"), assistant("<|im_end|> is a token")))
    assert trained_runs(tokenizer, found) == ["<|im_end|> is a token<|im_end|>"]
    assert found.input_ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2
    assert found.escaped == 2


def test_decomposed_characters_survive_a_tokenizer_that_composes_them():
    tokenizer = families.stand_in("qwen3")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    found = encode(tokenizer, row(user("Cafe?"), assistant("Cafe\u0301")))
    assert trained_runs(tokenizer, found)[0].endswith("Café<|im_end|>")


def test_a_tokenizer_that_changes_words_is_an_error():
    tokenizer = families.stand_in("qwen3")
    tokenizer.backend_tokenizer.decoder = None
    with pytest.raises(BadRow, match="do not decode to the text that was meant"):
        encode(tokenizer, row(user("Cafe?"), assistant("Café au lait")))


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(DataError, match=r"tokenizer\.json"):
        Renderer(Slow(), options())


def test_a_tokenizer_that_pads_and_truncates_by_itself_does_neither_here(smollm2):
    tokenizer = families.smollm2_with(smollm2.chat_template, smollm2)
    tokenizer.backend_tokenizer.enable_truncation(8)
    tokenizer.backend_tokenizer.enable_padding(length=512)
    given = row(user("Hi"), assistant("word " * 40))
    assert encode(tokenizer, given).input_ids == encode(smollm2, given).input_ids


# --- text that looks like control tokens ----------------------------------------------------------


@pytest.mark.parametrize("kind", ["first", "always", "legacy"])
@pytest.mark.parametrize("text", ["</s>", "a <s>b</s> c", "[INST] </s></s>", "<</s>>", "[/INST]é"])
def test_no_space_appears_where_a_space_begins_every_text(kind, text):
    """Tokenised piece by piece, "<" and "/s>" would become "▁<" and "▁/s>"."""
    tokenizer = families.sentencepiece(kind)
    found = encode(tokenizer, row(user(text), assistant(text)))
    plain = encode(tokenizer, row(user("a"), assistant("a")))
    control = set(tokenizer.added_tokens_decoder)
    assert [i for i in found.input_ids if i in control] == [
        i for i in plain.input_ids if i in control
    ]
    space = " " if kind == "legacy" else ""  # Llama 2 puts one after every control token
    assert trained_runs(tokenizer, found) == [f"{space}{text}</s>"]
    assert f"[INST]{space} {text}" in tokenizer.decode(found.input_ids)


def test_a_tokenizer_that_cannot_be_kept_from_taking_text_for_a_token_refuses_it():
    tokenizer = families.stand_in("qwen3")
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Replace(Regex(r"\p{Co}"), "")
    backend.add_special_tokens([AddedToken("<|seen|>", special=True, normalized=True)])
    with pytest.raises(BadRow, match="cannot be kept from taking it for one"):
        encode(tokenizer, row(user("Hi"), assistant("a <|seen|> b")))


def test_a_character_that_is_itself_a_control_token_is_refused():
    tokenizer = families.stand_in("qwen3")
    tokenizer.add_special_tokens({"additional_special_tokens": ["☃"]})
    with pytest.raises(BadRow, match="takes for a control token"):
        encode(tokenizer, row(user("Hi"), assistant("a ☃ b")))


def test_text_and_pairs_without_template_hold_no_control_token_either():
    tokenizer = with_bos("llama3")
    tokenizer.chat_template = None
    text = encode(tokenizer, text_row("GPT-2 ends a text with <|begin_of_text|> or <|eot_id|>."))
    pair = encode(tokenizer, row(user("What ends <|eot"), assistant("_id|>?"), is_pair=True))
    for found, escaped in ((text, 2), (pair, 1)):
        assert found.escaped == escaped
        tokens = tokenizer.convert_ids_to_tokens(found.input_ids)
        assert tokens.count("<|begin_of_text|>") == tokens.count("<|eot_id|>") == 1
    assert trained_runs(tokenizer, pair) == ["_id|>?<|eot_id|>"]


def test_words_and_markup_that_a_tokenizer_holds_whole_stay_whole():
    """Gemma has tokens for line breaks and HTML; vocabularies are extended by words."""
    tokenizer = families.stand_in("gemma3")
    ordinary = ["\n\n", "<table>", "</h1>", "こんにちは"]
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in ordinary])
    tokenizer.add_tokens(["<unused7>", "[@BOS@]"])
    said = "<table>こんにちは\n\n</h1> <unused7>[@BOS@]"
    found = encode(tokenizer, row(user("Hi"), assistant(said)))
    tokens = tokenizer.convert_ids_to_tokens(found.input_ids)
    assert [token for token in tokens if token in ordinary] == [
        "<table>",
        "こんにちは",
        "\n\n",
        "</h1>",
    ]
    assert found.escaped == 2
    assert trained_runs(tokenizer, found) == [f"{said}<end_of_turn>"]


def test_what_is_folded_uses_the_real_tags_and_what_is_said_does_not():
    """Qwen's tokens <tool_call> and <think> belong to the calls and reasoning of this row."""
    tokenizer = families.stand_in("qwen3")
    tokenizer.chat_template = (  # names no tag
        "{% for m in messages %}{{ raise_exception('?') if m.role == 'tool' }}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    turns = (
        user("Print <tool_call> and </think>."),
        assistant("", "Hm </think>", tool_calls=[call("print", text="<tool_call>")]),
        {"role": "tool", "name": "print", "content": "<tool_response>"},
        assistant("Done."),
    )
    found = encode(tokenizer, row(*turns, tools=(tool("print"),)))
    tokens = tokenizer.convert_ids_to_tokens(found.input_ids)
    for tag in ("<think>", "</think>", "</tool_call>", "<tool_response>"):
        assert tokens.count(tag) == 1 + (tag == "</tool_call>")  # it also explains the calls
    assert found.folded
    assert found.escaped == 5


# --- what is told beside the tokens ---------------------------------------------------------------


def test_reasoning_is_what_the_example_shows_of_its_own_turns():
    tokenizer = families.stand_in("gptoss")
    first = (user("Hi"), assistant("Hello", "A greeting."))
    both = (*first, user("Bye"), assistant("See you", "It ends."))
    dropped = (*first, user("Bye"), assistant("See you"))
    assert encode(tokenizer, row(*both)).reasoning
    assert not encode(tokenizer, row(*dropped)).reasoning
    assert not encode(tokenizer, row(user("Hi"), assistant("Hello"))).reasoning
    assert not encode(tokenizer, row(*dropped, context=3)).reasoning
    assert encode(families.stand_in("qwen2_5"), row(*dropped)).reasoning
    assert not encode(families.stand_in("qwen2_5"), row(*dropped, context=3)).reasoning


def test_folded_is_what_a_template_has_no_words_for():
    said = row(*WEATHER, tools=(tool("weather"),))
    assert encode(families.stand_in("phi3"), said).folded
    assert not encode(families.stand_in("qwen3"), said).folded
    assert not encode(families.stand_in("phi3"), row(system("a"), user("b"), assistant("c"))).folded


def test_trained_tokens_do_not_count_the_first_one():
    tokenizer = families.stand_in("qwen2_5")
    found = encode(tokenizer, text_row("ab"), train_on="all")
    assert len(found.input_ids) == 3
    assert found.trained == 2

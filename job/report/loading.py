"""How to load what was saved, as the card tells it: code that a person can paste.

The Python in it is run by tests/train/test_cards.py; the lines for vLLM follow
docs.vllm.ai/en/latest/features/lora, since vLLM is not among this project's libraries.
"""

from __future__ import annotations

from typing import Any

from job.report import view, words

Result = dict[str, Any]
BASE = "path/to/the/base/model"
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that --max-lora-rank may have


def adapter(result: Result) -> str:
    """For the adapter, which is loaded onto its base model."""
    here, hub = _here(result, "adapter"), words.hub_id(view.model_uri(result))
    base, model = hub or BASE, result.get("model") or {}
    revision = model.get("revision") if hub else None
    dequantised = model.get("stored") == "mxfp4"
    needs = ", Mxfp4Config" if dequantised else ""
    lines = [
        f'    "{base}",',
        *([f'    revision="{revision}",'] if revision else []),
        *(["    quantization_config=Mxfp4Config(dequantize=True),"] if dequantised else []),
        '    dtype="auto",',
        '    device_map="auto",',
    ]
    peft = (
        "from peft import PeftModel\n"
        f"from transformers import AutoModelForCausalLM, AutoTokenizer{needs}\n\n"
        "base = AutoModelForCausalLM.from_pretrained(\n" + "\n".join(lines) + "\n)\n"
        f'model = PeftModel.from_pretrained(base, "{here}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{here}")'
    )
    pin = f" --revision {revision}" if revision else ""
    rank = next(rank for rank in VLLM_RANKS if rank >= (result["spec"].get("lora_r") or 16))
    serve = f"vllm serve {base}{pin} --enable-lora --max-lora-rank {rank} \\\n"
    serve += f"    --lora-modules tuned={here}"
    parts = [
        _python("transformers and PEFT", peft),
        _python("Unsloth", _unsloth(result, here)),
        _shell("vLLM, which then answers as the model `tuned`", serve),
    ]
    if not hub:
        parts.insert(
            1,
            "Unsloth looks for the base model where `base_model_name_or_path` in "
            "`adapter_config.json` says: change that to where yours is.",
        )
    return "\n\n".join(parts)


def merged(result: Result) -> str:
    """For the merged model, which needs neither its base nor PEFT."""
    here = _here(result, "merged")
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{here}", dtype="auto", '
        'device_map="auto")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{here}")'
    )
    return "\n\n".join(
        [
            "The adapter is merged into these weights, so PEFT is not needed.",
            _python("transformers", code),
            _python("Unsloth", _unsloth(result, here)),
            _shell("vLLM", f"vllm serve {here}"),
        ]
    )


def _unsloth(result: Result, here: str) -> str:
    """In 4 bits only what was trained on a base in 4 bits."""
    precision = ((result.get("plan") or {}).get("precision") or {}).get("value")
    length = result["spec"].get("max_seq_length") or 4096
    return (
        "from unsloth import FastLanguageModel\n\n"
        "model, tokenizer = FastLanguageModel.from_pretrained(\n"
        f'    "{here}", max_seq_length={length}, load_in_4bit={precision == "4bit"}\n'
        ")"
    )


def _here(result: Result, kind: str) -> str:
    """The Hub repository that the card is for, else a path to fill in."""
    for uri in words.items(result["spec"].get("output")):
        if uri.startswith("hf://"):
            places = dict(view.places(uri, result["spec"].get("save", "")))
            return places["adapter" if kind == "adapter" else "merged model"].removeprefix("hf://")
    return f"path/to/{kind}"


def _python(name: str, code: str) -> str:
    return f"With {name}:\n\n```python\n{code}\n```"


def _shell(name: str, line: str) -> str:
    return f"With {name}:\n\n```sh\n{line}\n```"

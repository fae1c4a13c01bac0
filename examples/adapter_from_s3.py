"""Read an adapter back from S3 and answer a question with it, as its user would.

    python examples/adapter_from_s3.py s3://bucket/prefix/run BASE_MODEL_FOLDER

Endpoint and keys come from the usual AWS_* variables.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import boto3


def download(uri: str, folder: Path) -> list[str]:
    """Download every object below `uri` into `folder`; returns their names, sorted."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/")
    names = []
    for item in (item for page in pages for item in page.get("Contents", [])):
        names.append(item["Key"].removeprefix(prefix + "/"))
        client.download_file(bucket, item["Key"], str(folder / names[-1]))
    return sorted(names)


def answer(base: Path, adapter: Path, question: str) -> str:
    """The greedy answer of base + adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter)
    chat = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    new = output[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(new, skip_special_tokens=True))


def main(argv: list[str]) -> int:
    """Download, load, ask."""
    uri, base = argv
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = download(f"{uri}/adapter", folder)
        print(f"read back from {uri}/adapter: {', '.join(names)}")
        question = "What is the capital of Italy?"
        print(f"{question}\n{answer(Path(base), folder, question)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

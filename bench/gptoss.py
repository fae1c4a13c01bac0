"""Random checkpoints of gpt-oss's shape, in the layouts that are published, with a tokenizer.

    python bench/gptoss.py FOLDER --layers 24 --layout mxfp4

For machines that reach no hub: weights are N(0, 0.02), so speed and memory are those of the real
model and answers are noise. The tokenizer is byte-level with the real special tokens at their real
ids; its chat template is the Harmony template that TRL ships.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOCAB, HEAD = 201_088, 64  # tokens; numbers per attention head
SPECIAL = {
    "<|startoftext|>": 199_998,
    "<|endoftext|>": 199_999,
    "<|return|>": 200_002,
    "<|constrain|>": 200_003,
    "<|channel|>": 200_005,
    "<|start|>": 200_006,
    "<|end|>": 200_007,
    "<|message|>": 200_008,
    "<|call|>": 200_012,
}
FILES_AT_ONCE = 4
NOT_CONVERTED = ["self_attn", "mlp.router"]  # stay in bfloat16 in the MXFP4 layout


@dataclass(frozen=True)
class Shape:
    """The sizes that differ between checkpoints; the defaults are gpt-oss-20b's."""

    layers: int = 24
    hidden: int = 2880
    heads: int = 64
    kv_heads: int = 8
    experts: int = 32


TINY = Shape(layers=2, hidden=64, heads=2, kv_heads=1, experts=4)  # trains on a CPU


def config(shape: Shape, layout: str) -> dict[str, Any]:
    """config.json as of openai/gpt-oss-20b on the Hub, with the sizes of `shape`."""
    result: dict[str, Any] = {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "dtype": "bfloat16",
        "num_hidden_layers": shape.layers,
        "num_local_experts": shape.experts,
        "num_experts_per_tok": 4,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": HEAD,
        "vocab_size": VOCAB,
        "sliding_window": 128,
        "layer_types": [
            ("sliding_attention", "full_attention")[i % 2] for i in range(shape.layers)
        ],
        "max_position_embeddings": 131_072,
        "initial_context_length": 4096,
        "rms_norm_eps": 1e-5,
        "swiglu_limit": 7.0,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "eos_token_id": SPECIAL["<|return|>"],
        "pad_token_id": SPECIAL["<|endoftext|>"],
        "rope_theta": 150_000,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    }
    if layout == "mxfp4":
        kept = [f"model.layers.*.{name}" for name in NOT_CONVERTED]
        result["quantization_config"] = {
            "quant_method": "mxfp4",
            "modules_to_not_convert": [*kept, "model.embed_tokens", "lm_head"],
        }
    return result


class Writer:
    """Draws tensors on the fastest device there is and writes one file for each layer."""

    def __init__(self, folder: Path, shape: Shape, seed: int) -> None:
        import torch

        self.folder, self.shape = folder, shape
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.index: dict[str, str] = {}
        self.bytes = 0
        self.pool = ThreadPoolExecutor(FILES_AT_ONCE)
        self.writes: list[Future[None]] = []

    def normal(self, *shape: int, scale: float = 0.02) -> Any:
        """N(0, scale) in bfloat16."""
        import torch

        options: dict[str, Any] = {"device": self.device, "generator": self.generator}
        return torch.randn(*shape, dtype=torch.bfloat16, **options) * scale

    def packed(self, rows: int, columns: int) -> dict[str, Any]:
        """All experts of one projection in MXFP4: two 4-bit values a byte, a scale for each 32.

        The scale's byte is an exponent with bias 127: 2^(120 - 127) makes values of up to 0.05.
        """
        import torch

        blocks = (self.shape.experts, rows, columns // 32, 16)
        options: dict[str, Any] = {"device": self.device, "dtype": torch.uint8}
        return {
            "blocks": torch.randint(0, 256, blocks, generator=self.generator, **options),
            "scales": torch.full(blocks[:3], 120, **options),
        }

    def write(self, name: str, tensors: dict[str, Any]) -> None:
        """Have one safetensors file written, while the next ones are drawn."""
        self.bytes += sum(t.numel() * t.element_size() for t in tensors.values())
        self.index |= dict.fromkeys(tensors, name)
        if len(self.writes) >= FILES_AT_ONCE:
            self.writes[-FILES_AT_ONCE].result()
        self.writes.append(self.pool.submit(self._save, self.folder / name, tensors))

    def finish(self) -> None:
        """Wait for the last files, and raise what went wrong."""
        for write in self.writes:
            write.result()
        self.pool.shutdown()

    @staticmethod
    def _save(path: Path, tensors: dict[str, Any]) -> None:
        from safetensors.torch import save_file

        on_cpu = {key: tensor.cpu().contiguous() for key, tensor in tensors.items()}
        save_file(on_cpu, path, metadata={"format": "pt"})


def layer(writer: Writer, number: int, layout: str) -> dict[str, Any]:
    """The tensors of one transformer layer."""
    shape, normal = writer.shape, writer.normal
    hidden, experts = shape.hidden, shape.experts
    query, value = shape.heads * HEAD, shape.kv_heads * HEAD
    tensors = {
        "self_attn.o_proj.weight": normal(hidden, query),
        "self_attn.o_proj.bias": normal(hidden),
        "self_attn.sinks": normal(shape.heads),
        "input_layernorm.weight": normal(hidden, scale=0.0) + 1,
        "post_attention_layernorm.weight": normal(hidden, scale=0.0) + 1,
        "mlp.router.weight": normal(experts, hidden, scale=0.05),
        "mlp.router.bias": normal(experts),
    }
    for name, rows in (("q", query), ("k", value), ("v", value)):
        tensors[f"self_attn.{name}_proj.weight"] = normal(rows, hidden)
        tensors[f"self_attn.{name}_proj.bias"] = normal(rows)
    for name, rows in (("gate_up_proj", 2 * hidden), ("down_proj", hidden)):
        tensors[f"mlp.experts.{name}_bias"] = normal(experts, rows)
        if layout == "mxfp4":
            for part, tensor in writer.packed(rows, hidden).items():
                tensors[f"mlp.experts.{name}_{part}"] = tensor
        else:
            tensors[f"mlp.experts.{name}"] = normal(experts, hidden, rows)
    return {f"model.layers.{number}.{name}": tensor for name, tensor in tensors.items()}


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer with gpt-oss's special tokens at their ids, and TRL's template."""
    import trl
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    first = min(SPECIAL.values())
    vocab = {letter: i for i, letter in enumerate(letters)}
    vocab |= {f"unused{i}": i for i in range(len(letters), first)}
    names = {number: name for name, number in SPECIAL.items()}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [
            AddedToken(names.get(i, f"<|reserved_{i}|>"), special=True, normalized=False)
            for i in range(first, max(SPECIAL.values()) + 1)
        ]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|startoftext|>",
        eos_token="<|return|>",
        pad_token="<|endoftext|>",
    )
    template = Path(trl.__file__).parent / "chat_templates" / "gptoss.jinja"
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    tokenizer.save_pretrained(folder)


def write_checkpoint(folder: Path, shape: Shape, layout: str, seed: int = 0) -> int:
    """Write weights, index, configs and tokenizer; returns the bytes of the weights."""
    folder.mkdir(parents=True)
    writer = Writer(folder, shape, seed)
    for number in range(shape.layers):
        writer.write(f"layer-{number:02d}.safetensors", layer(writer, number, layout))
    outer = {
        "model.embed_tokens.weight": writer.normal(VOCAB, shape.hidden),
        "lm_head.weight": writer.normal(VOCAB, shape.hidden),
        "model.norm.weight": writer.normal(shape.hidden, scale=0.0) + 1,
    }
    writer.write("outer.safetensors", outer)
    writer.finish()
    stops = [SPECIAL[name] for name in ("<|return|>", "<|endoftext|>", "<|call|>")]
    content = {
        "config.json": config(shape, layout),
        "model.safetensors.index.json": {
            "metadata": {"total_size": writer.bytes},
            "weight_map": writer.index,
        },
        "generation_config.json": {"eos_token_id": stops, "pad_token_id": stops[1]},
    }
    for name, data in content.items():
        (folder / name).write_text(json.dumps(data, indent=1), encoding="utf-8")
    write_tokenizer(folder)
    return writer.bytes


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--experts", type=int, default=32)
    parser.add_argument("--layout", choices=["mxfp4", "bf16"], default="mxfp4")
    args = parser.parse_args()
    started = time.monotonic()
    shape = Shape(layers=args.layers, experts=args.experts)
    size = write_checkpoint(args.folder, shape, args.layout)
    print(f"{args.folder}: {size / 2**30:.1f} GiB in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()

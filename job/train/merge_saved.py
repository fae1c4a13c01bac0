"""The merge of a saved adapter, in a process of its own, by PEFT.

`python -m job.train.merge_saved`. It serves a start that finds the adapter finished, the command
`merge`, which needs no GPU, and every base that is stored in MXFP4: Unsloth 2026.10.7 dequantises
such a base but does not find the adapters of the fused experts (unsloth_zoo/saving_utils.py:2698
looks them up by the tensor's name), and refuses: "# of LoRAs = 12 does not match # of saved modules
= 8". Needs room for the whole model in bfloat16, on the GPU or else in memory.
`tests/gpu/test_gpt_oss.py` trains such a base; when its MXFP4 case passes with
`plan.merge == "unsloth"`, this is no longer needed for that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from job.channel import Channel, run_child
from job.train.merge import require_weights
from job.train.models import load, place, with_adapter


def main(channel: Channel) -> None:
    """Wait for the request and do it: `model`, `adapter` and `merged`, three folders."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    channel.emit("ready")
    request = channel.receive()
    base, merged = Path(request["model"]), Path(request["merged"])
    channel.emit("phase", phase="merge", message="merging into 16-bit weights with PEFT")
    device = place(base, "cuda") if torch.cuda.is_available() else "host"
    model: Any = load(base, device)
    model = with_adapter(model, Path(request["adapter"])).merge_and_unload(safe_merge=True)
    # With its default, transformers 5.17 writes dequantised experts under the names of patterns
    # ("gate_up_proj$"), which nothing loads.
    model.save_pretrained(merged, save_original_format=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base, local_files_only=True)
    tokenizer.save_pretrained(merged)
    require_weights(merged)
    channel.emit("artifact", part="merged")


if __name__ == "__main__":
    run_child(main)

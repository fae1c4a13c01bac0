"""What Unsloth 2026.10.7 needs to run without a GPU, each stub with its reason.

Unsloth asks CUDA for names, sizes and capabilities even when told `UNSLOTH_ALLOW_CPU=1` (set by
job/child.py, with the other variables of device=cpu). The answers below are only read to pick a
kernel or to print a banner; on the CPU none of those kernels runs, since `UNSLOTH_COMPILE_DISABLE`
leaves the plain torch code. `tests/train/test_end_to_end.py` trains through here and tells when a
stub can go: remove it and the test still passes.
"""

from __future__ import annotations

from types import SimpleNamespace


def before_import() -> None:
    """Stub the CUDA questions that Unsloth asks while it is imported and while it loads.

    `get_device_capability`: unsloth/models/_utils.py:7918; 8.0 (Ampere) is the plainest answer.
    `get_device_properties`, `mem_get_info`, `current_device`: unsloth/models/vision.py:1668-1672.
    """
    import torch

    gib = 2**30
    properties = SimpleNamespace(name="CPU", total_memory=16 * gib, major=8, minor=0)
    torch.cuda.get_device_capability = lambda device=None: (8, 0)
    torch.cuda.get_device_properties = lambda device=None: properties
    torch.cuda.mem_get_info = lambda device=None: (16 * gib, 16 * gib)
    torch.cuda.current_device = lambda: 0


def after_import() -> None:
    """Apply what Unsloth skips under UNSLOTH_ALLOW_CPU, so that the CPU runs the GPU's code.

    The TRL trainers are rewritten (unsloth/models/rl.py:5092 and unsloth/_gpu_init.py:793 skip it):
    without that, TRL 1.15 computes the loss in a Triton kernel (trl/trainer/sft_trainer.py:1598).
    """
    from unsloth import context_parallel, trainer
    from unsloth.models import rl, vision

    rl.patch_trl_disable_gradient_checkpointing()
    rl.patch_trl_rl_trainers()
    trainer._patch_trl_trainer()
    context_parallel.patch_sft_trainer()
    # The banner at load asks CUDA for a name and a size (unsloth/models/vision.py:3332).
    vision.get_device_stats = lambda: ("CPU", "", 0.0)

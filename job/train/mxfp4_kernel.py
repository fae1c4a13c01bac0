"""MXFP4 to bfloat16 in Triton: one pass that reads 17 bytes and writes 64 for each 32 values."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

GROUPS = 128  # of a program: 4,096 values


@triton.jit
def _bfloat16(four, scale):
    """The bits of sign, two of exponent and one of mantissa, times 2^(scale - 127)."""
    value = four & 7
    # 1 is the one value below the smallest exponent: 0.5, and no mantissa.
    exponent = scale + tl.where(value == 1, -1, (value >> 1) - 1)
    mantissa = tl.where(value == 1, 0, (value & 1) << 6)
    bits = tl.where(value == 0, 0, (exponent << 7) | mantissa)
    return bits | ((four >> 3) << 15)


@triton.jit
def _dequantise(blocks, scales, out, groups, size: tl.constexpr):
    group = tl.program_id(0).to(tl.int64) * size + tl.arange(0, size)
    keep, at = (group < groups)[:, None], group[:, None] * 16 + tl.arange(0, 16)[None, :]
    scale = tl.load(scales + group, group < groups, 127).to(tl.int32)[:, None]
    pair = tl.load(blocks + at, keep, 0).to(tl.int32)
    low, high = _bfloat16(pair & 15, scale), _bfloat16(pair >> 4, scale)
    tl.store(out.to(tl.pointer_type(tl.int32)) + at, low | (high << 16), keep)


def dequantise(blocks: Any, scales: Any) -> Any:
    """See `job.train.mxfp4`."""
    *outer, groups, _ = blocks.shape
    out = torch.empty(*outer, groups * 32, dtype=torch.bfloat16, device=blocks.device)
    count = scales.numel()
    _dequantise[(triton.cdiv(count, GROUPS),)](blocks, scales, out, count, size=GROUPS, num_warps=4)
    return out

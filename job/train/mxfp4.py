"""gpt-oss's expert weights as they are published: MXFP4, which is made 16 bits when it is needed.

Two values of 4 bits a byte, the first in the low half, and one scale, a power of two, for each 32
(OCP Microscaling Formats v1.0; transformers 5.17, integrations/mxfp4.py). A weight of 4.25 bits a
value stays on the card; what a product needs in 16 bits exists while it runs.
"""

from __future__ import annotations

from typing import Any

import torch

GROUP = 32  # values that share a scale
BIAS = 127  # of the scale's exponent
# Scales of which every product with a value is a normal bfloat16; published ones are far inside.
SCALES = (2, 251)
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of the low three bits; the fourth is the sign


class Mxfp4:
    """A frozen weight (E, in, out) whose entries are dequantised as they are taken.

    Args:
        blocks: (E, out, in / 32, 16) uint8.
        scales: (E, out, in / 32) uint8.
        dtype: of what is taken.
    """

    def __init__(
        self, blocks: Any, scales: Any, dtype: torch.dtype, *, transposed: bool = False
    ) -> None:
        self.blocks, self.scales, self.dtype = blocks, scales, dtype
        self._transposed = transposed
        experts, rows, groups = scales.shape
        inner = (experts, groups * GROUP, rows)
        self.shape = (experts, rows, groups * GROUP) if transposed else inner

    def transpose(self, _: int, __: int) -> Mxfp4:
        """The weight (E, out, in)."""
        return Mxfp4(self.blocks, self.scales, self.dtype, transposed=not self._transposed)

    def __getitem__(self, experts: int | slice) -> Any:
        """The weight of an expert, (in, out), or of several, (e, in, out), in `dtype`."""
        dense = dequantise(self.blocks[experts], self.scales[experts], self.dtype)
        return dense if self._transposed else dense.transpose(-1, -2)


def dequantise(blocks: Any, scales: Any, dtype: torch.dtype) -> Any:
    """Blocks (..., groups, 16) and scales (..., groups) as values (..., groups x 32)."""
    if blocks.is_cuda and dtype == torch.bfloat16:
        from job.train.mxfp4_kernel import dequantise as on_gpu

        return on_gpu(blocks, scales)
    table = torch.tensor([*VALUES, *(-v for v in VALUES)], device=blocks.device)
    pairs = torch.stack((blocks & 15, blocks >> 4), -1).flatten(-2).long()
    exponents = scales.to(torch.int32)[..., None] - BIAS
    return torch.ldexp(table[pairs], exponents).to(dtype).flatten(-2)


def probe() -> bool:
    """Whether the GPU's values are the formula's, for every byte and every scale."""
    scales = torch.arange(SCALES[0], SCALES[1] + 1, device="cuda").to(torch.uint8)
    blocks = torch.arange(256, device="cuda").to(torch.uint8).view(16, 16)
    scales, blocks = scales.repeat_interleave(16), blocks.repeat(len(scales), 1)
    got = dequantise(blocks, scales, torch.bfloat16)
    return bool(torch.equal(got.float(), dequantise(blocks, scales, torch.float32)))

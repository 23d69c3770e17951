"""What kernels of a GPU hold and allocate, on any device; what they compute is not computed.

int8 and int4 as bitsandbytes 0.50 does it on CUDA (`MatMul8bitLt`, `gemm_4bit`), read from its
source.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sidecar.engines.vibevoice.vibevoice_decoder import VibeVoiceDecoder


def fused_attention(_: VibeVoiceDecoder, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What a fused kernel allocates: its output, and one float32 per head and query."""
    query.new_empty(query.shape[:-1], dtype=torch.float32)
    return torch.empty_like(query)


class Int8Linear(nn.Module):
    """LLM.int8: a byte per weight, a scale per row; the input quantized, the sum in int32."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.dtype = linear.weight.dtype
        self.weight = nn.Buffer(torch.empty_like(linear.weight, dtype=torch.int8))
        self.scales = nn.Buffer(linear.weight.new_empty(len(linear.weight), dtype=torch.float32))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Allocate what the CUDA path allocates, in its order."""
        small = self._quantized(x.to(torch.float16))
        total = small.new_empty(*x.shape[:-1], len(self.weight), dtype=torch.int32)
        return torch.empty_like(total, dtype=torch.float16).to(self.dtype)

    @staticmethod
    def _quantized(x: Tensor) -> Tensor:
        x.new_empty(x.shape[:-1], dtype=torch.float32)
        small = torch.empty_like(x, dtype=torch.int8)
        x.abs() >= 6.0  # noqa: B015  (the look for outliers: a copy and a mask)
        return small


class Int4Linear(nn.Module):
    """NF4, scales quantized once more; many tokens at once need the weight in 16 bit."""

    BLOCK, SCALE_BLOCK, FEW = 64, 256, 64

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.rows, self.columns = linear.weight.shape
        size = linear.weight.numel()
        blocks = math.ceil(size / self.BLOCK)
        empty = linear.weight.new_empty
        self.weight = nn.Buffer(empty(math.ceil(size / 2), dtype=torch.uint8))
        self.scales = nn.Buffer(empty(blocks, dtype=torch.uint8))
        self.outer = nn.Buffer(empty(math.ceil(blocks / self.SCALE_BLOCK), dtype=torch.float32))
        self.codes = nn.Buffer(empty(16 + 256 + 1, dtype=torch.float32))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Allocate what the CUDA path allocates, in its order."""
        if x.shape[1] > self.FEW:
            x.new_empty(len(self.scales), dtype=torch.float32)
            whole = x.new_empty(self.rows, self.columns)
            return nn.functional.linear(x, whole, self.bias)
        return x.new_empty(*x.shape[:-1], self.rows)

"""Weights in 8 bits, activations in 16: the INT8 that a CUDA graph can hold.

LLM.int8 (Dettmers et al. 2022) rounds the activations to 8 bits as well. Large ones would drown
the others, so every layer looks for them, and the host waits for the answer: no graph, and at full
size 196 waits per token. Its weights are a plain thing: int8 rows with a scale each. `weight_only`
takes them as bitsandbytes laid them in memory, for layers that have no outliers to look for.

How: a token's activations are fixed-point numbers of 22 bits, which is finer than bf16 down to a
16 000th of the largest; cut into three digits of int8, they meet the weights in one integer product
of bitsandbytes, which is exact and reads the weights once. Many tokens at once (prefill) are bound
by arithmetic, not by reading: there the weights become 16 bit, a block at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.nn.modules import Linear8bitLt
from torch import Tensor, nn
from torch.nn import functional

FEW = 32
"""Up to so many tokens go through the integer product: a step, a draft that is verified, or a few
recordings' steps together. For more, making the weights 16 bit costs less than digits do."""
BLOCK_WEIGHTS = 8 << 20
"""Weights that are in 16 bit at once in a prefill: 16 MiB."""
_LARGEST_WEIGHT = 127
"""What bitsandbytes makes of the largest weight of a row; it keeps that weight as the scale."""
_DIGIT_BITS = 7
_SHIFTS = (2 * _DIGIT_BITS, _DIGIT_BITS, 0)
_ONES = (-1, (1 << _DIGIT_BITS) - 1, (1 << _DIGIT_BITS) - 1)
"""What is kept of each shifted number: its digit, and the sign with the first."""
_LARGEST = (1 << (3 * _DIGIT_BITS)) - 1
"""What a token's largest activation becomes, in units."""
_SMALLEST_UNIT = 1e-36
"""There is no dividing by nothing."""


def weight_only(model: nn.Module) -> int:
    """Put an `Int8Linear` in the place of each LLM.int8 layer; both hold the same tensors.

    Returns:
        How many there were.
    """
    found: list[tuple[str, Any]] = [
        (name, module) for name, module in model.named_modules() if isinstance(module, Linear8bitLt)
    ]
    for name, layer in found:
        if layer.weight.CB is not None:  # until its first call, a layer's weight keeps them
            layer.init_8bit_state()
        scale = layer.state.SCB / _LARGEST_WEIGHT
        model.set_submodule(name, Int8Linear(layer.state.CB, scale, layer.bias))
    return len(found)


class Int8Linear(nn.Module):
    """``x @ (weight * scale).T + bias``, with int8 weights ``(out, in)`` and a scale per row."""

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Buffer(weight.detach())
        self.scale = nn.Buffer(scale.detach().to(torch.float32))
        self.bias = None if bias is None else nn.Buffer(bias.detach().to(torch.float32))
        self.shifts = nn.Buffer(_column(_SHIFTS, weight.device), persistent=False)
        self.ones = nn.Buffer(_column(_ONES, weight.device), persistent=False)
        self.places = nn.Buffer((1 << self.shifts).to(torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Of ``(..., in)`` activations in bf16 or fp32: ``(..., out)`` in the same type."""
        rows = x.reshape(-1, self.in_features)
        product = self._exactly(rows) if len(rows) <= FEW else self._in_blocks(rows)
        return product.view(*x.shape[:-1], self.out_features)

    def _exactly(self, rows: Tensor) -> Tensor:
        """By digits; nothing here asks the host, so a CUDA graph can hold it."""
        peak = torch.linalg.vector_norm(rows, torch.inf, dim=1, keepdim=True, dtype=torch.float32)
        unit = (peak / _LARGEST).clamp_min(_SMALLEST_UNIT)
        fixed = (rows / unit).round_().to(torch.int32)
        digits = ((fixed >> self.shifts) & self.ones).to(torch.int8)
        sums = _integer_product(digits.view(-1, self.in_features), self.weight)
        by_digit = sums.view(len(_SHIFTS), len(rows), self.out_features)
        total = (by_digit * (self.places * unit)).sum(0)
        scaled = total * self.scale if self.bias is None else self.bias.addcmul(total, self.scale)
        return scaled.to(rows.dtype)

    def _in_blocks(self, rows: Tensor) -> Tensor:
        """By products in 16 bit; int8 weights are whole numbers, which bf16 holds exactly."""
        out = rows.new_empty(len(rows), self.out_features)
        size = max(1, BLOCK_WEIGHTS // self.in_features)
        for start in range(0, self.out_features, size):
            part = slice(start, start + size)
            block = functional.linear(rows, self.weight[part].to(rows.dtype)) * self.scale[part]
            out[:, part] = block if self.bias is None else block.add_(self.bias[part])
        return out


def _column(values: tuple[int, ...], device: torch.device) -> Tensor:
    """``(digits, 1, 1)``."""
    return torch.tensor(values, dtype=torch.int32, device=device).view(-1, 1, 1)


def _integer_product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` in int32 of int8 ``(n, k)`` and ``(m, k)``: cuBLASLt or, on a CPU, oneDNN.

    The sum of 18 944 products of a digit (at most 128) and a weight (127) is a seventh of what
    int32 holds.
    """
    product: Tensor = torch.ops.bitsandbytes.int8_linear_matmul.default(a, b)
    return product

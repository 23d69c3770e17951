"""The keys and values of every token so far: allocated ahead, grown layer by layer."""

from __future__ import annotations

import torch


class KeyValueCache:
    """One pair of tensors a layer, each of shape ``(1, kv_heads, capacity, head_dim)``.

    ``length`` counts the positions that are filled. What lies behind it is never read, so going
    back is setting ``length``.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        shape = (1, kv_heads, capacity, head_dim)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]
        self.length = 0

    @property
    def capacity(self) -> int:
        """Positions there is room for."""
        return self.keys[0].shape[2]

    def reserve(self, positions: int, step: int) -> bool:
        """Make room for ``positions`` in steps of ``step``; True if the tensors are new ones.

        Only one layer stands twice in memory at a time.
        """
        if positions <= self.capacity:
            return False
        more = -(-(positions - self.capacity) // step) * step
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                new = old.new_zeros((*old.shape[:2], old.shape[2] + more, old.shape[3]))
                new[:, :, : self.length] = old[:, :, : self.length]
                tensors[layer] = new
                del old
        return True

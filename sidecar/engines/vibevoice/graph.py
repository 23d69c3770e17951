"""One decode step as a CUDA graph: hundreds of small kernels become one launch.

At batch 1 the launches, not the arithmetic, bound an eager step (about 600 kernels). A graph wants
every tensor to stay where it is, so the step takes its token and position from tensors, writes to
the cache by index, and attends to a span of it under a mask. The same step runs uncaptured on a
CPU, where the tests hold it to the eager one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sidecar.engines.vibevoice.cache import KeyValueCache
from sidecar.engines.vibevoice.decoder import Decoder

SPAN = 2_048
"""The attended part of the cache grows by this; each growth captures anew (well below a second,
some sixteen times in an hour), in between up to this many positions are read for nothing."""
_WARM_UP = 2
"""Runs before a capture, in which libraries allocate their workspaces."""


class StaticStep:
    """A step over the first ``span`` positions of a cache; all its tensors stay where they are."""

    def __init__(self, decoder: Decoder, cache: KeyValueCache, span: int) -> None:
        device = decoder.device
        self.span = span
        self.keys = [layer[:, :, :span] for layer in cache.keys]
        self.values = [layer[:, :, :span] for layer in cache.values]
        self._decoder = decoder
        self._cos, self._sin = decoder.rotation(cache.capacity)
        self._where = torch.arange(span, device=device)
        self._position = torch.zeros(1, dtype=torch.long, device=device)
        self._embedding = decoder.embed(torch.zeros(1, dtype=torch.long))
        self._logits: Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def serves(self, cache: KeyValueCache) -> bool:
        """Whether this step fits the cache as it is now: the same tensors, and room in the span."""
        return cache.length < self.span and self.keys[0].data_ptr() == cache.keys[0].data_ptr()

    def __call__(self, token: int, cache: KeyValueCache) -> Tensor:
        """Take in a token; the logits ``(vocabulary,)`` after it, valid until the next call."""
        self._embedding.copy_(self._decoder.embed(torch.tensor([token])))
        self._position.fill_(cache.length)
        if self._graph is None:
            self._logits = self._run()
        else:
            self._graph.replay()
        cache.length += 1
        assert self._logits is not None
        return self._logits

    def capture(self, cache: KeyValueCache) -> None:
        """Record the step. What it writes meanwhile goes to the next free position."""
        self._position.fill_(cache.length)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._logits = self._run()
        self._graph = graph

    def _run(self) -> Tensor:
        decoder, position = self._decoder, self._position
        cos, sin = self._cos.index_select(0, position), self._sin.index_select(0, position)
        heard_of = self._where <= position
        hidden = self._embedding.unsqueeze(0)
        for layer, keys, values in zip(decoder.layers, self.keys, self.values, strict=True):
            query, key, value = decoder.project(layer, hidden, cos, sin)
            keys.index_copy_(2, position, key)
            values.index_copy_(2, position, value)
            hidden = decoder.conclude(layer, hidden, self._attend(query, keys, values, heard_of))
        return decoder.logits(hidden[0])[0]

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, heard_of: Tensor) -> Tensor:
        """Attention as two matrix products over the heads that share a key head.

        Fused kernels split their work by heads and queries, and here are 4 of one and 1 of the
        other: they would leave most of a GPU idle at 30 000 positions.
        """
        decoder = self._decoder
        packed = query.view(decoder.kv_heads, -1, decoder.head_dim) * decoder.head_dim**-0.5
        scores = (packed @ keys[0].transpose(1, 2)).float()
        shares = scores.masked_fill(~heard_of, float("-inf")).softmax(dim=-1)
        heard: Tensor = shares.to(values.dtype) @ values[0]
        return heard.view(1, decoder.heads, 1, decoder.head_dim)


class GraphedDecoding:
    """Keeps the step that fits the cache; captured on a GPU.

    `forget` it before the cache grows: a step holds the tensors of the old one.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._step: StaticStep | None = None

    def __call__(self, token: int, cache: KeyValueCache) -> Tensor:
        """Take in a token; the logits ``(vocabulary,)`` after it, valid until the next call."""
        if self._step is None or not self._step.serves(cache):
            self.forget()
            span = min(cache.capacity, -(-(cache.length + 1) // SPAN) * SPAN)
            self._step = StaticStep(self._decoder, cache, span)
            if self._decoder.device.type == "cuda":
                self._step.capture(cache)
        return self._step(token, cache)

    def forget(self) -> None:
        """Let go of the step and of the cache's tensors."""
        self._step = None

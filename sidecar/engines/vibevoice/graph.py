"""One decode step as a CUDA graph: hundreds of small kernels become one launch.

At batch 1 the launches, not the arithmetic, bound an eager step (about 600 kernels). A graph wants
every tensor to stay where it is, so the step takes its tokens and positions from tensors, writes to
the caches by index, and attends to a span of them under a mask. The same step runs uncaptured on a
CPU, where the tests hold it to the eager one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sidecar.engines.vibevoice.cache import KeyValueCache
from sidecar.engines.vibevoice.decoder import Continuation, Decoder, joined

SPAN = 2_048
"""The attended part of the cache grows by this; each growth captures anew (well below a second,
some sixteen times in an hour), in between up to this many positions are read for nothing."""
WIDTH = 12
"""Tokens per sequence in a step that verifies a draft: the longest that `frame` proposes and the
token before it. Shorter drafts are filled up, which costs nothing while weights bound the step."""
_WARM_UP = 2
"""Runs before a capture, in which libraries allocate their workspaces."""


class StaticStep:
    """``width`` tokens behind each of some caches, over their first ``span`` positions.

    All its tensors stay where they are.
    """

    def __init__(
        self, decoder: Decoder, caches: Sequence[KeyValueCache], width: int, span: int
    ) -> None:
        device = decoder.device
        self.width = width
        self._span = span
        self._decoder = decoder
        self._caches = [
            [
                (keys[:, :, :span], values[:, :, :span])
                for keys, values in zip(cache.keys, cache.values, strict=True)
            ]
            for cache in caches
        ]
        self._known = [cache.keys[0] for cache in caches]
        self._cos, self._sin = decoder.rotation(max(cache.capacity for cache in caches))
        self._where = torch.arange(span, device=device)
        rows = len(caches) * width
        self._positions = torch.zeros(rows, dtype=torch.long, device=device)
        self._embeddings = decoder.embed(torch.zeros(rows, dtype=torch.long))
        self._logits: Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def serves(self, caches: Sequence[KeyValueCache]) -> bool:
        """Whether this step fits the caches as they are: the same tensors, and room in the span."""
        return len(caches) == len(self._known) and all(
            cache.length + self.width <= min(self._span, cache.capacity) and cache.keys[0] is known
            for cache, known in zip(caches, self._known, strict=True)
        )

    def __call__(self, continuations: Sequence[Continuation]) -> list[Tensor]:
        """Take in up to ``width`` tokens of each; the logits ``(n, vocabulary)`` after its tokens.

        They are valid until the next call.
        """
        ids = [[*one.ids, *[0] * (self.width - len(one.ids))] for one in continuations]
        self._embeddings.copy_(self._decoder.embed(torch.tensor(ids).flatten()))
        self._place([one.cache for one in continuations])
        if self._graph is None:
            self._logits = self._run()
        else:
            self._graph.replay()
        assert self._logits is not None
        rows = self._logits.split(self.width)
        for one in continuations:
            one.cache.length += len(one.ids)
        return [part[: len(one.ids)] for part, one in zip(rows, continuations, strict=True)]

    def capture(self, caches: Sequence[KeyValueCache]) -> None:
        """Record the step. What it writes meanwhile goes to the next free positions."""
        self._place(caches)
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

    def _place(self, caches: Sequence[KeyValueCache]) -> None:
        starts = torch.tensor([[cache.length] for cache in caches])
        self._positions.copy_((starts + torch.arange(self.width)).flatten())

    def _run(self) -> Tensor:
        decoder, positions = self._decoder, self._positions
        cos, sin = self._cos.index_select(0, positions), self._sin.index_select(0, positions)
        unheard = self._where > positions.unsqueeze(1)
        hidden = self._embeddings.unsqueeze(0)
        for index, layer in enumerate(decoder.layers):
            query, key, value = decoder.project(layer, hidden, cos, sin)
            heard = []
            for at, cache in enumerate(self._caches):
                rows = slice(at * self.width, (at + 1) * self.width)
                keys, values = cache[index]
                keys.index_copy_(2, positions[rows], key[:, :, rows])
                values.index_copy_(2, positions[rows], value[:, :, rows])
                seen = unheard[rows, : keys.shape[2]]
                heard.append(self._attend(query[:, :, rows], keys, values, seen))
            hidden = decoder.conclude(layer, hidden, joined(heard, dim=2))
        return decoder.logits(hidden[0])

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, unheard: Tensor) -> Tensor:
        """Attention as two matrix products over the heads that share a key head.

        Fused kernels split their work by heads and queries, and here are 4 of one and few of the
        other: they would leave most of a GPU idle at 30 000 positions.
        """
        decoder = self._decoder
        packed = query.reshape(decoder.kv_heads, -1, decoder.head_dim) * decoder.head_dim**-0.5
        scores = (packed @ keys[0].transpose(1, 2)).float()
        by_row = scores.view(decoder.kv_heads, -1, *unheard.shape)
        shares = by_row.masked_fill(unheard, float("-inf")).softmax(dim=-1).view_as(scores)
        heard: Tensor = shares.to(values.dtype) @ values[0]
        return heard.view(1, decoder.heads, -1, decoder.head_dim)


class GraphedDecoding:
    """Keeps the steps that fit the caches, one for single tokens and one for drafts; captured on a
    GPU.

    `forget` them before a cache grows: a step holds the tensors of the old one.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._steps: dict[int, StaticStep] = {}

    def step(self, continuations: Sequence[Continuation]) -> list[Tensor]:
        """As `Decoder.step` does it; the logits are valid until the next call."""
        caches = [one.cache for one in continuations]
        width = 1 if all(len(one.ids) == 1 for one in continuations) else WIDTH
        step = self._steps.get(width)
        if step is None or not step.serves(caches):
            self._steps.pop(width, None)
            step = self._steps[width] = self._new(caches, width)
        return step(continuations)

    def forget(self) -> None:
        """Let go of the steps and of the caches' tensors."""
        self._steps.clear()

    def _new(self, caches: Sequence[KeyValueCache], width: int) -> StaticStep:
        needed = max(cache.length for cache in caches) + width
        step = StaticStep(self._decoder, caches, width, -(-needed // SPAN) * SPAN)
        if self._decoder.device.type == "cuda":
            step.capture(caches)
        return step

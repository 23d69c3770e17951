"""One pass of the decoder for everybody who waits for one: one answer, or several in step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sidecar.engines.vibevoice.cache import KeyValueCache
from sidecar.engines.vibevoice.decoder import Check, Continuation, Decoder
from sidecar.engines.vibevoice.graph import WIDTH, GraphedDecoding
from sidecar.interfaces.engine import MemoryPlan


class Decoding:
    """A decoder with its graphs and a memory plan; the caches it is given grow by that plan."""

    def __init__(self, decoder: Decoder, plan: MemoryPlan) -> None:
        self.decoder = decoder
        self._plan = plan
        self._graphed = GraphedDecoding(decoder) if decoder.capturable else None

    def prefill(
        self, embeddings: Tensor, cache: KeyValueCache, check: Check | None = None
    ) -> Tensor:
        """Take in embeddings ``(n, hidden)``; the logits ``(vocabulary,)`` after the last."""
        self._make_room(cache, len(embeddings))
        return self.decoder.prefill(embeddings, cache, self._plan.prefill_tile, check)

    def step(self, continuations: Sequence[Continuation]) -> list[Tensor]:
        """Take in up to `WIDTH` tokens of each; the logits ``(n, vocabulary)`` after its tokens.

        They are valid until the next call.
        """
        wide = any(len(one.ids) > 1 for one in continuations)
        for one in continuations:
            self._make_room(one.cache, WIDTH if wide else 1)
        step = self.decoder.step if self._graphed is None else self._graphed.step
        return step(continuations)

    def _make_room(self, cache: KeyValueCache, tokens: int) -> None:
        needed = cache.length + tokens
        if needed > cache.capacity:
            if self._graphed is not None:
                self._graphed.forget()
            cache.reserve(needed, self._plan.cache_step)

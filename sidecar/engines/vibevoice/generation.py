"""Tokens one after the other, with the way back: an answer can be cut and gone on with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sidecar.engine import MemoryPlan
from sidecar.engines.vibevoice.cache import KeyValueCache
from sidecar.engines.vibevoice.decoder import Decoder
from sidecar.engines.vibevoice.graph import GraphedDecoding
from sidecar.engines.vibevoice.recovery import Sampling

SEED = 20_24
"""Of the retries: the same audio gives the same transcript, loops and all."""


class Generation:
    """The answer to one prompt; ``ids`` is what it says so far."""

    def __init__(
        self, decoder: Decoder, cache: KeyValueCache, prompt_logits: Tensor, plan: MemoryPlan
    ) -> None:
        self._decoder = decoder
        self._cache = cache
        self._prompt_tokens = cache.length
        self._prompt_logits = prompt_logits
        self._logits: Tensor | None = prompt_logits
        self._plan = plan
        self._graphed = GraphedDecoding(decoder) if decoder.capturable else None
        self._random = torch.Generator(device=decoder.device).manual_seed(SEED)
        self.ids: list[int] = []

    def token(self, sampling: Sampling | None = None) -> int:
        """Choose the next token: the likeliest, or by chance among the likely."""
        if self._logits is None:
            self._logits = self._after(self.ids[-1])
        token = choose(self._logits, sampling, self._random)
        self.ids.append(token)
        self._logits = None
        return token

    def go_on_from(self, ids: Sequence[int]) -> None:
        """Make ``ids`` the answer so far; what they share with the present one is kept."""
        shared = next(
            (at for at, (old, new) in enumerate(zip(self.ids, ids, strict=False)) if old != new),
            min(len(self.ids), len(ids)),
        )
        known = self._cache.length - self._prompt_tokens
        shared = max(0, min(shared, known, len(ids) - 1))
        self._cache.length = self._prompt_tokens + shared
        self.ids = list(ids)
        self._logits = self._take_in(self.ids[shared:]) if ids else self._prompt_logits

    def _after(self, token: int) -> Tensor:
        if self._graphed is None:
            return self._take_in([token])
        self._make_room(1)
        return self._graphed(token, self._cache)

    def _take_in(self, ids: list[int]) -> Tensor:
        self._make_room(len(ids))
        embeddings = self._decoder.embed(torch.tensor(ids))
        return self._decoder.prefill(embeddings, self._cache, self._plan.prefill_tile)

    def _make_room(self, tokens: int) -> None:
        needed = self._cache.length + tokens
        if needed > self._cache.capacity:
            if self._graphed is not None:
                self._graphed.forget()
            self._cache.reserve(needed, self._plan.cache_step)


def choose(logits: Tensor, sampling: Sampling | None, random: torch.Generator) -> int:
    """A token from logits ``(vocabulary,)``.

    By chance: among the likeliest tokens that together make ``top_p`` (Holtzman et al. 2020).
    """
    if sampling is None:
        return int(logits.argmax())
    shares, order = torch.softmax(logits.float() / sampling.temperature, dim=-1).sort(
        descending=True
    )
    shares[shares.cumsum(0) - shares >= sampling.top_p] = 0.0
    return int(order[torch.multinomial(shares, 1, generator=random)])

"""Tokens one after the other, with the way back: an answer can be cut and gone on with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sidecar.engines.vibevoice.cache import KeyValueCache
from sidecar.engines.vibevoice.decoder import Continuation
from sidecar.engines.vibevoice.decoding import Decoding
from sidecar.engines.vibevoice.frame import Frame, Proposals
from sidecar.transcripts.recovery import Sampling

SEED = 20_24
"""Of what falls by chance: alone, the same audio gives the same transcript, loops and all."""


class Generation:
    """The answer to one prompt; ``ids`` is what it says so far.

    With a ``frame``, what the format forces is proposed and verified: a pass of the decoder then
    may settle several tokens, each the likeliest. Behind a token that fell by chance nothing is
    proposed: a pass of several rows gives other last digits than passes of one row, and a draw
    hangs on them.
    """

    def __init__(
        self,
        decoding: Decoding,
        cache: KeyValueCache,
        prompt_logits: Tensor,
        frame: Frame | None = None,
    ) -> None:
        self._decoding = decoding
        self._cache = cache
        self._prompt_tokens = cache.length
        self._prompt_logits = prompt_logits.unsqueeze(0)
        self._frame = frame
        self._random = torch.Generator(device=prompt_logits.device).manual_seed(SEED)
        self._proposed: Sequence[int] = ()
        self._drawn = False
        self._row = 0
        self._logits = self._prompt_logits
        self._likeliest: list[int] | None = None
        self._settle([])

    @property
    def ready(self) -> bool:
        """Whether the next token can be chosen without another pass."""
        return self._row < len(self._logits)

    def token(self, sampling: Sampling | None = None) -> int:
        """Choose the next token: the likeliest, or by chance among the likely."""
        if not self.ready:
            advance([self])
        if sampling is None:
            if self._likeliest is None:  # of all rows at once: each look makes a GPU wait
                self._likeliest = self._logits.argmax(dim=-1).tolist()
            token = self._likeliest[self._row]
        else:
            token = choose(self._logits[self._row], sampling, self._random)
        self._drawn = sampling is not None
        self.ids.append(token)
        if self._proposals is not None:
            self._proposals.read(token)
        if self._row < len(self._proposed) and self._proposed[self._row] == token:
            self._row += 1
            self._cache.length += 1
        else:
            self._row = len(self._logits)
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
        self._settle(list(ids))
        if ids:
            rest = self._decoding.decoder.embed(torch.tensor(ids[shared:]))
            self._show(self._decoding.prefill(rest, self._cache).unsqueeze(0))

    def _settle(self, ids: list[int]) -> None:
        self.ids = ids
        self._proposed = ()
        self._show(self._prompt_logits)
        self._proposals = Proposals(self._frame) if self._frame else None
        if self._proposals is not None:
            for token in ids:
                self._proposals.read(token)

    @property
    def step(self) -> Callable[[Sequence[Continuation]], list[Tensor]]:
        """How its decoder takes in tokens, its own and those of others."""
        return self._decoding.step

    def wanted(self) -> Continuation:
        """What the next pass must take in: the last token, and what is proposed behind it."""
        proposals = None if self._drawn else self._proposals
        self._proposed = proposals.next() if proposals is not None else ()
        return Continuation([self.ids[-1], *self._proposed], self._cache)

    def take(self, logits: Tensor) -> None:
        """The logits ``(n, vocabulary)`` after what was `wanted`; it is verified token by token."""
        self._cache.length -= len(logits) - 1
        self._show(logits)

    def _show(self, logits: Tensor) -> None:
        self._logits, self._row, self._likeliest = logits, 0, None


def advance(generations: Sequence[Generation]) -> None:
    """One pass for all of them, by the `Decoding` of the first."""
    wanted = [generation.wanted() for generation in generations]
    for generation, logits in zip(generations, generations[0].step(wanted), strict=True):
        generation.take(logits)


def choose(logits: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """A token from logits ``(vocabulary,)``, by chance, among the likeliest that make ``top_p``.

    Nucleus sampling (Holtzman et al. 2020).
    """
    shares, order = torch.softmax(logits.float() / sampling.temperature, dim=-1).sort(
        descending=True
    )
    shares[shares.cumsum(0) - shares >= sampling.top_p] = 0.0
    return int(order[torch.multinomial(shares, 1, generator=random)])

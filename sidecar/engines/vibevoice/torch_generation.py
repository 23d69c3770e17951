"""Token generation of VibeVoice-ASR with torch: choice of tokens, passes of the planned decoder."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sidecar.engines.vibevoice import vibevoice_decoder
from sidecar.engines.vibevoice.vibevoice_generation import (
    SEED,
    DraftedGeneration,
    PromptContinuation,
    SegmentTemplate,
)
from sidecar.transcripts.loop_guard import SamplingOptions


class TokenGeneration(DraftedGeneration):
    """Answer to one prompt, decoded by torch."""

    def __init__(
        self,
        decoder: vibevoice_decoder.PlannedDecoder,
        cache: vibevoice_decoder.KeyValueCache,
        prompt_logits: Tensor,
        template: SegmentTemplate | None = None,
    ) -> None:
        """``prompt_logits``: shape (vocabulary,)."""
        self._decoder = decoder
        self._random = torch.Generator(device=prompt_logits.device).manual_seed(SEED)
        super().__init__(cache, prompt_logits.unsqueeze(0), template)

    @property
    def step(self) -> Callable[[Sequence[PromptContinuation]], list[Tensor]]:
        """Return the function that runs a pass of its decoder."""
        return self._decoder.step

    def append(self, ids: Sequence[int]) -> Tensor:
        """Add tokens to the cache; return the logits ``(1, vocabulary)`` after the last."""
        embeddings = self._decoder.decoder.embed(torch.tensor(ids))
        cache: vibevoice_decoder.KeyValueCache = self.cache  # type: ignore[assignment]
        return self._decoder.prefill(embeddings, cache).unsqueeze(0)

    def likeliest(self, logits: Tensor) -> Sequence[tuple[int, float]]:
        """Return the likeliest token of each row, and its log-likelihood."""
        best = logits.argmax(dim=-1)
        likely = log_likelihoods(logits, best)
        return [*zip(best.tolist(), likely.tolist(), strict=True)]

    def draw(self, logits: Tensor, sampling: SamplingOptions) -> tuple[int, float]:
        """Sample a token of one row of logits; return it, and its log-likelihood."""
        token = sample_token(logits, sampling, self._random)
        return token, float(log_likelihoods(logits, torch.tensor(token)))


def log_likelihoods(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the natural logarithms of the tokens' probabilities, shape (n,), from logits
    ``(n, vocabulary)``."""
    likely = logits.log_softmax(dim=-1, dtype=torch.float32)
    return likely.gather(-1, tokens.to(likely.device).unsqueeze(-1)).squeeze(-1)


def sample_token(logits: Tensor, sampling: SamplingOptions, random: torch.Generator) -> int:
    """Sample a token from logits ``(vocabulary,)``, among the likeliest that make up ``top_p``.

    Nucleus sampling (Holtzman et al. 2020).
    """
    shares, order = torch.softmax(logits.float() / sampling.temperature, dim=-1).sort(
        descending=True
    )
    shares[shares.cumsum(0) - shares >= sampling.top_p] = 0.0
    return int(order[torch.multinomial(shares, 1, generator=random)])

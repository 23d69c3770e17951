"""Where the time of one recording goes: our parts, and plain ``generate`` in turns with them.

Random weights say nothing that could be parsed, so the engine's parts are driven as its `Model`
drives them, without the reading of the answer and without drafts of it: `VibeVoiceAudioEncoder`,
`VibeVoiceDecoder`, `TokenGeneration.token`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from sidecar.audio import Block
from sidecar.engines.vibevoice.vibevoice_decoder import (
    GRAPH_POSITIONS,
    PlannedDecoder,
    VibeVoiceDecoder,
)
from sidecar.engines.vibevoice.vibevoice_generation import TokenGeneration
from sidecar.engines.vibevoice.vibevoice_model import (
    SAMPLE_RATE,
    LoadedVibeVoice,
    VibeVoiceAudioEncoder,
    build_prompt_ids,
    token_count,
)
from sidecar.interfaces.engine_interface import MemoryPlan

HOUR_TOKENS = 16_000
"""Of text in an hour of speech (4.5 a second)."""
_WARM_TOKENS = 8
_WARM_S = 16


@dataclass(frozen=True, slots=True)
class Split:
    """Where the time goes for one recording; rates in tokens per second, one per round."""

    context: int
    encode_s: float
    prefill_s: float
    rates: list[float]
    last_rates: list[float]
    """Of the last tokens of an answer as long as the audio makes it."""
    plain_rates: list[float]
    plain_first_s: list[float]
    capture_s: list[float]
    """What the first pass of a graph takes more than the next ones."""


def settle(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def synthetic(seconds: float) -> Block:
    """Noise that swells and fades like sentences do."""
    random = np.random.default_rng(4)
    count = round(seconds * SAMPLE_RATE)
    sound = random.standard_normal(count, np.float32)
    sound *= 0.05 + 0.1 * np.abs(np.sin(np.arange(count, dtype=np.float32) / SAMPLE_RATE))
    return sound


def measure(
    model: LoadedVibeVoice, sound: Block, tokens: int, rounds: int, *, plain: bool
) -> Split:
    """One recording through our parts and, in turns with the decoding, through ``generate``."""
    device = model.device
    answer_tokens = round(HOUR_TOKENS * len(sound) / SAMPLE_RATE / 3600)
    ids = build_prompt_ids(model.processor, len(sound), "")
    taken = _WARM_TOKENS + tokens
    plan = MemoryPlan(cache_tokens=len(ids) + max(answer_tokens, taken) + GRAPH_POSITIONS + taken)
    decoder = VibeVoiceDecoder(model.model)
    encoder = VibeVoiceAudioEncoder(model.model, model.processor.feature_extractor)
    with torch.inference_mode():
        some = sound[: _WARM_S * SAMPLE_RATE]  # the first pass chooses its kernels
        hidden = model.model.config.text_config.hidden_size
        room = torch.empty(token_count(len(some)), hidden, device=device, dtype=decoder.dtype)
        encoder.encode(some, plan.encoder_chunk_s, room, _go_on)
        settle(device)
        begun = time.perf_counter()
        embeddings = decoder.embed(ids)
        heard = embeddings.new_empty(token_count(len(sound)), embeddings.shape[1])
        encoder.encode(sound, plan.encoder_chunk_s, heard, _go_on)
        embeddings[(ids == model.processor.audio_token_id).to(device)] = heard
        settle(device)
        encoded = time.perf_counter()
        cache = decoder.new_cache(plan, len(ids))
        logits = decoder.prefill(embeddings, cache, plan.prefill_tile, _go_on)
        settle(device)
        filled = time.perf_counter()

        end = len(ids) + max(0, answer_tokens - taken)
        rows: list[tuple[float, ...]] = []
        for _ in range(rounds + 1):
            theirs = by_generate(model, sound, tokens) if plain else (0.0, 0.0)
            parts = []
            for position in (len(ids), end):
                cache.length = within_a_span(position, taken)
                generation = TokenGeneration(PlannedDecoder(decoder, plan), cache, logits)
                parts.append(decoded(generation, tokens, device))
                del generation  # its graphs write to the cache, the next one has its own
            (rate, capture), (last, _) = parts
            rows.append((rate, last, *theirs, capture))
    rates, last_rates, plain_rates, plain_first_s, capture_s = map(
        list, zip(*rows[1:], strict=True)
    )
    return Split(
        len(ids),
        encoded - begun,
        filled - encoded,
        rates,
        last_rates,
        plain_rates,
        plain_first_s,
        capture_s,
    )


def within_a_span(position: int, tokens: int) -> int:
    """Where to decode ``tokens`` without a new graph: at ``position``, or where the next begins.

    One graph serves some two thousand tokens; among a hundred that are timed it would count too
    much. Positions that nothing was written to hold zeros, which take as long to read.
    """
    border = -(-(position + 1) // GRAPH_POSITIONS) * GRAPH_POSITIONS
    return position if position + tokens <= border else border


def decoded(generation: TokenGeneration, tokens: int, device: torch.device) -> tuple[float, float]:
    """Tokens per second, and what the first pass took more than one of those."""
    generation.token()  # the prompt's
    settle(device)
    begun = time.perf_counter()
    generation.token()
    settle(device)
    first = time.perf_counter() - begun
    for _ in range(_WARM_TOKENS - 2):
        generation.token()
    settle(device)
    begun = time.perf_counter()
    for _ in range(tokens):
        generation.token()
    settle(device)
    rate = tokens / (time.perf_counter() - begun)
    return rate, max(0.0, first - 1 / rate)


def _go_on() -> None:
    """Nobody cancels."""


class _Stamps(StoppingCriteria):
    """When each token came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def by_generate(model: LoadedVibeVoice, sound: Block, tokens: int) -> tuple[float, float]:
    """``generate``: tokens per second after the first, and seconds to the first."""
    stamps = _Stamps()
    settle(model.device)
    begun = time.perf_counter()
    inputs = model.processor.apply_transcription_request(audio=sound)
    inputs = inputs.to(model.device, model.model.dtype)
    model.model.generation_config.eos_token_id = None  # random weights may end at any token
    model.model.generate(
        **inputs,
        sample=False,
        max_new_tokens=tokens,
        stopping_criteria=StoppingCriteriaList([stamps]),
    )
    settle(model.device)
    ended = time.perf_counter()
    assert len(stamps.times) == tokens
    return (tokens - 1) / (ended - stamps.times[0]), stamps.times[0] - begun

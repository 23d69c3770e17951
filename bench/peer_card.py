"""P4, P5, P16: decoding against the card's bandwidth, an hour end to end, quantized weights.

Random weights say nothing that could be parsed, so the engine's parts are driven as its `Model`
drives them, without the reading of the answer: `AudioEncoder`, `Decoder`, `Generation.token`.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from bench import peer_weights
from bench.serving import median, table, verdict
from sidecar.audio import Block
from sidecar.engine import MemoryPlan, Precision
from sidecar.engines.vibevoice.decoder import Decoder
from sidecar.engines.vibevoice.decoding import Decoding
from sidecar.engines.vibevoice.generation import Generation
from sidecar.engines.vibevoice.listening import SAMPLE_RATE, AudioEncoder, token_count
from sidecar.engines.vibevoice.loading import Loaded, load
from sidecar.engines.vibevoice.prompt import request_ids

HOUR_TOKENS = 16_000
"""Of text in an hour of speech (4.5 a second)."""
LONG_MINUTES = 30.0
"""From here on the goal is that of 60 minutes."""
_WARM_TOKENS = 8


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


def card(folder: Path, wanted: Sequence[str], given: argparse.Namespace) -> None:
    """Run what is wanted."""
    device = torch.device(given.device)
    size = given.size or ("full" if given.device == "cuda" else "mid")
    minutes = given.minutes or ([10.0, 60.0] if given.device == "cuda" else [1.0, 3.0])
    judged = size == "full"
    home = given.weights or Path(tempfile.mkdtemp(dir=folder))
    begun = time.perf_counter()
    if not (home / "model.safetensors.index.json").exists():
        count = peer_weights.write(home, peer_weights.SIZES[size], given.device)
        print(f"{count / 1e9:.3f} billion random weights in {time.perf_counter() - begun:.0f} s")
    copied = copy_rate(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "the CPU"
    print(f"{name}: a copy moves {copied / 1e9:.0f} GB/s; size {size}, {given.precision}")
    sounds = {length: synthetic(length * 60) for length in minutes}
    splits: dict[float, Split] = {}
    with loaded(home, given.precision, device) as model:
        weights = read_per_token(model)
        for length, sound in sounds.items():
            splits[length] = measure(model, sound, given.tokens, given.rounds, plain=True)
    if "P4" in wanted:
        _p4(splits, copied, weights, model_kv(model), judged)
    if "P5" in wanted:
        _p5(max(minutes), splits[max(minutes)], judged)
    if "P16" in wanted:
        _p16(home, device, sounds, splits, given, judged)


@contextmanager
def loaded(home: Path, precision: str, device: torch.device) -> Iterator[Loaded]:
    """The checkpoint by the product's loader; freed at the end."""
    begun = time.perf_counter()
    model = load(home, Precision(precision), device)
    settle(device)
    print(f"loaded in {precision}: {time.perf_counter() - begun:.1f} s")
    yield model
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def settle(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def copy_rate(device: torch.device) -> float:
    """Bytes per second read and written by the best of ten large copies."""
    count = (2 << 30) if device.type == "cuda" else (128 << 20)
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        settle(device)
        begun = time.perf_counter()
        target.copy_(source)
        settle(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * count / best


def read_per_token(model: Loaded) -> int:
    """Bytes of weights that one token reads: layers, last norm, head."""
    language = model.model.model.language_model
    parts = (language.layers, language.norm, model.model.lm_head)
    return sum(parameter.nbytes for part in parts for parameter in part.parameters())


def model_kv(model: Loaded) -> int:
    """Bytes of keys and values per position."""
    text = model.model.config.text_config
    head_dim = text.hidden_size // text.num_attention_heads
    width = torch.finfo(model.model.lm_head.weight.dtype).bits // 8
    return 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * width


def synthetic(seconds: float) -> Block:
    """Noise that swells and fades like sentences do."""
    random = np.random.default_rng(4)
    count = round(seconds * SAMPLE_RATE)
    sound = random.standard_normal(count, np.float32)
    sound *= 0.05 + 0.1 * np.abs(np.sin(np.arange(count, dtype=np.float32) / SAMPLE_RATE))
    return sound


def measure(model: Loaded, sound: Block, tokens: int, rounds: int, *, plain: bool) -> Split:
    """One recording through our parts and, in turns with the decoding, through ``generate``."""
    device = model.device
    answer_tokens = round(HOUR_TOKENS * len(sound) / SAMPLE_RATE / 3600)
    ids = request_ids(model.processor, len(sound), "")
    room = max(answer_tokens, tokens + _WARM_TOKENS) + 256
    plan = MemoryPlan(cache_tokens=len(ids) + room)
    decoder = Decoder(model.model)
    encoder = AudioEncoder(model.model, model.processor.feature_extractor)
    with torch.inference_mode():
        encoder.encode(  # a warm-up: the first pass chooses its kernels
            sound[: 16 * SAMPLE_RATE],
            plan.encoder_chunk_s,
            torch.empty(
                token_count(min(len(sound), 16 * SAMPLE_RATE)),
                model.model.config.text_config.hidden_size,
                device=device,
                dtype=decoder.dtype,
            ),
            _go_on,
        )
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

        def decode_from(position: int) -> float:
            cache.length = position
            generation = Generation(Decoding(decoder, plan), cache, logits)
            for _ in range(_WARM_TOKENS):
                generation.token()
            settle(device)
            started = time.perf_counter()
            for _ in range(tokens):
                generation.token()
            settle(device)
            return tokens / (time.perf_counter() - started)

        end = max(len(ids), len(ids) + answer_tokens - tokens - _WARM_TOKENS)
        taken: list[tuple[float, float, tuple[float, float]]] = []
        for _ in range(rounds + 1):
            theirs = by_generate(model, sound, tokens) if plain else (0.0, 0.0)
            taken.append((decode_from(len(ids)), decode_from(end), theirs))
    rates, last, theirs_all = zip(*taken[1:], strict=True)
    return Split(
        len(ids),
        encoded - begun,
        filled - encoded,
        list(rates),
        list(last),
        [rate for rate, _ in theirs_all],
        [first for _, first in theirs_all],
    )


def _go_on() -> None:
    """Nobody cancels."""


class _Stamps(StoppingCriteria):
    """When each token came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def by_generate(model: Loaded, sound: Block, tokens: int) -> tuple[float, float]:
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


def _judge(judged: bool, value: float, goal: float, *, at_least: bool = False) -> str:
    return verdict(round(value, 2), goal, at_least=at_least) if judged else "not at this size"


def _p4(
    splits: dict[float, Split], copied: float, weights: int, kv_per_token: int, judged: bool
) -> None:
    rows = []
    for minutes, split in splits.items():
        rate, plain = median(split.rates), median(split.plain_rates)
        ceiling = copied / (weights + kv_per_token * split.context)
        share_goal = 0.60 if minutes >= LONG_MINUTES else 0.70
        rows.append(
            (
                f"{minutes:g} min, {split.context}",
                f"{rate:.1f}",
                f"{ceiling:.1f}",
                f"{rate / ceiling:.2f}",
                _judge(judged, rate / ceiling, share_goal, at_least=True),
                f"{plain:.1f}",
                f"{rate / plain:.2f}",
                _judge(judged, rate / plain, 4, at_least=True),
            )
        )
    headers = ("audio, context", "tok/s", "ceiling", "share", "goal", "plain tok/s", "×", "goal")
    table("P4: decoding", headers, rows)
    print(f"\nread per token: {weights / 1e9:.3f} GB of weights, {kv_per_token} B per position")


def _p5(minutes: float, split: Split, judged: bool) -> None:
    tokens = round(HOUR_TOKENS * minutes / 60)
    first, last = median(split.rates), median(split.last_rates)
    decode_s = tokens * (1 / first + 1 / last) / 2
    before_s = split.encode_s + split.prefill_s
    total = before_s + decode_s
    rows = [
        ("encode s", f"{split.encode_s:.2f}", ""),
        ("prefill s", f"{split.prefill_s:.2f}", ""),
        ("encode + prefill s", f"{before_s:.2f}", _judge(judged, before_s, 6)),
        ("plain: to the first token s", f"{median(split.plain_first_s):.2f}", ""),
        ("tok/s, first and last tokens", f"{first:.1f}, {last:.1f}", ""),
        (f"decode of {tokens} tokens s, scaled", f"{decode_s:.1f}", ""),
        ("end to end s", f"{total:.1f}", _judge(judged, total, 110)),
        ("times real time", f"{minutes * 60 / total:.1f}", ""),
    ]
    table(f"P5: {minutes:g} minutes end to end", ("what", "ours", "goal"), rows)


def _p16(
    home: Path,
    device: torch.device,
    sounds: dict[float, Block],
    splits: dict[float, Split],
    given: argparse.Namespace,
    judged: bool,
) -> None:
    rows = []
    for precision, goal in ((Precision.INT8, 1.0), (Precision.INT4, 1.5)):
        with loaded(home, precision.value, device) as model:
            for minutes, sound in sounds.items():
                taken = measure(model, sound, given.tokens, given.rounds, plain=False)
                rate, plain = median(taken.rates), median(splits[minutes].plain_rates)
                rows.append(
                    (
                        precision.value,
                        f"{minutes:g} min, {taken.context}",
                        f"{rate:.1f}",
                        f"{median(splits[minutes].rates):.1f}",
                        f"{plain:.1f}",
                        f"{rate / plain:.2f}",
                        _judge(judged, rate / plain, goal, at_least=True),
                    )
                )
    headers = ("weights", "audio, context", "tok/s", "ours unquantized", "plain", "ratio", "goal")
    table(f"P16: quantized / plain generate in {given.precision}", headers, rows)

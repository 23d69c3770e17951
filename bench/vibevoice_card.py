"""P4, P5, P16: decoding against the card's bandwidth, an hour end to end, quantized weights."""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from bench import vibevoice_random_weights
from bench.serving import median, table, verdict
from bench.vibevoice_time_split import HOUR_TOKENS, Split, measure, settle, synthetic
from sidecar import errors
from sidecar.audio import Block
from sidecar.engines.vibevoice.vibevoice_decoder import GRAPH_POSITIONS
from sidecar.engines.vibevoice.vibevoice_model import LoadedVibeVoice, load_vibevoice
from sidecar.interfaces.engine_interface import Precision

LONG_MINUTES = 30.0
"""From here on the goal is that of 60 minutes."""
T = TypeVar("T")


def card(folder: Path, wanted: Sequence[str], given: argparse.Namespace) -> None:
    """Run what is wanted."""
    device = torch.device(given.device)
    size = given.size or ("full" if given.device == "cuda" else "mid")
    minutes = given.minutes or ([10.0, 60.0] if given.device == "cuda" else [1.0, 3.0])
    judged = size == "full"
    home = given.weights or Path(tempfile.mkdtemp(dir=folder))
    begun = time.perf_counter()
    if not (home / "model.safetensors.index.json").exists():
        count = vibevoice_random_weights.write(
            home, vibevoice_random_weights.SIZES[size], given.device
        )
        print(f"{count / 1e9:.3f} billion random weights in {time.perf_counter() - begun:.0f} s")
    copied = copy_rate(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "the CPU"
    print(f"{name}: a copy moves {copied / 1e9:.0f} GB/s; size {size}, {given.precision}")
    sounds = {length: synthetic(length * 60) for length in minutes}

    def both(model: LoadedVibeVoice) -> tuple[int, int, dict[float, Split]]:
        splits = {
            length: measure(model, sound, given.tokens, given.rounds, plain=True)
            for length, sound in sounds.items()
        }
        return read_per_token(model), model_kv(model), splits

    weights, kv_per_token, splits = with_model(home, given.precision, device, both)
    if "P4" in wanted:
        _p4(splits, copied, weights, kv_per_token, judged)
    if "P5" in wanted:
        _p5(max(minutes), splits[max(minutes)], judged)
    if "P16" in wanted:
        _p16(home, device, sounds, splits, given, judged)


def with_model(
    home: Path, precision: str, device: torch.device, use: Callable[[LoadedVibeVoice], T]
) -> T:
    """What ``use`` makes of the checkpoint, loaded by the product's loader; freed in the end."""
    begun = time.perf_counter()
    model = load_vibevoice(home, Precision(precision), device)
    settle(device)
    print(f"loaded in {precision}: {time.perf_counter() - begun:.1f} s")
    try:
        return use(model)
    finally:
        del model
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


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


def read_per_token(model: LoadedVibeVoice) -> int:
    """Bytes of weights that one token reads: layers, last norm, head."""
    language = model.model.model.language_model
    parts = (language.layers, language.norm, model.model.lm_head)
    return sum(parameter.nbytes for part in parts for parameter in part.parameters())


def model_kv(model: LoadedVibeVoice) -> int:
    """Bytes of keys and values per position."""
    text = model.model.config.text_config
    head_dim = text.hidden_size // text.num_attention_heads
    width = torch.finfo(model.model.lm_head.weight.dtype).bits // 8
    return 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * width


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
    captures_s = -(-tokens // GRAPH_POSITIONS) * median(split.capture_s)
    decode_s = tokens * (1 / first + 1 / last) / 2 + captures_s
    before_s = split.encode_s + split.prefill_s
    total = before_s + decode_s
    rows = [
        ("encode s", f"{split.encode_s:.2f}", ""),
        ("prefill s", f"{split.prefill_s:.2f}", ""),
        ("encode + prefill s", f"{before_s:.2f}", _judge(judged, before_s, 6)),
        ("plain: to the first token s", f"{median(split.plain_first_s):.2f}", ""),
        ("tok/s, first and last tokens", f"{first:.1f}, {last:.1f}", ""),
        ("captures of graphs s", f"{captures_s:.1f}", ""),
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

    def ours(model: LoadedVibeVoice) -> list[Split]:
        return [
            measure(model, sound, given.tokens, given.rounds, plain=False)
            for sound in sounds.values()
        ]

    for precision, goal in ((Precision.INT8, 1.0), (Precision.INT4, 1.5)):
        try:
            measured = with_model(home, precision.value, device, ours)
        except errors.ModelLoadFailed as failed:  # 4 bit wants rows of 64; not the smallest has
            rows.append((precision.value, failed.detail, "", "", "", "", ""))
            continue
        for minutes, taken in zip(sounds, measured, strict=True):
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

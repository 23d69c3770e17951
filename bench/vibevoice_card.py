"""P4, P5, P16, P17 of `bench.vibevoice`: decoding against the card's bandwidth, an hour end to end,
quantized weights, requests a second.

They are measured on a checkpoint of the released architecture with random weights, for speed and
memory do not depend on what the weights say. The model is built on the meta device, each tensor
made on the device that is measured, and written as any checkpoint is: so precision, quantization
and loading are the product's own.

Random weights say nothing that could be parsed, so the engine's parts are driven as its `Model`
drives them, without the reading of the answer and without drafts of it: `VibeVoiceAudioEncoder`,
`VibeVoiceDecoder`, `TokenGeneration.token`; plain ``generate`` in turns with them.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (
    StoppingCriteria,
    StoppingCriteriaList,
    VibeVoiceAsrForConditionalGeneration,
)

from bench.serving import median, table, verdict
from sidecar import errors
from sidecar.audio import VIBEVOICE_SAMPLE_RATE, Block
from sidecar.engines.vibevoice.torch_generation import TokenGeneration
from sidecar.engines.vibevoice.vibevoice_decoder import (
    GRAPH_POSITIONS,
    PlannedDecoder,
    VibeVoiceDecoder,
)
from sidecar.engines.vibevoice.vibevoice_model import (
    LoadedVibeVoice,
    VibeVoiceAudioEncoder,
    VibeVoiceModel,
    build_prompt_ids,
    load_vibevoice,
)
from sidecar.engines.vibevoice.vibevoice_prompt import token_count
from sidecar.engines.vibevoice.vibevoice_transcription import JoinedTranscriptions
from sidecar.gpu_memory.memory_plan import MAX_WINDOWS
from sidecar.interfaces.engine_interface import MemoryPlan, Precision, TranscribeOptions
from tests.support import memory_simulation
from tests.support.engine_requests import SampleStream, request_of

LONG_MINUTES = 30.0
"""From here on the goal is that of 60 minutes."""
_SHARD = 4 << 30
HOUR_TOKENS = 16_000
"""Of text in an hour of speech (4.5 a second)."""
_WARM_TOKENS = 8
_WARM_S = 16
T = TypeVar("T")


SIZES: dict[str, Callable[[], Any]] = {
    "tiny": memory_simulation.small_size,
    "mid": partial(memory_simulation.small_size, hidden_size=256, intermediate_size=512),
    "full": memory_simulation.full_size,
}
"""`full` is the released model: 8.330 billion parameters; the others have as many words as the
tokenizer."""


def write(folder: Path, size: str, device: str, seed: int = 1) -> int:
    """Write the checkpoint in bf16; its parameters."""
    processor, config = _processor(), SIZES[size]()
    if size != "full":
        config.text_config.vocab_size = len(processor.tokenizer)
    for name in ("audio_token_id", "audio_bos_token_id", "audio_eos_token_id"):
        setattr(config, name, getattr(processor, name))
    with torch.device("meta"):
        model = VibeVoiceAsrForConditionalGeneration(config)
    random = torch.Generator(device=device).manual_seed(seed)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    where: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    for number, (name, shape) in enumerate(shapes.items()):
        shard[name] = _random(name, shape, device, random).cpu()
        if _bytes(shard) > _SHARD or number == len(shapes) - 1:
            file = f"model-{len(set(where.values())):05}.safetensors"
            save_file(shard, folder / file, {"format": "pt"})
            where |= dict.fromkeys(shard, file)
            shard = {}
    total = sum(shape.numel() for shape in shapes.values())
    index = {"metadata": {"total_size": 2 * total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    config.dtype = torch.bfloat16
    config.architectures = ["VibeVoiceAsrForConditionalGeneration"]
    config.save_pretrained(folder)
    model.generation_config.update(do_sample=False, max_new_tokens=32_768)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.generation_config.save_pretrained(folder)
    processor.save_pretrained(folder)
    return int(total)


def _bytes(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _random(name: str, shape: torch.Size, device: str, random: torch.Generator) -> torch.Tensor:
    """Values under which activations keep their size, so that nothing overflows in 28 layers."""
    if len(shape) == 1:
        value = 0.0 if name.endswith("bias") else 1.0 if "norm" in name else 0.1
        return torch.full(shape, value, device=device, dtype=torch.bfloat16)
    fan_in = shape[1:].numel()
    values = torch.randn(shape, device=device, dtype=torch.bfloat16, generator=random)
    return values.mul_(fan_in**-0.5)


def _processor() -> Any:
    """The released processor's parts around the small vocabulary of the tests' checkpoints."""
    from tests.support import miniature_vibevoice, tiny_vibevoice

    rows = [
        {"segments": segments, "prompt": None, "endless": False}
        for segments in tiny_vibevoice.answers("tiny").values()
    ]
    return miniature_vibevoice.build_processor(rows)


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
    count = round(seconds * VIBEVOICE_SAMPLE_RATE)
    sound = random.standard_normal(count, np.float32)
    sound *= 0.05 + 0.1 * np.abs(np.sin(np.arange(count, dtype=np.float32) / VIBEVOICE_SAMPLE_RATE))
    return sound


def measure(
    model: LoadedVibeVoice, sound: Block, tokens: int, rounds: int, *, plain: bool
) -> Split:
    """One recording through our parts and, in turns with the decoding, through ``generate``."""
    device = model.device
    answer_tokens = round(HOUR_TOKENS * len(sound) / VIBEVOICE_SAMPLE_RATE / 3600)
    ids = build_prompt_ids(model.processor, len(sound), "")
    taken = _WARM_TOKENS + tokens
    plan = MemoryPlan(cache_tokens=len(ids) + max(answer_tokens, taken) + GRAPH_POSITIONS + taken)
    decoder = VibeVoiceDecoder(model.model)
    encoder = VibeVoiceAudioEncoder(model.model, model.processor.feature_extractor)
    with torch.inference_mode():
        some = sound[: _WARM_S * VIBEVOICE_SAMPLE_RATE]  # the first pass chooses its kernels
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


def card(folder: Path, wanted: Sequence[str], given: argparse.Namespace) -> None:
    """Run what is wanted."""
    device = torch.device(given.device)
    size = given.size or ("full" if given.device == "cuda" else "mid")
    minutes = given.minutes or ([10.0, 60.0] if given.device == "cuda" else [1.0, 3.0])
    judged = size == "full"
    home = given.weights or Path(tempfile.mkdtemp(dir=folder))
    begun = time.perf_counter()
    if not (home / "model.safetensors.index.json").exists():
        count = write(home, size, given.device)
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
    if "P17" in wanted:
        with_model(home, given.precision, device, partial(_p17, tokens=given.tokens))
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
    return int(2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * width)


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


def _p17(model: LoadedVibeVoice, tokens: int) -> None:
    """Requests for half a minute of audio, one after the other and from as many threads as there
    are places: a second, and CPU seconds of each (on a GPU those of the host)."""
    joined, count = JoinedTranscriptions(VibeVoiceModel(model)), 2 * MAX_WINDOWS
    plan = MemoryPlan(window_s=400.0, places=MAX_WINDOWS)
    options = TranscribeOptions(max_tokens=tokens, memory=plan)

    def ask(_: int) -> None:
        recording = SampleStream(synthetic(30.0), VIBEVOICE_SAMPLE_RATE)
        list(joined.events(request_of(recording, options)))

    ask(0)
    rows = []
    for places in (1, MAX_WINDOWS):
        begun, worked = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(places) as threads:
            list(threads.map(ask, range(count)))
        took, worked = time.perf_counter() - begun, time.process_time() - worked
        rows.append((str(places), f"{count / took:.2f}", f"{worked / count:.2f}"))
    table(f"P17: 30 s of audio, {tokens} tokens", ("at once", "requests/s", "CPU-s each"), rows)


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

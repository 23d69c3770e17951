"""The memory of a transcription without a GPU: the real model on fake tensors.

The engine's own code and the model's own classes run under `FakeTensorMode`: shapes, types and
lifetimes are real, numbers and memory are not. Every storage on the (fake) GPU is counted from its
birth to its end; the largest sum is the peak. The full-size model takes seconds. What is not real:

- **Attention** (`VibeVoiceDecoder.attend`) is what a fused kernel of a GPU allocates, no square
matrix.
- **int8, int4**: `Int8Linear` and `Int4Linear` hold and allocate what bitsandbytes 0.50 does on
  CUDA (`MatMul8bitLt`, `gemm_4bit`).
- **Sizes**: an allocator rounds up and fragments, cuDNN and cuBLAS have workspaces, the context
  takes its share. None of that is here; `memory_footprint.reserve_bytes` adds it.

`transcribe` runs on real devices as well (`python -m bench.memory`).
"""

import math
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from released_vibevoice_config import TEXT
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sidecar.audio import VIBEVOICE_SAMPLE_RATE
from sidecar.engines.vibevoice.vibevoice_decoder import (
    DRAFT_WIDTH_TOKENS,
    KeyValueCache,
    PlannedDecoder,
    VibeVoiceDecoder,
)
from sidecar.engines.vibevoice.vibevoice_generation import PromptContinuation
from sidecar.engines.vibevoice.vibevoice_model import VibeVoiceAudioEncoder
from sidecar.gpu_memory.memory_footprint import ModelShape, RecordingWork
from sidecar.gpu_memory.streaming_memory import SESSION_TOKENS, WINDOWS_AT_ONCE
from sidecar.interfaces.engine_interface import MemoryPlan, Precision

DEVICE = "meta"
DTYPES = {Precision.FP32: torch.float32, Precision.FP16: torch.float16}


@dataclass
class Peaks:
    """The most bytes that lived at once, in all and in each phase; more than ``limit`` are none."""

    limit: int | None = None
    live: int = 0
    highest: int = 0
    phases: dict[str, int] = field(default_factory=dict)
    phase: str = "load"

    def begin(self, phase: str) -> None:
        """From here on it is ``phase``."""
        self.phase = phase
        self.phases[phase] = max(self.phases.get(phase, 0), self.live)

    def grew(self, size: int) -> None:
        """``size`` bytes more, or less.

        Raises:
            torch.OutOfMemoryError: they are more than the limit.
        """
        self.live += size
        if self.limit is not None and size > 0 and self.live > self.limit:
            raise torch.OutOfMemoryError(f"{self.live:,} bytes, of {self.limit:,}")
        self.highest = max(self.highest, self.live)
        self.phases[self.phase] = max(self.phases.get(self.phase, 0), self.live)


class Counter(TorchDispatchMode):
    """Counts the storages that operations make on a device, until they are gone."""

    def __init__(self, peaks: Peaks, device: str = "meta") -> None:
        super().__init__()
        self.peaks = peaks
        self.device = device
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self.count(tensor)
        return result

    def count(self, tensor: Tensor) -> None:
        """Count the storage below ``tensor`` once."""
        if tensor.device.type != self.device:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return

        def gone(_: Any) -> None:
            del self.known[key]
            self.peaks.grew(-size)

        self.known[key] = weakref.ref(storage, gone)
        self.peaks.grew(size)


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        for part in result:
            yield from _tensors(part)


def fused_attention(_: VibeVoiceDecoder, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What a fused kernel allocates: its output, and one float32 per head and query."""
    query.new_empty(query.shape[:-1], dtype=torch.float32)
    return torch.empty_like(query)


class Int8Linear(nn.Module):
    """LLM.int8: a byte per weight, a scale per row; the input quantized, the sum in int32."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.dtype = linear.weight.dtype
        self.weight = nn.Buffer(torch.empty_like(linear.weight, dtype=torch.int8))
        self.scales = nn.Buffer(linear.weight.new_empty(len(linear.weight), dtype=torch.float32))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Allocate what the CUDA path allocates, in its order."""
        small = self._quantized(x.to(torch.float16))
        total = small.new_empty(*x.shape[:-1], len(self.weight), dtype=torch.int32)
        return torch.empty_like(total, dtype=torch.float16).to(self.dtype)

    @staticmethod
    def _quantized(x: Tensor) -> Tensor:
        x.new_empty(x.shape[:-1], dtype=torch.float32)
        small = torch.empty_like(x, dtype=torch.int8)
        x.abs() >= 6.0  # noqa: B015  (the look for outliers: a copy and a mask)
        return small


class Int4Linear(nn.Module):
    """NF4, scales quantized once more; many tokens at once need the weight in 16 bit."""

    BLOCK, SCALE_BLOCK, FEW = 64, 256, 64

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.rows, self.columns = linear.weight.shape
        size = linear.weight.numel()
        blocks = math.ceil(size / self.BLOCK)
        empty = linear.weight.new_empty
        self.weight = nn.Buffer(empty(math.ceil(size / 2), dtype=torch.uint8))
        self.scales = nn.Buffer(empty(blocks, dtype=torch.uint8))
        self.outer = nn.Buffer(empty(math.ceil(blocks / self.SCALE_BLOCK), dtype=torch.float32))
        self.codes = nn.Buffer(empty(16 + 256 + 1, dtype=torch.float32))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Allocate what the CUDA path allocates, in its order."""
        if x.shape[1] > self.FEW:
            x.new_empty(len(self.scales), dtype=torch.float32)
            whole = x.new_empty(self.rows, self.columns)
            return nn.functional.linear(x, whole, self.bias)
        return x.new_empty(*x.shape[:-1], self.rows)


@dataclass(frozen=True, slots=True)
class NoLoudness:
    """In place of the checkpoint's feature extractor: samples are taken as they are."""

    normalize_audio: bool = False


Move = Callable[[nn.Module, str], Any]
"""Puts a part of the model on a device."""


def transcribe(
    model: Any,
    plan: MemoryPlan,
    work: RecordingWork,
    begin: Callable[[str], None],
    move: Move,
    *,
    whole: bool = False,
) -> None:
    """The engine's parts in the order of `VibeVoiceModel.answers`: encode, evict, prefill, decode.

    ``begin`` is told each phase. Unless ``whole``, two chunks stand for all of them, and so do the
    last two tiles: the others do the same in the same memory. So do, always, a single token and a
    draft before each growth of the cache and in the end. The windows of a batch are encoded one
    after the other and decoded in step; if they are shared, another joins those that have grown.
    """
    decoder = VibeVoiceDecoder(model)
    caches = hear_windows(model, decoder, plan, work, begin, move, whole=whole)
    begin("decode")
    decoding = PlannedDecoder(decoder, plan)
    while True:
        end = min(caches[0].capacity, work.positions)
        for tokens in (1, DRAFT_WIDTH_TOKENS):
            for cache in caches:
                cache.length = end - tokens
            decoding.step([PromptContinuation([0] * tokens, cache) for cache in caches])
        if end == work.positions:
            break
        decoding.step([PromptContinuation([0], cache) for cache in caches])  # no room: they grow
    if plan.places:
        decoding.forget()  # as `VibeVoiceModel.answers`
        del caches[0], cache
        one = replace(plan, together=1)
        hear_windows(model, decoder, one, work, begin, move, whole=whole)


def hear_windows(
    model: Any,
    decoder: VibeVoiceDecoder,
    plan: MemoryPlan,
    work: RecordingWork,
    begin: Callable[[str], None],
    move: Move,
    *,
    whole: bool,
) -> list[KeyValueCache]:
    """Encode the windows of a batch, then prefill them; return their caches."""
    encoders = hearing(model)
    device = str(decoder.device)
    begin("encode")
    if plan.evict_encoders:
        for part in encoders:
            move(part, device)
    prompts = []
    for _ in range(plan.together):
        embeddings = decoder.embed(torch.zeros(work.prompt_tokens, dtype=torch.int64))
        heard = torch.empty_like(embeddings)
        window_s = min(work.audio_s, work.window_s)
        chunks_s = window_s if whole else min(window_s, 2 * plan.encoder_chunk_s)
        VibeVoiceAudioEncoder(model, NoLoudness()).encode(
            np.zeros(int(chunks_s * VIBEVOICE_SAMPLE_RATE), np.float32),
            plan.encoder_chunk_s,
            heard,
            _go_on,
        )
        embeddings[:] = heard
        prompts.append(embeddings)
        del heard, embeddings
    if plan.evict_encoders:
        for part in encoders:
            move(part, "cpu")

    begin("prefill")
    tile = min(plan.prefill_tile, work.prompt_tokens)
    caches = []
    while prompts:
        cache = decoder.new_cache(plan, work.prompt_tokens)
        if not whole:
            cache.length = max(0, work.prompt_tokens - 2 * tile)
        decoder.prefill(prompts.pop()[cache.length :], cache, tile, _go_on)
        caches.append(cache)
    return caches


def _go_on() -> None:
    """Nobody cancels."""


def build(config: Any, precision: Precision) -> Any:
    """The model without memory (on "meta"), its weights as ``precision`` holds them."""
    from transformers import VibeVoiceAsrForConditionalGeneration

    with torch.device("meta"):
        model = VibeVoiceAsrForConditionalGeneration(config).eval()
    model.requires_grad_(False)
    linear = {Precision.INT8: Int8Linear, Precision.INT4: Int4Linear}.get(precision)
    model.to(DTYPES.get(precision, torch.bfloat16))
    if linear is not None:
        for layer in model.model.language_model.layers:
            for block in (layer.self_attn, layer.mlp):
                for name, child in list(block.named_children()):
                    if isinstance(child, nn.Linear):
                        setattr(block, name, linear(child))
    return model


def hearing(model: Any) -> tuple[nn.Module, ...]:
    """The parts that are needed until the audio is encoded."""
    inner = model.model
    return (
        inner.acoustic_tokenizer_encoder,
        inner.semantic_tokenizer_encoder,
        inner.multi_modal_projector,
    )


def load(model: Any, plan: MemoryPlan, device: str) -> None:
    """Put the weights where the engine's loader puts them."""
    kept = [*hearing(model)] if plan.evict_encoders else []
    if plan.host_token_table:
        kept.append(model.model.language_model.embed_tokens)
    for part in kept:
        place(part, "cpu")
    place(model, device, {module for part in kept for module in part.modules()})


def place(part: nn.Module, device: str, without: Collection[nn.Module] = ()) -> None:
    """Put the weights of a part of the model on a fake device."""
    for module in part.modules():
        if module in without:
            continue
        for name, tensor in [*module.named_parameters(recurse=False)]:
            setattr(module, name, nn.Parameter(_zeros(tensor, device), requires_grad=False))
        for name, tensor in [*module.named_buffers(recurse=False)]:
            setattr(module, name, _zeros(tensor, device))


def _zeros(tensor: Tensor, device: str) -> Tensor:
    return torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)


def simulate(
    config: Any, precision: Precision, plan: MemoryPlan, work: RecordingWork, *, fused: bool = True
) -> Peaks:
    """The peaks of one recording, weights included. ``config`` is a `VibeVoiceAsrConfig`."""
    peaks = Peaks()
    model = build(config, precision)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    gpu = as_on_a_gpu() if fused else as_on_an_old_gpu(precision)
    with torch.inference_mode(), gpu, fake, Counter(peaks):
        load(model, plan, DEVICE)
        transcribe(model, plan, work, peaks.begin, place)
    return peaks


def configured_as(shape: ModelShape) -> Any:
    """A `VibeVoiceAsrConfig` of a shape whose encoders are the released ones."""
    text = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.mlp,
        "vocab_size": shape.vocab,
    }
    return configured(32, (3, 3, 3, 3, 3, 3, 8), **text)


def simulate_sessions(shape: ModelShape, precision: Precision) -> Peaks:
    """The peaks of a full pass of VibeVoice-ASR-Streaming: the windows of eight sessions, the
    prefill of one and a token of each, with full caches."""
    peaks, model = Peaks(), build(configured_as(shape), precision)
    plan = MemoryPlan(cache_tokens=SESSION_TOKENS)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.inference_mode(), as_on_a_gpu(), fake, Counter(peaks):
        if shape.tied:
            del model.lm_head.weight
        load(model, plan, DEVICE)
        if shape.tied:
            model.lm_head.weight = model.get_input_embeddings().weight
        decoder = VibeVoiceDecoder(model)
        decoding = PlannedDecoder(decoder, plan)
        caches = [decoder.new_cache(plan, 1) for _ in range(WINDOWS_AT_ONCE)]
        frames = frames_of(model, WINDOWS_AT_ONCE)
        for cache in caches:
            cache.length = SESSION_TOKENS - frames.shape[1] - 4
        decoding.prefill(frames[0], caches[0])
        decoding.step([PromptContinuation([0], cache) for cache in caches])
    return peaks


def frames_of(model: Any, windows: int) -> Tensor:
    """The embeddings ``(windows, frames, hidden)`` of silent windows, as the engine makes them."""
    like = model.lm_head.weight
    waves = torch.zeros(windows, 1, 83_200, device=like.device, dtype=model.dtype)
    acoustic, semantic, projector = hearing(model)
    embeddings: Tensor = projector(acoustic(waves).latents, semantic(waves).latents)
    return embeddings


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Attention like a fused kernel's, and the step that is captured there (here it is not)."""
    attention = mock.patch.object(VibeVoiceDecoder, "attend", fused_attention)
    with attention, mock.patch.object(VibeVoiceDecoder, "capturable", True):
        yield


@contextmanager
def as_on_an_old_gpu(precision: Precision) -> Iterator[None]:
    """As a GPU before sm80 of which no kernel takes the attention: torch's own arithmetic."""

    def plain(*tensors: Tensor, attn_mask: Any = None, is_causal: bool = False, **_: Any) -> Any:
        decompose = torch.ops.aten._scaled_dot_product_attention_math.default.decompose
        return decompose(*tensors, attn_mask, 0.0, is_causal)[0]

    by_key_head = mock.patch.object(
        VibeVoiceDecoder, "by_key_head", property(lambda _: True, lambda *_: None), create=True
    )
    captured = mock.patch.object(VibeVoiceDecoder, "capturable", precision is not Precision.INT8)
    attention = mock.patch.object(nn.functional, "scaled_dot_product_attention", plain)
    with by_key_head, captured, attention:
        yield


def configured(filters: int, depths: Sequence[int], **text: int) -> Any:
    """A `VibeVoiceAsrConfig` with encoders and a language model of these dimensions."""
    from transformers import VibeVoiceAsrConfig

    def encoder(width: int) -> dict[str, Any]:
        return {
            "model_type": "vibevoice_acoustic_tokenizer_encoder",
            "hidden_size": width,
            "num_filters": filters,
            "depths": list(depths),
        }

    return VibeVoiceAsrConfig(
        acoustic_tokenizer_encoder_config=encoder(64),
        semantic_tokenizer_encoder_config=encoder(128),
        text_config={
            "model_type": "qwen2",
            "max_position_embeddings": 131072,
            "tie_word_embeddings": False,
            **text,
        },
    )


def full_size(layers: int = TEXT["num_hidden_layers"]) -> Any:
    """The configuration of the released model, or with fewer layers of the language model."""
    return configured(32, (3, 3, 3, 3, 3, 3, 8), **TEXT | {"num_hidden_layers": layers})


def small_size(hidden_size: int = 96, intermediate_size: int = 256) -> Any:
    """One that a CPU runs in a moment."""
    heads = {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes = {"hidden_size": hidden_size, "intermediate_size": intermediate_size, "vocab_size": 580}
    return configured(4, [1] * 7, **heads, **sizes)

"""The memory of a transcription without a GPU: the real model on fake tensors.

The engine's own code and the model's own classes run under `FakeTensorMode`: shapes, types and
lifetimes are real, numbers and memory are not. Every storage on the (fake) GPU is counted from its
birth to its end; the largest sum is the peak. The full-size model takes seconds. What is not real:

- **Attention** (`VibeVoiceDecoder._attend`) is what a fused kernel of a GPU allocates, no square
matrix.
- **int8, int4**: `stand_ins` hold and allocate what bitsandbytes does on CUDA.
- **Sizes**: an allocator rounds up and fragments, cuDNN and cuBLAS have workspaces, the context
  takes its share. None of that is here; `footprint.reserve_bytes` adds it.

`transcribe` runs on real devices as well (`memory_run`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.gpu_kernel_stand_ins import Int4Linear, Int8Linear, fused_attention
from bench.tensor_counting import Counter, Peaks
from sidecar.engines.vibevoice.vibevoice_decoder import (
    DRAFT_WIDTH_TOKENS,
    PlannedDecoder,
    PromptContinuation,
    VibeVoiceDecoder,
)
from sidecar.engines.vibevoice.vibevoice_model import SAMPLE_RATE, VibeVoiceAudioEncoder
from sidecar.gpu_memory.memory_footprint import WINDOW_S, RecordingWork
from sidecar.interfaces.engine_interface import MemoryPlan, Precision

DEVICE = "meta"
DTYPES = {Precision.FP32: torch.float32, Precision.FP16: torch.float16}


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
    """The engine's parts in the order of its `Model.answer`: encode, evict, prefill, decode.

    ``begin`` is told each phase. Unless ``whole``, two chunks stand for all of them, and so do the
    last two tiles: the others do the same in the same memory. So do, always, a single token and a
    draft before each growth of the cache and in the end.
    """
    decoder, encoders = VibeVoiceDecoder(model), hearing(model)
    device = str(decoder.device)
    begin("encode")
    if plan.evict_encoders:
        for part in encoders:
            move(part, device)
    embeddings = decoder.embed(torch.zeros(work.prompt_tokens, dtype=torch.int64))
    heard = torch.empty_like(embeddings)
    window_s = min(work.audio_s, WINDOW_S)
    chunks_s = window_s if whole else min(window_s, 2 * plan.encoder_chunk_s)
    VibeVoiceAudioEncoder(model, NoLoudness()).encode(
        np.zeros(int(chunks_s * SAMPLE_RATE), np.float32), plan.encoder_chunk_s, heard, _go_on
    )
    embeddings[:] = heard
    del heard
    if plan.evict_encoders:
        for part in encoders:
            move(part, "cpu")

    begin("prefill")
    tile = min(plan.prefill_tile, work.prompt_tokens)
    cache = decoder.new_cache(plan, work.prompt_tokens)
    if not whole:
        cache.length = max(0, work.prompt_tokens - 2 * tile)
    decoder.prefill(embeddings[cache.length :], cache, tile, _go_on)
    del embeddings

    begin("decode")
    decoding = PlannedDecoder(decoder, plan)
    while True:
        end = min(cache.capacity, work.positions)
        for tokens in (1, DRAFT_WIDTH_TOKENS):
            cache.length = end - tokens
            decoding.step([PromptContinuation([0] * tokens, cache)])
        if end == work.positions:
            return
        decoding.step([PromptContinuation([0], cache)])  # no room: it grows


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
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)


def simulate(
    config: Any, precision: Precision, plan: MemoryPlan, work: RecordingWork, *, real: bool = False
) -> Peaks:
    """The peaks of one recording, weights included. ``config`` is a `VibeVoiceAsrConfig`.

    ``real``: with real tensors on the CPU (of a small model), to see that the fake ones do not lie;
    there is no other device then to evict to.
    """
    peaks = Peaks()
    model = build(config, precision)
    device = "cpu" if real else DEVICE
    mode = nullcontext() if real else FakeTensorMode(allow_non_fake_inputs=True)
    with torch.inference_mode(), as_on_a_gpu(), mode, Counter(peaks, device):
        load(model, plan, device)
        transcribe(model, plan, work, peaks.begin, place)
    return peaks


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Attention like a fused kernel's, and the step that is captured there (here it is not)."""
    attention = mock.patch.object(VibeVoiceDecoder, "_attend", fused_attention)
    with attention, mock.patch.object(VibeVoiceDecoder, "capturable", True):
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


def full_size() -> Any:
    """The configuration of the released model."""
    return configured(
        32,
        (3, 3, 3, 3, 3, 3, 8),
        hidden_size=3584,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        intermediate_size=18944,
        vocab_size=152064,
    )


def small_size() -> Any:
    """One that a CPU runs in a moment."""
    return configured(
        4,
        [1] * 7,
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=256,
        vocab_size=580,
    )

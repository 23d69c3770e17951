"""The memory of VibeVoice that speaks without a GPU: the real model on fake tensors.

As `memory_simulation` does it for the engine that hears: the engine's own code and the
model's own classes, every storage on the (fake) GPU counted. What would look at numbers is left
out: a word is always a frame of sound. Attention allocates what a fused kernel of a GPU does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from memory_simulation import DEVICE, DTYPES, Counter, Peaks, place
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from sidecar.audio import VIBEVOICE_SAMPLE_RATE
from sidecar.interfaces.engine_interface import Precision
from sidecar.tts.vibevoice_tts_memory import (
    CACHED_VOICE_SAMPLES,
    max_frames,
    prompt_tokens,
)
from sidecar.tts.vibevoice_tts_model import (
    TtsGenerationOptions,
    TtsLanguageModel,
    TtsPrompt,
    VibeVoiceTtsModel,
)
from sidecar.tts.vibevoice_tts_synthesis import GUIDANCE_SCALE, sample_embeddings

FRAMES = 3
"""That stand for all: the others do the same in the same memory."""
HOP = 3_200
"""Samples of one."""
SOUND = 3
"""The word that stands for a frame."""


def speak(model: Any, characters: int, sample_s: float, begin: Callable[[str], None]) -> None:
    """The engine's parts in the order of its `VibeVoiceSynthesizer.say`, of a text of so many
    characters with the sample of a voice; ``begin`` is told each phase."""
    speaker = VibeVoiceTtsModel(model, 10)
    begin("hear")
    table = model.get_input_embeddings().weight
    sound = torch.zeros(round(sample_s * VIBEVOICE_SAMPLE_RATE))
    tokens = len(sound) // HOP
    others = table.new_empty((CACHED_VOICE_SAMPLES - 1) * tokens, table.shape[1])
    heard = sample_embeddings(model.model, sound)
    del sound
    begin("prompt")
    ids = [SOUND] * tokens + [0] * prompt_tokens(characters)
    manner = TtsGenerationOptions(max_frames(characters), GUIDANCE_SCALE)
    frames = speaker.frames(TtsPrompt(ids, heard), manner, lambda: None)
    next(frames)
    begin("speak")
    for _ in range(FRAMES):
        next(frames)
    frames.close()
    del others


def build(config: Any, precision: Precision) -> Any:
    """The model without memory (on "meta")."""
    from transformers import VibeVoiceForConditionalGeneration

    with torch.device("meta"):
        model = VibeVoiceForConditionalGeneration(config).eval()
    return model.requires_grad_(False).to(DTYPES.get(precision, torch.bfloat16))


def load(model: Any, device: str) -> None:
    """Put the weights where the engine's loader puts them; what is tied lies there once."""
    tied = model.config.tie_word_embeddings
    place(model, device, {model.lm_head} if tied else ())
    if tied:
        model.lm_head._parameters["weight"] = model.get_input_embeddings().weight


def simulate(config: Any, precision: Precision, characters: int, sample_s: float) -> Peaks:
    """The peaks of one text, weights included. ``config`` is a `VibeVoiceConfig`."""
    peaks = Peaks()
    model = build(config, precision)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.inference_mode(), as_on_a_gpu(), fake, Counter(peaks):
        load(model, DEVICE)
        speak(model, characters, sample_s, peaks.begin)
    return peaks


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Attention like a fused kernel's, and a word that need not be known."""

    def fused(_: TtsLanguageModel, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        query.new_empty(query.shape[:-1], dtype=torch.float32)
        return torch.empty_like(query, memory_format=torch.contiguous_format)

    def sound(_: TtsLanguageModel, outputs: Tensor, guidance: float) -> int:
        return SOUND

    with (
        mock.patch.object(TtsLanguageModel, "_attend", fused),
        mock.patch.object(TtsLanguageModel, "word", sound),
    ):
        yield


def full_size() -> Any:
    """The configuration of the released model, whose language model is Qwen2.5-1.5B."""
    return configured(
        32,
        (3, 3, 3, 3, 3, 3, 8),
        4608,
        hidden_size=1536,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        intermediate_size=8960,
        vocab_size=151_936,
        tie_word_embeddings=True,
    )


def small_size() -> Any:
    """One that a CPU runs in a moment."""
    return configured(
        4,
        [1] * 7,
        288,
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=256,
        vocab_size=580,
        tie_word_embeddings=False,
    )


def configured(filters: int, depths: Sequence[int], head: int, **text: Any) -> Any:
    """A `VibeVoiceConfig` of a codec, a diffusion head and a language model of these dimensions."""
    from transformers import VibeVoiceConfig

    codec = {"num_filters": filters, "depths": list(depths)}
    kind = "vibevoice_acoustic_tokenizer"
    return VibeVoiceConfig(
        audio_config={"model_type": kind, **codec},
        semantic_model_config={"model_type": f"{kind}_encoder", "hidden_size": 128, **codec},
        text_config={"model_type": "qwen2", "max_position_embeddings": 65_536, **text},
        diffusion_head_config={"intermediate_size": head},
        pad_token_id=0,
        eos_token_id=0,
        audio_bos_token_id=1,
        audio_eos_token_id=2,
        audio_token_id=SOUND,
    )

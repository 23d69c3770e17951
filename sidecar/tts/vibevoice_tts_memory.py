"""Memory footprint and admission of VibeVoice TTS. Pure.

The phases follow the engine's order of operations (`tts.vibevoice_tts`): the sample of a voice in
chunks of a few seconds, the whole prompt, then one frame after another. All caches of an utterance
are allocated at its start. `tests/support/tts_memory_simulation.py` runs the real model on fake
tensors, and the tests compare these figures with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from sidecar import errors
from sidecar.audio import VIBEVOICE_SAMPLE_RATE
from sidecar.gpu_memory import memory_admission, memory_footprint
from sidecar.gpu_memory.memory_plan import GB, best_precision
from sidecar.interfaces.engine_interface import (
    MAX_TTS_CHARACTERS,
    MAX_TTS_STEPS,
    MemoryPlan,
    Precision,
)

PROMPT_TOKENS = 64
"""Tokens of the prompt around the text."""
MAX_SAMPLE_S, SAMPLE_CHUNK_S = 30.0, 4.0
"""Maximum length of a voice sample, and of the chunks in which it is encoded."""
CACHED_VOICE_SAMPLES = 16
"""Maximum number of voice samples with embeddings in memory."""
FRAMES_PER_CHARACTER, MIN_FRAMES = 2, 40
"""Limit of frames of a text: about four times the duration of human speech. It ends a model that
predicts no end."""
GUIDANCE_BRANCHES = 3
"""Branches: with the text, without it for the audio, without it for the tokens."""


def prompt_tokens(characters: int) -> int:
    """Return the maximum number of tokens of a text and the words around it.

    A text has at most one token per character, usually one for four.
    """
    return PROMPT_TOKENS + characters


def max_frames(characters: int) -> int:
    """Return the limit of frames for a text of ``characters`` characters."""
    return MIN_FRAMES + FRAMES_PER_CHARACTER * characters


@dataclass(frozen=True, slots=True)
class DiffusionHeadShape:
    """Dimensions of the diffusion head.

    ``hidden``: width of the language model. ``frequencies``: size of the timestep embedding.
    """

    hidden: int
    latent: int
    layers: int
    mlp: int
    frequencies: int

    @property
    def parameters(self) -> int:
        """Return the number of parameters; there are no biases."""
        hidden = self.hidden
        layer = 3 * hidden * self.mlp + hidden + 3 * hidden * hidden
        around = 2 * hidden * self.latent + 4 * hidden * hidden + self.frequencies * hidden
        return around + self.layers * layer


@dataclass(frozen=True, slots=True)
class TtsModelShape:
    """Dimensions of VibeVoice TTS.

    ``model``: the language model, both encoders and the projector, as in VibeVoice-ASR; the
    acoustic codec also has a decoder. ``tied``: the output head uses the token embeddings.
    """

    model: memory_footprint.ModelShape
    head: DiffusionHeadShape
    tied: bool

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TtsModelShape:
        """Return the shape by the `config.json` of a checkpoint in the layout of transformers.

        Raises:
            ValueError: the dimensions of the language model are missing.
        """
        model = memory_footprint.ModelShape.from_config(
            {
                "text_config": config.get("text_config"),
                "acoustic_tokenizer_encoder_config": config.get("audio_config"),
                "semantic_tokenizer_encoder_config": config.get("semantic_model_config"),
            }
        )
        head = config.get("diffusion_head_config") or {}
        return cls(
            model,
            DiffusionHeadShape(
                model.hidden,
                model.acoustic.latent,
                head.get("num_hidden_layers", 4),
                head.get("intermediate_size", 4608),
                head.get("frequency_embedding_size", 256),
            ),
            bool(config["text_config"].get("tie_word_embeddings", False)),
        )

    @property
    def decoder_parameters(self) -> int:
        """Return the number of parameters of the codec's decoder, which mirrors its encoder."""
        codec = self.model.acoustic
        return codec.parameters - codec.latent + codec.channels

    @property
    def parameters(self) -> int:
        """Return the number of parameters, with the two scaling factors of latents."""
        twice = self.model.table_parameters if self.tied else 0
        return self.model.parameters - twice + self.decoder_parameters + self.head.parameters + 2


def tts_memory_phases(
    shape: TtsModelShape,
    precision: Precision,
    characters: int = MAX_TTS_CHARACTERS,
    sample_s: float = MAX_SAMPLE_S,
) -> tuple[memory_footprint.MemoryBreakdown, ...]:
    """Return the peaks of loading, of encoding a voice sample, of the prompt, and of the frames."""
    model, size = shape.model, memory_footprint.value_bytes(precision)
    weights = shape.parameters * size
    heard = audio_tokens(shape, sample_s)
    prompt, frames = prompt_tokens(characters) + heard, max_frames(characters)
    cache = memory_footprint.cache_bytes(
        model, precision, prompt + GUIDANCE_BRANCHES * frames + GUIDANCE_BRANCHES - 1
    )
    little = memory_footprint.SMALL_TENSORS_BYTES + 4 * _timestep_values(shape)
    kept = little + CACHED_VOICE_SAMPLES * heard * model.hidden * size
    table = memory_footprint.rotary_cache_values(model, precision, prompt + frames)
    made = memory_footprint.rotary_temporary_values(model, prompt + frames)
    return (
        memory_footprint.MemoryBreakdown("load", weights, 0, little),
        memory_footprint.MemoryBreakdown(
            "hear", weights, 0, kept + _voice_sample_values(shape, sample_s) * size
        ),
        memory_footprint.MemoryBreakdown(
            "prompt", weights, cache, kept + max(made, table + _prompt(model, prompt) * size)
        ),
        memory_footprint.MemoryBreakdown(
            "speak", weights, cache, kept + table + _frame(shape, prompt) * size
        ),
    )


def tts_peak_bytes(shape: TtsModelShape, precision: Precision) -> memory_footprint.MemoryBreakdown:
    """Return the phase of the longest text that needs the most bytes."""
    return max(tts_memory_phases(shape, precision), key=lambda phase: phase.tensors)


def audio_tokens(shape: TtsModelShape, seconds: float) -> int:
    """Return the number of audio tokens for ``seconds`` of audio."""
    return ceil(seconds * VIBEVOICE_SAMPLE_RATE / shape.model.acoustic.hop)


def _timestep_values(shape: TtsModelShape) -> int:
    """Return the number of values of the timestep embedding in each step."""
    return MAX_TTS_STEPS * (3 * shape.model.hidden + 2 * shape.head.frequencies)


def _voice_sample_values(shape: TtsModelShape, sample_s: float) -> int:
    """Return the number of values alive in the widest stage of the encoder.

    They include the samples of the chunk, the states, and the latents of the whole voice sample.
    """
    codec = shape.model.acoustic
    samples = round(min(sample_s, SAMPLE_CHUNK_S) * VIBEVOICE_SAMPLE_RATE)
    states = 64 * sum(codec.widths)
    return (
        memory_footprint.widest_stage(codec, samples)
        + samples
        + states
        + audio_tokens(shape, sample_s) * codec.latent
    )


def _prompt(model: memory_footprint.ModelShape, tokens: int) -> int:
    """Return the number of values alive in an MLP during the prompt.

    Each token has its embedding, and the rows before the layer and after its attention, both also
    normed. It has queries, attention output, keys, values, cosine and sine. The MLP adds gate, up
    and their product.
    """
    beside = 5 * model.hidden + 2 * (model.query_width + model.key_width + model.head_dim)
    return tokens * (beside + 3 * model.mlp)


def _frame(shape: TtsModelShape, prompt: int) -> int:
    """Return the number of values alive while a frame is generated.

    They are: the widest stage of the codec; the states of the codec and of the semantic encoder;
    the embeddings of the prompt; the modulations of the head for each step.
    """
    model = shape.model
    codec = memory_footprint.widest_stage(model.acoustic, model.acoustic.hop)
    states = 2 * 64 * sum(model.acoustic.widths)
    told = 2 * MAX_TTS_STEPS * model.hidden * (3 * shape.head.layers + 4)
    return codec + states + prompt * model.hidden + told


class TtsMemoryAdmission:
    """Memory admission for one TTS checkpoint. ``limit_bytes`` limits its memory; `None`: no limit.

    The memory of a synthesis is that of the longest text, and users wait for the result. It is
    therefore reserved at the load, together with the weights, and no other engine gets it.
    """

    def __init__(self, shape: TtsModelShape, limit_bytes: int | None) -> None:
        self._shape = shape
        self._limit = limit_bytes

    def first_precision(self, now: memory_admission.MemoryState) -> Precision:
        """Return the precision to load by default: 16 bit."""
        return Precision.BF16

    def place(
        self, precision: Precision, now: memory_admission.MemoryState
    ) -> memory_admission.LoadPlan:
        """Return the plan of a load: beside the old engine, or instead of it.

        Raises:
            errors.WontFit: the engine does not fit even without the old one.
        """
        needed = self.peak_bytes(precision)
        room = now.available_bytes(self.loaded_bytes, self._limit)
        if needed > room:
            raise errors.WontFit(
                f"Out of memory: VibeVoice TTS needs {needed / GB:.1f} GB in {precision}; "
                f"{room / GB:.1f} GB are free.",
                hint=(
                    "Choose another VIBEVOICE_VOICE_ENGINE, or a smaller VIBEVOICE_PRECISION "
                    "for the ASR engine."
                ),
            )
        both = self._limit is None or now.held is None
        beside = both and needed <= now.free_bytes
        return memory_admission.LoadPlan(
            memory_admission.LoadPlacement.BESIDE
            if beside
            else memory_admission.LoadPlacement.INSTEAD
        )

    def loaded_bytes(
        self, precision: Precision, memory: MemoryPlan = memory_admission.LOAD_PLAN_ALL_ON_GPU
    ) -> int:
        """Return the bytes of an idle engine; nothing of it stays on the host."""
        return tts_memory_phases(self._shape, precision)[0].total

    def peak_bytes(self, precision: Precision) -> int:
        """Return the peak bytes of a synthesis, with those of the idle engine."""
        return tts_peak_bytes(self._shape, precision).total

    def work_bytes(self, precision: Precision) -> int:
        """Return the bytes of a synthesis without those of the idle engine."""
        return self.peak_bytes(precision) - self.loaded_bytes(precision)


def fits_beside_asr(
    voice: TtsModelShape, hearing: memory_footprint.ModelShape | None, free_bytes: int
) -> bool:
    """Return whether VibeVoice TTS and the ASR model fit on one device.

    The ASR model counts with a recording of typical length, at the best precision that fits.
    """
    left = free_bytes - tts_peak_bytes(voice, Precision.BF16).total
    if hearing is None or left < 0:
        return left >= 0
    return best_precision(
        hearing, memory_footprint.RecordingWork.of(hearing, memory_admission.TYPICAL_AUDIO_S), left
    ).fits

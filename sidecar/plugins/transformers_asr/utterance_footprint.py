"""Memory of a recognizer: its weights, an utterance, the state of a stream. Pure.

A recording is recognized utterance by utterance, so its length does not count. Most of the memory
of an utterance is taken by the widest results at the beginning of the encoder. The tests compare
the counts with those of the real classes; on a GPU nothing was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from sidecar.checkpoints.checkpoint import ModelCheckpoint, bytes_as_floats, damaged_error
from sidecar.gpu_memory.memory_footprint import reserve_bytes
from sidecar.gpu_memory.memory_plan import DeviceRoom, JobForecast
from sidecar.interfaces.engine_interface import EngineSpec, Precision
from sidecar.plugins.transformers_asr.architectures import architecture_of

SPECTRA_PER_S = 100
RESULTS, CAUSAL_RESULTS = 2.2, 3.5
"""Results of the widest convolution that live at once, counted: its input and its own, and of a
causal one a padded copy."""
CODEC_SAMPLES_PER_S, CODEC_RESULTS = 24_000, 4
"""Samples that Kyutai's codec takes, and results that live at once in its first block."""
KYUTAI_MORE_S = 4.0
"""Silence around an utterance for Kyutai: its prefix, and the delay of its text, at most."""
VALUES_OF_A_LAYER = 720
"""Values of an encoder without such a convolution, for a second of sound and each of its width."""
TEXT_POSITIONS, POSITIONS_PER_S = 512, 30
"""Positions of the decoder: of the prompt, with its context, and for each second of an utterance;
at most 15 of those are tokens of its text, and 13 stand for its sound."""


@dataclass(frozen=True, slots=True)
class UtteranceFootprint:
    """Bytes of a recognizer at a ``precision``: ``weights_bytes``, those of an utterance of the
    longest length (``work_bytes``), and those that it keeps for a live session, if it streams."""

    precision: Precision
    weights_bytes: int = field(compare=False)
    work_bytes: int = field(compare=False)
    session_bytes: int

    @property
    def loaded_bytes(self) -> int:
        """Return the bytes of a process without sessions. One utterance is recognized at a time; on
        a CPU the reserve stands for torch."""
        tensors = self.weights_bytes + self.work_bytes
        return tensors + reserve_bytes(tensors)

    @property
    def needed_bytes(self) -> int:
        """Return the bytes of a process with one session, or with a recording."""
        return self.loaded_bytes + self.session_bytes

    def sessions(self, room: DeviceRoom) -> int:
        """Return how many live sessions fit."""
        rest_bytes = room.available_bytes - self.needed_bytes
        return 1 + rest_bytes // max(1, self.session_bytes) if rest_bytes >= 0 else 0

    def forecast(self, audio_s: float | None, longest_s: float, room: DeviceRoom) -> JobForecast:
        """Return the forecast of a recording; its time is not known before one was measured."""
        return JobForecast.of_any_length(
            self.precision, self.needed_bytes, room.available_bytes, audio_s, longest_s
        )


def footprints_of(
    spec: EngineSpec, checkpoint: ModelCheckpoint
) -> Mapping[Precision, UtteranceFootprint]:
    """Return the footprint of a checkpoint in each precision.

    Raises:
        errors.CheckpointDamaged: the headers of its weights, or its dimensions, are not usable.
    """
    config, folder = checkpoint.config, checkpoint.folder
    architecture, found = architecture_of(config), {}
    try:
        work = work_values(config, architecture.longest_s)
        state = stream_values(config) if architecture.streams else 0
        if min(work, state) < 0:
            raise ValueError("negative")
    except (TypeError, LookupError, AttributeError, ValueError, ArithmeticError):
        raise damaged_error(folder / "config.json", "has dimensions that are not usable") from None
    for precision in spec.precisions:
        width = 4 if precision is Precision.FP32 else 2
        weights = sum(bytes_as_floats(file, width) for file in checkpoint.weight_files)
        found[precision] = UtteranceFootprint(precision, weights, width * work, width * state)
    return found


def work_values(config: Mapping[str, Any], audio_s: float) -> int:
    """Return the values that live at once while an utterance of ``audio_s`` seconds is recognized:
    those of the encoder, and the cache of the decoder."""
    encoded_s = audio_s + KYUTAI_MORE_S if "codec_config" in config else audio_s
    return ceil(encoded_s * _encoder_values_per_s(config)) + _cache_values(config, audio_s)


def stream_values(config: Mapping[str, Any]) -> int:
    """Return the values that Nemotron keeps of a stream: keys and values of the window, and what
    each convolution needs of the sound before."""
    encoder = config["encoder_config"]
    hidden = encoder.get("hidden_size", 1024)
    window, kernel = encoder.get("sliding_window", 71), encoder.get("conv_kernel_size", 9)
    layer = 2 * (window - 1) * _key_width(encoder) + (kernel - 1) * hidden
    front = 2 * encoder.get("subsampling_conv_channels", 256) * encoder.get("num_mel_bins", 128)
    return int(encoder.get("num_hidden_layers", 24) * layer + front)


def _encoder_values_per_s(config: Mapping[str, Any]) -> int:
    """Return the values of the encoder for a second of sound: those around the widest convolution
    or, of Moonshine and Granite, in a layer."""
    encoder = config.get("encoder_config") or config
    match config["model_type"]:
        case "kyutai_speech_to_text":
            filters = (config.get("codec_config") or {}).get("num_filters", 64)
            return int(CODEC_RESULTS * filters * CODEC_SAMPLES_PER_S)
        case "granite_speech":
            return int(VALUES_OF_A_LAYER * encoder.get("hidden_dim", 1024))
        case "moonshine" | "moonshine_streaming":
            return int(VALUES_OF_A_LAYER * encoder.get("hidden_size", 320))
        case "qwen3_asr":
            audio = config.get("audio_config") or {}
            channels, bins = audio.get("downsample_hidden_size", 480), audio.get("num_mel_bins")
        case _:
            channels = encoder.get("subsampling_conv_channels", 256)
            bins = encoder.get("num_mel_bins")
    # Results of the first convolution, which halves both sides of the spectra.
    live = CAUSAL_RESULTS if architecture_of(config).streams else RESULTS
    return int(live * SPECTRA_PER_S / 2 * channels * (bins or 128) / 2)


def _cache_values(config: Mapping[str, Any], audio_s: float) -> int:
    """Return the keys and values of the decoder; those of a transducer's states are nothing."""
    decoder = config.get("text_config") or config.get("decoder_config") or config
    layers = decoder.get("num_hidden_layers", decoder.get("decoder_num_hidden_layers", 0))
    positions = TEXT_POSITIONS + ceil(POSITIONS_PER_S * audio_s)
    positions = min(positions, decoder.get("sliding_window") or positions)
    return int(2 * layers * _key_width(decoder) * positions) if layers else 0


def _key_width(part: Mapping[str, Any]) -> int:
    """Return the width of the keys of a token in a layer."""
    heads = part.get("num_attention_heads", part.get("decoder_num_attention_heads", 8))
    size = part.get("head_dim") or part.get("hidden_size", 1024) // heads
    return int((part.get("num_key_value_heads") or heads) * size)

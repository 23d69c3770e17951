"""Planned memory of an utterance against the storages that the real classes make for it."""

import json
from typing import Any

import numpy as np
import pytest
import tiny_transformers

pytest.importorskip("transformers")

from sidecar.gpu_memory.memory_plan import DeviceRoom
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.interfaces.live_options import LiveOptions
from sidecar.plugins.transformers_asr.architectures import ARCHITECTURES
from sidecar.plugins.transformers_asr.utterance_footprint import (
    UtteranceFootprint,
    stream_values,
    work_values,
)

SAMPLE_RATE = 16_000
WIDE: dict[str, dict[str, Any]] = {
    "moonshine": {"hidden_size": 128},
    "moonshine_streaming": {"encoder_config": {"hidden_size": 128}},
    "qwen3_asr": {"audio_config": {"downsample_hidden_size": 64}},
    "kyutai_speech_to_text": {"codec_config": {"num_filters": 16}},
    "granite_speech": {
        "encoder_config": {"hidden_dim": 512, "num_heads": 8},
        "projector_config": {"encoder_hidden_size": 512, "hidden_size": 512},
    },
}
"""Widths at which the encoder of a tiny model takes most of its memory, as in released ones."""
CONVOLUTION = {"encoder_config": {"subsampling_conv_channels": 64}}
"""Those of the others."""


def wide_recognizer(kind: str) -> tuple[Any, dict[str, Any]]:
    """A recognizer with random weights, and its `config.json`."""
    import transformers

    from sidecar.plugins.transformers_asr.model_loading import RECOGNIZERS

    folder, architecture = tiny_transformers.model(kind), ARCHITECTURES[kind]
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for name, change in WIDE.get(kind, CONVOLUTION).items():
        config[name] = config[name] | change if isinstance(change, dict) else change
    model_class = getattr(transformers, architecture.model)
    model = model_class(model_class.config_class.from_dict(config)).eval()
    model.generation_config = model_class.from_pretrained(folder).generation_config
    processor = transformers.AutoProcessor.from_pretrained(folder)
    return RECOGNIZERS[architecture.recognizer](model, processor, architecture), config


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_planned_memory_of_utterance_is_0_to_50_percent_above_counted(kind: str) -> None:
    import memory_simulation
    import torch

    recognizer, config = wide_recognizer(kind)
    audio_s = 12.0
    noise = np.random.default_rng(0).normal(0, 0.1, int(audio_s * SAMPLE_RATE))
    peaks = memory_simulation.Peaks()
    counter = memory_simulation.Counter(peaks, "cpu")
    for weight in (*recognizer.model.parameters(), *recognizer.model.buffers()):
        counter.count(weight)
    weights = peaks.live
    with torch.inference_mode(), counter:
        recognizer.recognize(noise.astype(np.float32), TranscribeOptions(), lambda: False)
    counted = peaks.highest - weights
    planned = 4 * work_values(config, audio_s)
    assert counted <= planned <= 1.5 * counted


@pytest.mark.parametrize("kind", [name for name, one in ARCHITECTURES.items() if one.streams])
def test_planned_memory_of_stream_is_0_to_50_percent_above_its_state(kind: str) -> None:
    from sidecar.plugins.transformers_asr.nemotron_stream import NemotronStream

    recognizer, config = wide_recognizer(kind)
    stream = NemotronStream(recognizer, LiveOptions())
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * SAMPLE_RATE).astype(np.float32)
    stream.recognize(noise, lambda: False, ended=False)
    layers = stream.caches["cache"].layers
    states = [state for one in layers for state in (one.keys, one.values)]
    states += [one.cache for one in stream.caches["padding_cache"].layers.values()]
    held = sum(one.untyped_storage().nbytes() for one in states)
    assert held <= 4 * stream_values(config) <= 1.5 * held


def test_sessions_of_recognizer_are_those_whose_state_fits_beside_its_weights() -> None:
    stream = UtteranceFootprint(Precision.BF16, 1_000_000_000, 100_000_000, 7_000_000)
    rest = UtteranceFootprint(Precision.BF16, 1_000_000_000, 100_000_000, 0)
    room = DeviceRoom(stream.loaded_bytes + 3 * 7_000_000)
    assert stream.sessions(room) == 3
    assert rest.sessions(room) > 100
    short = DeviceRoom(rest.loaded_bytes - 1)
    assert (stream.sessions(short), rest.sessions(short)) == (0, 0)
    assert rest.forecast(3600.0, 7200.0, room).sentence.endswith("GB for any length")
    assert not rest.forecast(3600.0, 7200.0, short).fits

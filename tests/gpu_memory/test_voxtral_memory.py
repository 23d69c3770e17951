"""What streams take, beside the caches of the real class."""

import json
from typing import Any

import numpy as np
import pytest
import tiny_voxtral

from sidecar.gpu_memory.memory_footprint import StreamShape


def test_memory_of_voxtral_stream_grows_up_to_its_attention_windows_and_limits_streams() -> None:
    shape = StreamShape.from_config({})
    assert shape.bytes(1) == 106_496 + 4 * 262_144
    assert shape.bytes(10**6) == 106_496 * 8191 + 262_144 * 749
    assert shape.most(10 * 10**9, 60.0) == 10 * 10**9 // shape.peak_bytes(60.0)
    assert shape.most(-1, 60.0) == 0


@pytest.mark.parametrize("seconds", [0.2, 1.0, 12.0])
def test_planned_memory_of_voxtral_stream_is_that_of_its_caches(seconds: float) -> None:
    from sidecar.engines.voxtral import VoxtralStream, load_voxtral

    folder = tiny_voxtral.model()
    shape = StreamShape.from_config(json.loads((folder / "config.json").read_text("utf-8")))
    voxtral = load_voxtral(folder, "cpu", "float32")
    stream = VoxtralStream(voxtral, 6)
    stream.feed(np.zeros(round(seconds * 16_000), np.float32))
    stream.end()
    held = sum(_bytes(stream.caches[name]) for name in ("cache", "encoder_cache"))
    positions = voxtral.tekken.left + 6 + len(stream.tokens)
    assert held == shape.bytes(positions, width=4)
    assert held <= shape.peak_bytes(seconds, width=4)


def _bytes(cache: Any) -> int:
    return sum(
        part.numel() * part.element_size()
        for layer in cache.layers
        for part in (layer.keys, layer.values)
    )

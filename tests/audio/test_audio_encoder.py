"""Encoded audio as it is made."""

from __future__ import annotations

import io
import random
import tracemalloc

import numpy as np
import soundfile

from sidecar.audio.audio_encoder import EncodedFormat, audio_encoder

RATE = 24_000


def test_a_flac_is_not_kept_in_memory_while_it_is_made() -> None:
    """Noise, which does not get smaller."""
    second = random.Random(1).randbytes(2 * RATE)
    tracemalloc.start()
    try:
        encoder = audio_encoder(EncodedFormat.FLAC, RATE)
        assert not any(encoder.add(second) for _ in range(120))
        parts, size = [], 0
        for part in encoder.end():
            parts.append(len(part))
            size += len(part)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 100 * len(second)
    assert peak < size / 2
    assert max(parts) < size / 10


def test_a_flac_in_parts_is_the_same_samples() -> None:
    pcm = random.Random(2).randbytes(60 * 2 * RATE)
    encoder = audio_encoder(EncodedFormat.FLAC, RATE)
    encoder.add(pcm)
    samples, rate = soundfile.read(io.BytesIO(b"".join(encoder.end())), dtype="int16")
    assert rate == RATE
    assert np.array_equal(samples, np.frombuffer(pcm, dtype=np.int16))

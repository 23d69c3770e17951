"""Encoded audio as it is made."""

import io
import random
import subprocess
import sys

import numpy as np
import soundfile
from service_process import REPOSITORY

from sidecar.audio.codecs import EncodedFormat, audio_encoder

RATE = 24_000


FLAC_OF_NOISE = f"""
import random, tracemalloc, soundfile
from sidecar.audio.codecs import EncodedFormat, audio_encoder
second = random.Random(1).randbytes(2 * {RATE})
tracemalloc.start()
encoder = audio_encoder(EncodedFormat.FLAC, {RATE})
assert not any(encoder.add(second) for _ in range(120))
parts = [len(part) for part in encoder.end()]
print(sum(parts), max(parts), tracemalloc.get_traced_memory()[1])
"""


def test_flac_encoder_takes_less_memory_than_half_its_output_and_gives_small_parts() -> None:
    """Noise, which does not get smaller; in a process in which nothing else allocates."""
    words = [sys.executable, "-c", FLAC_OF_NOISE]
    size, part, peak = map(int, subprocess.check_output(words, cwd=REPOSITORY).split())
    assert size > 100 * 2 * RATE
    assert peak < size / 2
    assert part < size / 10


def test_flac_that_is_given_out_in_parts_decodes_to_the_same_samples_and_rate() -> None:
    pcm = random.Random(2).randbytes(60 * 2 * RATE)
    encoder = audio_encoder(EncodedFormat.FLAC, RATE)
    encoder.add(pcm)
    samples, rate = soundfile.read(io.BytesIO(b"".join(encoder.end())), dtype="int16")
    assert rate == RATE
    assert np.array_equal(samples, np.frombuffer(pcm, dtype=np.int16))

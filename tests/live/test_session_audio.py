"""Audio of a live session at the rate of the detector and at that of the engine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.audio.sample_buffers import session_audio
from sidecar.interfaces.live_options import LIVE_RATE

RATE = 24_000


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("step", [77, 480, 9_000])
def test_engine_gets_the_samples_that_came_and_the_detector_a_tone_of_the_same_seconds(
    step: int,
) -> None:
    audio = session_audio(0, RATE)
    sound = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE).astype(np.float32)
    for at in range(0, len(sound), step):
        audio.push(sound[at : at + step])
    audio.complete()
    assert np.array_equal(audio.for_engine(0, audio.end), sound)
    assert np.array_equal(audio.for_engine(LIVE_RATE, audio.end), sound[RATE:])
    assert audio.end == 2 * LIVE_RATE
    tone = np.sin(2 * np.pi * 440 * np.arange(audio.end) / LIVE_RATE)
    assert np.abs(audio.cut(0, audio.end) - tone)[2_000:-2_000].max() < 0.01


def test_engine_at_the_rate_of_the_detector_has_the_samples_only_once() -> None:
    audio, sound = session_audio(5, LIVE_RATE), noise(1_000)
    audio.push(sound)
    audio.complete()
    assert audio.end == 1_005
    assert np.array_equal(audio.for_engine(5, 1_005), sound)
    assert np.array_equal(audio.cut(5, 1_005), sound)


@given(st.lists(st.integers(0, 3_000), max_size=12), st.integers(0, 500))
def test_stretches_of_any_length_begin_at_the_same_second_of_both_rates(
    lengths: list[int], lead: int
) -> None:
    """At most two samples of silence lie between them, however many there are."""
    audio, sounds = session_audio(2 * lead, RATE), [noise(length) for length in lengths]
    begins, longest = [], 0
    for sound in sounds:
        begins.append(audio.end)
        audio.push(sound)
        audio.complete()
        longest = max(longest, (audio.end - begins[-1]) * RATE // LIVE_RATE - len(sound))
    for begin, sound in zip(begins, sounds, strict=True):
        assert np.array_equal(audio.for_engine(begin, audio.end)[: len(sound)], sound)
    assert 0 <= longest <= 2


def test_silenced_and_dropped_audio_is_so_for_the_engine() -> None:
    audio = session_audio(0, RATE)
    for _ in range(4):
        audio.push(np.ones(RATE, np.float32))
    audio.complete()
    audio.silence(LIVE_RATE, 2 * LIVE_RATE)
    audio.drop(LIVE_RATE)
    assert len(audio.for_engine(0, audio.end)) == 3 * RATE
    assert not audio.for_engine(LIVE_RATE, 2 * LIVE_RATE).any()
    assert audio.for_engine(2 * LIVE_RATE, 3 * LIVE_RATE).all()

"""Bytes of clients → samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.audio.sample_buffers import SampleRingBuffer
from sidecar.interfaces.live_options import LIVE_RATE, SampleEncoding
from sidecar.workers.worker_live_session import SampleInput


def tone(seconds: float, rate: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype("<f4")


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("step", [7, 480, 100_000])
def test_resampled_tone_is_the_same_at_any_rate_and_chunk_size(rate: int, step: int) -> None:
    sound, intake = tone(1.0, rate), SampleInput(LIVE_RATE)
    parts = [
        intake.take(sound[at : at + step].tobytes(), SampleEncoding.FLOAT32, rate)
        for at in range(0, len(sound), step)
    ]
    heard = np.concatenate([*parts, intake.rest()])
    assert len(heard) == pytest.approx(LIVE_RATE, abs=2)
    middle = slice(2000, 14_000)
    assert np.abs(heard[middle] - tone(1.0, LIVE_RATE)[: len(heard)][middle]).max() < 0.01


def test_pcm16_and_float32_give_the_same_samples() -> None:
    floats = tone(0.1, LIVE_RATE)
    shorts = np.round(floats * 32767).astype("<i2")
    one = SampleInput(LIVE_RATE).take(floats.tobytes(), SampleEncoding.FLOAT32, LIVE_RATE)
    other = SampleInput(LIVE_RATE).take(shorts.tobytes(), SampleEncoding.PCM16, LIVE_RATE)
    assert np.abs(one - other).max() < 1e-4


def test_changes_of_sample_rate_lose_at_most_10_samples() -> None:
    intake, parts = SampleInput(LIVE_RATE), []
    for rate in (16_000, 48_000, 8_000, 16_000, 44_100):
        parts.append(intake.take(tone(0.5, rate).tobytes(), SampleEncoding.FLOAT32, rate))
    heard = np.concatenate([*parts, intake.rest()])
    assert len(heard) == pytest.approx(2.5 * LIVE_RATE, abs=10)


def test_samples_at_the_rate_of_the_engine_reach_it_as_they_were_sent() -> None:
    shorts = np.random.default_rng(1).integers(-30_000, 30_000, 24_000).astype("<i2")
    intake = SampleInput(24_000)
    blocks = [
        intake.take(shorts[at : at + 700].tobytes(), SampleEncoding.PCM16, 24_000)
        for at in range(0, len(shorts), 700)
    ]
    assert np.array_equal(np.concatenate([*blocks, intake.rest()]), shorts / np.float32(32768))


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(0, 900), st.integers(0, 900))
def test_ring_buffer_returns_what_it_has_of_a_range(
    lengths: list[int], drop: int, begin: int
) -> None:
    ring = SampleRingBuffer(100)
    for length in lengths:
        ring.append(np.arange(ring.end, ring.end + length, dtype=np.float32))
    ring.drop(drop)
    assert ring.start <= ring.end == 100 + sum(lengths)
    assert ring.start <= max(drop, 100)
    there = [sample for sample in range(begin, begin + 60) if ring.start <= sample < ring.end]
    assert ring.cut(begin, begin + 60).tolist() == there


@given(st.integers(0, 60), st.integers(0, 60))
def test_silenced_range_of_ring_buffer_is_zero_and_the_rest_unchanged(begin: int, end: int) -> None:
    ring, block = SampleRingBuffer(), np.ones(20, np.float32)
    for _ in range(3):
        ring.append(block)
    ring.silence(begin, end)
    expected = [float(not begin <= sample < end) for sample in range(60)]
    assert ring.cut(0, 60).tolist() == expected
    assert block.all(), "blocks are the callers'"


@pytest.mark.parametrize("rate", [8_000, LIVE_RATE, 24_000, 44_100])
def test_resampled_audio_with_its_flushed_rest_is_as_long_as_the_input(rate: int) -> None:
    """And the next one begins anew, at the same rate or another."""
    intake = SampleInput(LIVE_RATE)
    second = (tone(1.0, rate) * 16384).astype("<i2").tobytes()
    for _ in range(2):
        block = intake.take(second, SampleEncoding.PCM16, rate)
        whole = np.concatenate([block, intake.rest()])
        assert len(whole) == LIVE_RATE
        assert whole[4000:12_000].max() == pytest.approx(0.25, abs=0.01)
    assert len(intake.take(bytes(640), SampleEncoding.PCM16, LIVE_RATE)) == 320


VOICE = (0.1 * np.random.default_rng(1).standard_normal(3 * LIVE_RATE)).astype("<f4")


@pytest.mark.parametrize("step", [320, 1600, 16_000])
@pytest.mark.parametrize("offset", [0.2, -0.4])
def test_constant_offset_of_a_microphone_is_removed_within_half_a_second(
    step: int, offset: float
) -> None:
    intake, sound = SampleInput(LIVE_RATE), (VOICE + np.float32(offset))
    blocks = [
        intake.take(sound[at : at + step].tobytes(), SampleEncoding.FLOAT32, LIVE_RATE)
        for at in range(0, len(sound), step)
    ]
    heard = np.concatenate(blocks)[LIVE_RATE // 2 :]
    assert abs(heard.mean()) < 0.05


def test_level_without_any_noise_and_a_single_puff_are_no_offset() -> None:
    intake = SampleInput(LIVE_RATE)
    level, puff = np.full(1600, 0.3, "<f4"), VOICE[:1600] + np.float32(0.3)
    for sound in (level, puff, level, level, VOICE[:1600], level):
        block = intake.take(sound.tobytes(), SampleEncoding.FLOAT32, LIVE_RATE)
        assert np.array_equal(block, sound)


def test_floats_in_the_range_of_integers_are_scaled_from_the_first_ones_on_and_no_others() -> None:
    whole, quiet = np.round(VOICE * 8000).astype("<f4"), np.array([0, 3, -2] * 500, "<f4")
    intake = SampleInput(LIVE_RATE)
    for sound in (quiet, whole, quiet):
        block = intake.take(sound.tobytes(), SampleEncoding.FLOAT32, LIVE_RATE)
        assert np.allclose(block, sound / 32768)
    broken = VOICE.copy()
    broken[7] = 20_000.5
    block = SampleInput(LIVE_RATE).take(broken.tobytes(), SampleEncoding.FLOAT32, LIVE_RATE)
    assert np.array_equal(block[8:], VOICE[8:])
    loud = SampleInput(LIVE_RATE).take((VOICE * 30).tobytes(), SampleEncoding.FLOAT32, LIVE_RATE)
    assert np.array_equal(loud, np.clip(VOICE * 30, -1, 1)), "too loud, as in a file"

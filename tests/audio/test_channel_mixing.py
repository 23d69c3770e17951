"""Mono of several channels: nothing that is on a channel is lost."""

import numpy as np
import pytest

from sidecar.audio.signal_conditioning import ChannelMixer

RATE = 16_000
NOISE = np.random.default_rng(1)
VOICE = (0.1 * NOISE.standard_normal(RATE)).astype(np.float32)
OTHER = (0.1 * NOISE.standard_normal(RATE)).astype(np.float32)
NOTHING = np.zeros(RATE, np.float32)


def mixed(*channels: np.ndarray, block: int = RATE // 2) -> np.ndarray:
    frames = np.stack(channels, axis=1)
    mixer = ChannelMixer(RATE, len(channels))
    return np.concatenate([mixer.mix(frames[at : at + block]) for at in range(0, RATE, block)])


@pytest.mark.parametrize(
    "channels",
    [
        pytest.param((VOICE, VOICE), id="same"),
        pytest.param((VOICE, -VOICE), id="opposite"),
        pytest.param((VOICE, -0.5 * VOICE), id="opposite-and-quieter"),
        pytest.param((VOICE, -VOICE + 0.1 * OTHER), id="nearly-opposite"),
        pytest.param((VOICE, 0.3 - VOICE), id="opposite-with-an-offset"),
        pytest.param((VOICE, NOTHING), id="dead-right"),
        pytest.param((NOTHING, VOICE), id="dead-left"),
        pytest.param((VOICE, -VOICE, VOICE, -VOICE), id="quad"),
        pytest.param((NOTHING, NOTHING, VOICE, NOTHING, NOTHING, -VOICE), id="5.1"),
        pytest.param((VOICE, *([NOTHING] * 31)), id="one-of-32"),
    ],
)
def test_mono_mix_keeps_the_level_of_a_voice_whatever_its_channels_and_polarity(
    channels: tuple[np.ndarray, ...],
) -> None:
    assert np.allclose(np.abs(mixed(*channels)), np.abs(VOICE), atol=1e-6)


def test_mono_mix_of_different_voices_on_two_channels_is_their_mean() -> None:
    assert np.allclose(mixed(VOICE, OTHER), (VOICE + OTHER) / 2, atol=1e-6)


def test_mono_mix_keeps_both_a_voice_in_phase_and_one_in_opposite_phase() -> None:
    found = mixed(0.3 * VOICE + OTHER, 0.3 * VOICE - OTHER)
    assert np.corrcoef(found, OTHER)[0, 1] > 0.9
    assert np.corrcoef(found, VOICE)[0, 1] > 0.2


def test_mono_mix_keeps_the_voice_where_one_channel_suddenly_inverts_its_polarity() -> None:
    turned = VOICE.copy()
    turned[RATE // 4 : RATE * 3 // 4] *= -1
    found = np.isclose(np.abs(mixed(VOICE, turned, block=RATE)), np.abs(VOICE), atol=1e-6)
    assert found.mean() > 0.97, "all but the fades"


def test_channel_that_slowly_inverts_its_polarity_is_mixed_without_a_click() -> None:
    phase = np.sin(np.arange(RATE) / 20).astype(np.float32) / 2
    turning = (phase * np.linspace(1, -1, RATE)).astype(np.float32)
    steps = np.abs(np.diff(mixed(phase, turning)))
    assert steps.max() < 1.2 * np.abs(np.diff(phase)).max()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_channel_of_nan_infinite_or_huge_samples_raises_nothing(value: float) -> None:
    assert len(mixed(VOICE, np.full(RATE, value, np.float32))) == RATE


def test_one_sample_far_above_full_scale_hides_no_channel_in_the_blocks_after_it() -> None:
    broken = NOTHING.copy()
    broken[100] = 1e6
    found = mixed(VOICE, broken)[RATE // 2 :]
    assert np.abs(found).max() > 0.1
    broken += VOICE
    assert np.allclose(mixed(broken, -VOICE)[RATE // 2 :], VOICE[RATE // 2 :], atol=1e-6)


def test_mix_of_a_block_without_frames_is_empty() -> None:
    assert len(ChannelMixer(RATE, 2).mix(np.zeros((0, 2), np.float32))) == 0

"""Mono of several channels: nothing that is on a channel is lost."""

import numpy as np
import pytest

from sidecar.audio.channel_layout import ChannelLayout, masked_layout, named_layout
from sidecar.audio.signal_conditioning import ChannelMixer

RATE = 16_000
NOISE = np.random.default_rng(1)
VOICE = (0.1 * NOISE.standard_normal(RATE)).astype(np.float32)
OTHER = (0.1 * NOISE.standard_normal(RATE)).astype(np.float32)
NOTHING = np.zeros(RATE, np.float32)


def mixed(
    *channels: np.ndarray, block: int = RATE // 2, layout: ChannelLayout | None = None
) -> np.ndarray:
    frames = np.stack(channels, axis=1)
    mixer = ChannelMixer(RATE, layout or ChannelLayout(len(channels)))
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
    assert len(ChannelMixer(RATE, ChannelLayout(2)).mix(np.zeros((0, 2), np.float32))) == 0


@pytest.mark.parametrize(
    ("name", "channels", "centre", "bass"),
    [
        ("mono", 1, None, None),
        ("stereo", 2, None, None),
        ("2.1", 3, None, 2),
        ("3.0", 3, 2, None),
        ("3.0(back)", 3, None, None),
        ("quad(side)", 4, None, None),
        ("4.1", 5, 2, 3),
        ("5.0(side)", 5, 2, None),
        ("5.1", 6, 2, 3),
        ("5.1(side)", 6, 2, 3),
        ("6.0(front)", 6, None, None),
        ("6.1(front)", 7, None, 2),
        ("hexagonal", 6, 2, None),
        ("7.1", 8, 2, 3),
        ("7.1(wide-side)", 8, 2, 3),
        ("5.1.2(back)", 8, 2, 3),
        ("6 channels", 6, 2, 3),
        ("8 channels", 8, 2, 3),
        ("5 channels", 5, None, None),
        ("5 channels (FL+FR+LFE+BL+FC)", 5, 4, 2),
        ("5.1", 2, None, None),
    ],
)
def test_centre_and_bass_of_a_layout_are_where_ffmpeg_puts_them(
    name: str, channels: int, centre: int | None, bass: int | None
) -> None:
    assert named_layout(name, channels) == ChannelLayout(channels, centre, bass)


@pytest.mark.parametrize(
    ("mask", "channels", "centre", "bass"),
    [(0x3F, 6, 2, 3), (0x60F, 6, 2, 3), (0x33, 4, None, None), (0x4, 1, 0, None), (0, 6, 2, 3)],
)
def test_centre_and_bass_of_a_wav_are_where_its_mask_puts_them(
    mask: int, channels: int, centre: int | None, bass: int | None
) -> None:
    assert masked_layout(mask, channels) == ChannelLayout(channels, centre, bass)


def bed(seed: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(RATE)).astype(np.float32)


def share_of(wanted: np.ndarray, found: np.ndarray) -> float:
    """Energy of the one in the other, as a share of all."""
    return float(np.corrcoef(wanted, found)[0, 1] ** 2)


RUMBLE = (0.5 * np.sin(2 * np.pi * 45 * np.arange(RATE) / RATE)).astype(np.float32)


@pytest.mark.parametrize("name", ["5.1", "5.1(side)", "7.1", "6 channels", "8 channels"])
def test_dialogue_of_a_film_is_louder_than_music_in_all_other_channels(name: str) -> None:
    count = 8 if name[0] in "78" else 6
    film = [bed(1), bed(2), VOICE, RUMBLE, *(bed(number) for number in range(4, count))]
    assert share_of(VOICE, mixed(*film)) < 0.25, "by the mean it is drowned"
    assert share_of(VOICE, mixed(*film, layout=named_layout(name, count))) > 0.55


def test_voice_beside_the_centre_of_a_film_is_heard() -> None:
    film = [VOICE, NOTHING, 0.01 * OTHER, RUMBLE, NOTHING, NOTHING]
    assert share_of(VOICE, mixed(*film, layout=named_layout("5.1", 6))) > 0.95


def test_voice_on_the_channel_for_the_bass_is_heard() -> None:
    film = [NOTHING, NOTHING, 0.01 * OTHER, VOICE, NOTHING, NOTHING]
    assert share_of(VOICE, mixed(*film, layout=named_layout("5.1", 6))) > 0.95

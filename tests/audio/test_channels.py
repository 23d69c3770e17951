"""Channels of a recording: each can be decoded for itself, and is compared with the others."""

from pathlib import Path

import numpy as np
import pytest
from recordings import run_ffmpeg, wav

from sidecar.audio.audio_decoder import open_audio, probe_audio
from sidecar.audio.channel_layout import ChannelLayout
from sidecar.audio.channel_survey import ChannelSurvey
from sidecar.audio.selected_channel import SelectedChannel
from sidecar.audio.signal_conditioning import ChannelMix

RATE = 16_000
NOISE = np.random.default_rng(1)
SECONDS = 4


def speech(seconds: float = SECONDS) -> np.ndarray:
    return (0.1 * NOISE.standard_normal(round(seconds * RATE))).astype(np.float32)


VOICE, OTHER = speech(), speech()
NOTHING = np.zeros(SECONDS * RATE, np.float32)


def file_of(folder: Path, *channels: np.ndarray) -> Path:
    path = folder / "channels.wav"
    samples = np.stack(channels, axis=1) * 32767
    path.write_bytes(wav(samples.astype("<i2").tobytes(), channels=len(channels)))
    return path


def decoded(path: Path, channel: SelectedChannel | ChannelSurvey) -> np.ndarray:
    with path.open("rb", buffering=0) as file:
        facts = probe_audio(file.fileno(), 60.0)
        with open_audio(file.fileno(), facts, rate=RATE, max_s=60.0, channel=channel) as audio:
            return np.concatenate(list(audio))


def surveyed(*channels: np.ndarray, block: int = 10_007) -> ChannelSurvey:
    survey = ChannelSurvey(len(channels))
    mixed_by(survey, *channels, block=block)
    return survey


def mixed_by(
    maker: SelectedChannel | ChannelSurvey, *channels: np.ndarray, block: int
) -> np.ndarray:
    mixer, frames = maker(RATE, ChannelLayout(len(channels))), np.stack(channels, axis=1)
    return np.concatenate(
        [mixer.mix(frames[at : at + block]) for at in range(0, len(frames), block)]
    )


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_selected_channel_is_decoded_alone(ending: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, VOICE, OTHER)
    if ending != "wav":
        run_ffmpeg("-i", path, path.with_suffix(f".{ending}"))
    path = path.with_suffix(f".{ending}")
    survey = ChannelSurvey(2)
    decoded(path, survey)
    for number, expected in enumerate((VOICE, OTHER)):
        found = decoded(path, SelectedChannel(number, survey))
        assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_probe_counts_the_channels_of_a_wav_and_of_a_flac(ending: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, VOICE, OTHER, NOTHING)
    run_ffmpeg("-i", path, path.with_suffix(".flac"))
    with path.with_suffix(f".{ending}").open("rb", buffering=0) as file:
        assert probe_audio(file.fileno(), 60.0).channels == 3


def test_equal_or_nearly_equal_channels_are_the_same_and_dead_or_faint_ones_silent() -> None:
    noise = 1e-4 * speech()
    survey = surveyed(VOICE, VOICE + 0.02 * OTHER, OTHER, NOTHING, noise, OTHER)
    assert (survey.same, survey.silent) == ({1: 0, 5: 2}, [3, 4])


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(-VOICE, id="opposite-phase"),
        pytest.param(0.5 * VOICE, id="quieter"),
        pytest.param(-2.0 * VOICE, id="louder"),
        pytest.param(np.roll(VOICE, 1), id="later"),
        pytest.param(np.roll(VOICE, -1), id="earlier"),
        pytest.param(VOICE + 0.1, id="offset"),
    ],
)
def test_channels_of_one_microphone_are_the_same_until_one_has_a_word_of_its_own(
    other: np.ndarray,
) -> None:
    assert surveyed(VOICE, other).same == {1: 0}
    with_word = other.copy()
    with_word[RATE : RATE + RATE // 5] += 0.1 * OTHER[: RATE // 5]
    assert surveyed(VOICE, with_word).same == {}


def test_channels_of_two_speakers_in_turn_with_undelayed_bleed_are_not_the_same() -> None:
    left, right = in_turn()
    assert surveyed(left + 0.5 * right, right + 0.5 * left).same == {}


def test_word_on_one_channel_only_makes_channels_different() -> None:
    with_word = VOICE.copy()
    with_word[RATE : RATE + RATE // 5] += 0.1 * OTHER[: RATE // 5]
    assert surveyed(VOICE, with_word).same == {}


def test_channels_of_silence_are_neither_same_nor_silent() -> None:
    survey = surveyed(NOTHING, NOTHING)
    assert (survey.same, survey.silent) == ({}, [])


def in_turn(seconds: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """Two who speak for three seconds each, with a word of both at once in the last second."""
    each = np.repeat([1.0, 0.0, 1.0, 0.0], 3 * RATE).astype(np.float32)
    both = np.zeros(len(each), np.float32)
    both[-RATE:] = 1.0
    level = 1e-4 * NOISE.standard_normal((2, len(each))).astype(np.float32)
    left, right = speech(seconds), speech(seconds)
    return left * np.maximum(each, both) + level[0], right * (1 - each) + level[1]


def test_faint_bleed_is_silenced_and_a_word_said_over_the_other_speaker_is_kept() -> None:
    left, right = in_turn()
    word = slice(8 * RATE, 9 * RATE)
    right[word] += 0.4 * speech(1.0)
    channels = left, right + 10 ** (-30 / 20) * left
    kept = mixed_by(SelectedChannel(1, surveyed(*channels)), *channels, block=7001)
    assert np.square(kept[RATE : 2 * RATE]).mean() < 1e-9
    assert np.allclose(kept[word], channels[1][word], atol=1e-6)


@pytest.mark.parametrize("bleed_db", [-30, -20, -12])
def test_bleed_of_another_speaker_is_silenced_and_own_speech_stays(bleed_db: float) -> None:
    left, right = in_turn()
    gain, late = 10 ** (bleed_db / 20), 80  # samples from one microphone to the other
    channels = left + gain * np.roll(right, late), right + gain * np.roll(left, late)
    survey = surveyed(*channels)
    found = [mixed_by(SelectedChannel(one, survey), *channels, block=7001) for one in (0, 1)]
    for own, kept, with_bleed, speaks in zip(
        (left, right), found, channels, (slice(0, 3), slice(3, 6)), strict=True
    ):
        at = slice(speaks.start * RATE, speaks.stop * RATE)
        assert np.allclose(kept[at], with_bleed[at], atol=1e-6), "own speech"
        quiet = np.abs(own).reshape(-1, RATE).max(axis=1) < 0.01
        tenths = kept.reshape(-1, RATE)[quiet].reshape(-1, RATE // 10)
        assert len(tenths) >= 50
        assert (np.square(tenths).mean(axis=1) < 1e-9).mean() > 0.6, "all but the ends of turns"
    assert np.allclose(found[0][-RATE // 2 :], channels[0][-RATE // 2 :], atol=1e-6), "both at once"


def test_speech_that_is_quieter_than_another_but_no_bleed_is_kept() -> None:
    loud, quiet = speech(12.0), 0.1 * speech(12.0)
    survey = surveyed(loud, quiet)
    assert np.array_equal(mixed_by(SelectedChannel(1, survey), loud, quiet, block=7001), quiet)


def test_selected_channel_is_silent_in_a_part_of_the_recording_that_lacks_it() -> None:
    mixer = SelectedChannel(1, surveyed(VOICE, OTHER))(RATE, ChannelLayout(1))
    assert not mixer.mix(VOICE[:, np.newaxis]).any()


def test_part_with_the_same_sound_on_both_channels_is_on_the_first_only() -> None:
    """A mono recording joined behind a stereo one, or the jingle of an interview."""
    left, right = (np.concatenate([own, VOICE]) for own in (VOICE, OTHER))
    survey = surveyed(left, right)
    kept = [mixed_by(SelectedChannel(one, survey), left, right, block=7001) for one in (0, 1)]
    assert np.array_equal(kept[0], left)
    assert np.allclose(kept[1][: SECONDS * RATE - RATE // 10], OTHER[: -RATE // 10])
    assert not kept[1][SECONDS * RATE + RATE // 10 :].any()


def test_last_channel_is_averaged_with_the_further_channels_of_a_part_that_has_more() -> None:
    mixer = SelectedChannel(1, surveyed(VOICE, OTHER))(RATE, ChannelLayout(3))
    found = mixer.mix(np.stack((NOTHING, VOICE, OTHER), axis=1))
    assert np.allclose(found, (VOICE + OTHER) / 2, atol=1e-6)


def mixed(*channels: np.ndarray) -> ChannelMix:
    mix = ChannelMix()
    mix(RATE, ChannelLayout(len(channels))).mix(np.stack(channels, axis=1))
    return mix


def test_two_channels_with_speakers_in_turn_have_different_speakers() -> None:
    quiet = 0.01 * speech(2 * SECONDS)
    left = np.concatenate((VOICE, NOTHING)) + quiet
    right = np.concatenate((NOTHING, OTHER)) + quiet
    assert mixed(left, right).different_speakers


@pytest.mark.parametrize(
    "channels",
    [
        pytest.param((VOICE,), id="mono"),
        pytest.param((VOICE, VOICE), id="same"),
        pytest.param((VOICE, NOTHING), id="one-dead"),
        pytest.param((VOICE + OTHER, VOICE - OTHER), id="wide-stereo"),
        pytest.param((VOICE, 0.5 * VOICE), id="off-centre"),
        pytest.param((VOICE, NOTHING, OTHER), id="three"),
        pytest.param((NOTHING, NOTHING), id="silence"),
        pytest.param((np.full(RATE, np.nan, np.float32), VOICE[:RATE]), id="nan"),
    ],
)
def test_mono_alike_dead_wide_stereo_or_three_channels_have_no_different_speakers(
    channels: tuple[np.ndarray, ...],
) -> None:
    assert not mixed(*channels).different_speakers

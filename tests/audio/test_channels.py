"""Channels of a recording: each can be decoded for itself, and is compared with the others."""

from pathlib import Path

import numpy as np
import pytest
from recordings import run_ffmpeg, wav

from sidecar.audio.audio_decoder import open_audio, probe_audio
from sidecar.audio.channels import ChannelMix, SelectedChannel

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


def decoded(path: Path, channel: SelectedChannel | None) -> np.ndarray:
    with path.open("rb", buffering=0) as file:
        facts = probe_audio(file.fileno(), 60.0)
        with open_audio(file.fileno(), facts, rate=RATE, max_s=60.0, channel=channel) as audio:
            return np.concatenate(list(audio))


def selected(number: int, *channels: np.ndarray, count: int | None = None) -> SelectedChannel:
    channel = SelectedChannel(number, count or len(channels))
    mixer = channel(RATE, len(channels))
    frames = np.stack(channels, axis=1)
    for at in range(0, len(frames), 10_000):
        mixer.mix(frames[at : at + 10_000])
    return channel


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_selected_channel_is_decoded_alone(ending: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, VOICE, OTHER)
    if ending != "wav":
        run_ffmpeg("-i", path, path.with_suffix(f".{ending}"))
    path = path.with_suffix(f".{ending}")
    for number, expected in enumerate((VOICE, OTHER)):
        found = decoded(path, SelectedChannel(number, 2))
        assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_probe_counts_channels(ending: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, VOICE, OTHER, NOTHING)
    run_ffmpeg("-i", path, path.with_suffix(".flac"))
    with path.with_suffix(f".{ending}").open("rb", buffering=0) as file:
        assert probe_audio(file.fileno(), 60.0).channels == 3


def test_equal_channels_are_found_the_same_and_dead_ones_silent() -> None:
    noise = 1e-4 * speech()
    found = selected(0, VOICE, VOICE + 0.02 * OTHER, OTHER, NOTHING, noise).comparison
    assert (found.same, found.silent) == ((1,), (3, 4))


def test_word_on_one_channel_only_makes_channels_different() -> None:
    with_word = VOICE.copy()
    with_word[RATE : RATE + RATE // 5] += 0.1 * OTHER[: RATE // 5]
    assert selected(0, VOICE, with_word).comparison.same == ()


def test_channels_of_silence_are_neither_same_nor_silent() -> None:
    found = selected(0, NOTHING, NOTHING).comparison
    assert (found.same, found.silent) == ((), ())


def test_channel_is_compared_with_later_ones_only() -> None:
    assert selected(1, VOICE, OTHER, OTHER).comparison.same == (2,)


def test_part_with_fewer_channels_is_silent_in_the_others() -> None:
    mixer = SelectedChannel(1, 2)(RATE, 1)
    assert not mixer.mix(VOICE[:, np.newaxis]).any()


def test_part_with_more_channels_has_them_in_the_last() -> None:
    mixer = SelectedChannel(1, 2)(RATE, 3)
    found = mixer.mix(np.stack((NOTHING, VOICE, OTHER), axis=1))
    assert np.allclose(found, (VOICE + OTHER) / 2, atol=1e-6)


def mixed(*channels: np.ndarray) -> ChannelMix:
    mix = ChannelMix()
    mix(RATE, len(channels)).mix(np.stack(channels, axis=1))
    return mix


def test_speakers_in_turn_on_two_channels_are_different() -> None:
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
def test_other_channels_have_no_different_speakers(channels: tuple[np.ndarray, ...]) -> None:
    assert not mixed(*channels).different_speakers

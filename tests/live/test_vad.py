"""The detector says what the model says in onnxruntime, alone and for many at once."""

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
from threadpoolctl import threadpool_info
from wheel_recordings import clip

from sidecar.audio import Block
from sidecar.checkpoints import onnx_models
from sidecar.checkpoints.onnx_models import find_embedded_models
from sidecar.errors import LiveUnavailable
from sidecar.interfaces.live_options import LIVE_RATE, QUIET_SPEECH, EndpointingOptions
from sidecar.live.runtime.endpointing import (
    FRAME_SAMPLES,
    Endpointer,
    EndpointEvent,
    UtteranceBegan,
    UtteranceEnded,
)
from sidecar.live.runtime.live_scheduler import has_speech
from sidecar.live.runtime.vad import SILERO_MODEL, SileroVad, VadState, load_vad


@pytest.fixture(scope="module")
def detector() -> SileroVad:
    return load_vad()


@pytest.fixture(scope="module")
def streams() -> Block:
    """Three streams of 4 s, in frames (3, 125, 512): two people, a reader, and some noise; each
    begins with a crack, behind which nothing is amplified."""
    noise = np.random.default_rng(1).normal(0, 0.05, 4 * LIVE_RATE).astype(np.float32)
    sounds = (clip("endgame_nagg_nell"), clip("two_cities"), noise)
    found = np.stack([sound[: 4 * LIVE_RATE].reshape(-1, FRAME_SAMPLES) for sound in sounds])
    found[:, 0, ::2] = 0.5
    return found


@pytest.fixture(scope="module")
def expected(streams: Block) -> npt.NDArray[np.float32]:
    """What the model itself says of them, in onnxruntime: (3, 125)."""
    session = onnx_models.create_session(
        find_embedded_models((SILERO_MODEL,))[SILERO_MODEL], onnx_models.session_options()
    )
    state, before = np.zeros((2, 3, 128), np.float32), np.zeros((3, 64), np.float32)
    said, rate = [], np.array(LIVE_RATE, np.int64)
    for frames in streams.swapaxes(0, 1):
        sound = np.concatenate([before, frames], axis=1)
        probability, state = session.run(None, {"input": sound, "state": state, "sr": rate})
        said.append(probability[:, 0])
        before = frames[:, -64:]
    return np.stack(said, axis=1)


def test_vad_probabilities_equal_those_of_onnxruntime_alone_and_in_a_batch(
    detector: SileroVad, streams: Block, expected: Block
) -> None:
    assert expected.max() > 0.99
    assert expected.min() < 0.01
    states = [VadState() for _ in streams]
    together = np.stack(
        [detector.probabilities(frames, states) for frames in streams.swapaxes(0, 1)], axis=1
    )
    assert together == pytest.approx(expected, abs=1e-5)
    state = VadState()
    alone = [detector.probabilities(frame[None], [state])[0] for frame in streams[1]]
    assert alone == pytest.approx(expected[1], abs=1e-5)


def test_vad_streams_that_join_and_leave_a_batch_keep_their_probabilities(
    detector: SileroVad, streams: Block
) -> None:
    whole, broken = VadState(), VadState()
    for number, frame in enumerate(streams[0, :60]):
        (expected,) = detector.probabilities(frame[None], [whole])
        company = list(streams[1:, number])[: number % 3]
        frames = np.stack([*company, frame])
        said = detector.probabilities(frames, [*(VadState() for _ in company), broken])
        assert said[-1] == pytest.approx(expected, abs=1e-5)
    assert detector.probabilities(np.zeros((0, FRAME_SAMPLES), np.float32), []).shape == (0,)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 3e38])
def test_vad_frame_with_nan_infinite_or_huge_sample_is_silence_and_resets_its_stream_alone(
    detector: SileroVad, streams: Block, expected: Block, broken: float
) -> None:
    good, bad, fresh = VadState(), VadState(), VadState()
    spoiled = streams[1, 1].copy()
    spoiled[100] = broken
    detector.probabilities(streams[:2, 0], [good, bad])
    beside = detector.probabilities(np.stack([streams[0, 1], spoiled]), [good, bad])
    assert beside[1] == 0
    for frames in streams[[0, 1, 1], 2:20].swapaxes(0, 1):
        said = detector.probabilities(frames, [good, bad, fresh])
        assert said[1] == pytest.approx(said[2], abs=1e-6)
    assert said[0] == pytest.approx(expected[0, 19], abs=1e-5)


def test_matrix_products_of_numpy_use_one_thread_once_the_vad_is_loaded(
    detector: SileroVad,
) -> None:
    assert detector
    numpys = [pool for pool in threadpool_info() if "numpy" in pool["filepath"]]
    assert [pool["num_threads"] for pool in numpys] == [1] * len(numpys)


def test_vad_frames_of_another_length_or_number_than_the_states_are_refused(
    detector: SileroVad,
) -> None:
    with pytest.raises(ValueError, match="512"):
        detector.probabilities(np.zeros((1, FRAME_SAMPLES - 1), np.float32), [VadState()])
    with pytest.raises(ValueError, match="each state"):
        detector.probabilities(np.zeros((2, FRAME_SAMPLES), np.float32), [VadState()])


@pytest.mark.parametrize("gain", [0.01, 0.003])
@pytest.mark.parametrize("settings", [EndpointingOptions(), QUIET_SPEECH])
def test_speech_of_a_quiet_microphone_is_found_as_usual_and_no_noise(
    detector: SileroVad, gain: float, settings: EndpointingOptions
) -> None:
    speech = clip("beckett")[: 9 * LIVE_RATE]
    usual = found_s(detector, speech, settings)
    assert found_s(detector, gain * speech, settings) > 0.9 * usual
    noise = np.random.default_rng(0).normal(scale=gain, size=len(speech)).astype(np.float32)
    for nothing in (0 * speech, noise):
        assert found_s(detector, nothing, settings) == 0.0


def test_speech_of_a_quiet_microphone_is_found_behind_the_crack_of_its_plug(
    detector: SileroVad,
) -> None:
    speech = 0.003 * clip("beckett")[: 9 * LIVE_RATE]
    crack = np.concatenate([np.full(100, 0.9, np.float32), pause(1)])
    usual = found_s(detector, speech, EndpointingOptions())
    behind = found_s(detector, np.concatenate([crack, speech]), EndpointingOptions())
    assert behind > 0.9 * usual


def noises() -> dict[str, Block]:
    """Return 3 s of each noise for which recognizers invent words, with peaks of 1."""
    random, n = np.random.default_rng(0), 3 * LIVE_RATE
    spectrum = np.fft.rfft(random.normal(size=n))
    bins = np.maximum(1, np.arange(len(spectrum)))
    seconds = np.arange(n) / LIVE_RATE
    found = {
        "white": np.fft.irfft(spectrum, n),
        "pink": np.fft.irfft(spectrum / bins**0.5, n),
        "brown": np.fft.irfft(spectrum / bins, n),
        "hum": np.sin(2 * np.pi * 50 * seconds),
        "clicks": (np.arange(n) % 8000 == 0).astype(float),
        "nothing": np.zeros(n),
    }
    return {
        name: (one / max(1.0, np.abs(one).max())).astype(np.float32) for name, one in found.items()
    }


@pytest.mark.parametrize("gain", [1.0, 0.01, 0.0001])
def test_speech_is_distinguished_from_noise_at_every_loudness(
    detector: SileroVad, gain: float
) -> None:
    clicks = noises()["clicks"]
    for name in ("beckett", "endgame_nagg_nell", "two_cities"):
        speech = gain * clip(name)[2 * LIVE_RATE : 5 * LIVE_RATE]
        assert has_speech(detector, speech)
        assert has_speech(detector, speech + clicks)
        assert has_speech(detector, np.concatenate([noises()["white"], speech]))
        assert has_speech(detector, np.concatenate([np.zeros(5 * LIVE_RATE, np.float32), speech]))
    assert [name for name, one in noises().items() if has_speech(detector, gain * one)] == []
    assert not has_speech(detector, speech[:0])


def tone(seconds: float, *frequencies: float) -> Block:
    """Return a signal of one or two frequencies."""
    at = np.arange(round(seconds * LIVE_RATE)) / LIVE_RATE
    waves = [np.sin(2 * np.pi * one * at) for one in frequencies]
    return (0.3 / len(frequencies) * sum(waves)).astype(np.float32)


def pause(seconds: float) -> Block:
    return np.zeros(round(seconds * LIVE_RATE), np.float32)


KEYS = [(697, 1209), (770, 1336), (852, 1477), (941, 1336), (852, 1209), (770, 1336)]
SIGNALS = {
    "ringback": [tone(1, 425), pause(4), tone(1, 425)],
    "american ringback": [tone(2, 440, 480), pause(1), tone(2, 440, 480)],
    "british ringback": [tone(0.4, 400, 450), pause(0.2), tone(0.4, 400, 450), pause(2)] * 2,
    "busy": [tone(0.48, 425), pause(0.48)] * 6,
    "american busy": [tone(0.5, 480, 620), pause(0.5)] * 6,
    "dial tone": [tone(4, 350, 440)],
    "calling fax": [tone(0.5, 1100), pause(3), tone(0.5, 1100)],
    "answering fax": [tone(3, 2100)],
    "number unobtainable": [tone(0.33, 950), tone(0.33, 1400), tone(0.33, 1800), pause(1)] * 3,
    "keys": [part for key in KEYS for part in (tone(0.1, *key), pause(0.1))],
    "long keys": [part for key in KEYS for part in (tone(0.25, *key), pause(0.15))],
    "beep": [pause(1), tone(1, 1000), pause(1)],
}


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_signals_of_a_telephone_are_no_speech_wherever_they_are_cut(
    detector: SileroVad, signal: str, noise: float
) -> None:
    random = np.random.default_rng(2)
    sound = np.concatenate(SIGNALS[signal])
    sound += random.normal(0, noise, len(sound)).astype(np.float32)
    for begin in random.integers(0, len(sound) // 2, 10):
        cut = sound[begin : begin + random.integers(len(sound) // 2)]
        assert not has_speech(detector, cut), (begin, len(cut))


def test_speech_behind_a_signal_of_a_telephone_is_speech(detector: SileroVad) -> None:
    ring = np.concatenate(SIGNALS["ringback"])
    for gain in (1.0, 0.03):
        assert has_speech(detector, np.concatenate([ring, gain * clip("beckett")[: 3 * LIVE_RATE]]))


def found_s(detector: SileroVad, sound: Block, settings: EndpointingOptions) -> float:
    """Return the seconds of the utterances in a sound."""
    state, ends, events = VadState(), Endpointer(settings), list[EndpointEvent]()
    for at in range(0, len(sound) - FRAME_SAMPLES + 1, FRAME_SAMPLES):
        (one,) = detector.probabilities(sound[None, at : at + FRAME_SAMPLES], [state])
        events += ends.feed(float(one))
    events += ends.stop("finish")
    signs = {UtteranceBegan: -1, UtteranceEnded: 1}
    return sum(signs.get(type(one), 0) * one.at for one in events) / LIVE_RATE


def test_missing_vad_model_is_an_error_that_says_why() -> None:
    other = dataclasses.replace(SILERO_MODEL, digest="of another release")
    with pytest.raises(LiveUnavailable, match="lacks the voice activity detector"):
        load_vad(other)

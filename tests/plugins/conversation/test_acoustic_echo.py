"""Acoustic evidence for an echo, by real speech: what a room makes of a reply, and people."""

import tracemalloc

import echo_rooms
import numpy as np
import pytest
import soxr
from echo_rooms import RATE, Samples, pcm16

from sidecar.interfaces.engine_interface import SynthesizedAudio
from sidecar.interfaces.live_options import SampleEncoding
from sidecar.plugins.conversation import acoustic_echo as acoustic_echo_detection
from sidecar.plugins.conversation.acoustic_echo import (
    HISTORY_S,
    MAX_CLOCK_LEAD_S,
    MAX_RATES,
    MERGED_SPAN_S,
    EchoDetector,
    band_envelopes,
    echo_similarity,
)
from sidecar.plugins.conversation.barge_in import ECHO_SIMILARITY, OWN_WORDS_ECHO_SIMILARITY

TIMES = 24


@pytest.fixture(scope="module")
def speech() -> Samples:
    """Eight seconds of it without a pause in between."""
    return echo_rooms.voices()["two_cities"][2 * RATE : 10 * RATE]


def shares(scene: echo_rooms.Scene, seconds: float) -> tuple[float, float]:
    """How often that is an echo where its words are the reply's, and with any words."""
    found = np.array(list(echo_rooms.measured(scene, seconds, TIMES)))
    return float(np.mean(found >= OWN_WORDS_ECHO_SIMILARITY)), float(
        np.mean(found >= ECHO_SIMILARITY)
    )


@pytest.mark.slow_except("0.5", "1.0")
@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0])
def test_most_echoes_from_near_and_from_far_away_are_detected_by_their_audio(
    seconds: float,
) -> None:
    assert shares(echo_rooms.ECHO, seconds)[0] > 0.9
    assert shares(echo_rooms.FAR, seconds)[0] > 0.6


@pytest.mark.slow_except("0.5", "1.0")
@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0])
def test_person_alone_or_over_an_echo_as_loud_is_hardly_ever_taken_for_an_echo(
    seconds: float,
) -> None:
    own_words, any_words = shares(echo_rooms.PERSON, seconds)
    assert own_words < 0.1, "of two dozen one may be, with the answer's words besides"
    assert any_words == 0.0
    assert shares(echo_rooms.LOUDER, seconds)[1] == 0.0
    assert shares(echo_rooms.EQUAL, seconds)[1] < 0.1


def played(speech: Samples, seconds: float = 8.0) -> EchoDetector:
    """So much of a reply was played from 0 on."""
    evidence = EchoDetector()
    evidence.emit(1, SynthesizedAudio(pcm16(speech), RATE))
    evidence.play(1, seconds, seconds)
    return evidence


def test_utterance_of_a_long_echo_and_then_a_persons_word_is_no_echo(speech: Samples) -> None:
    evidence = played(speech, 3.0)
    _, word = echo_rooms.some(
        np.random.default_rng(1), echo_rooms.voices()["endgame_nagg_nell"], 0.5
    )
    heard = pcm16(np.concatenate([speech[: 3 * RATE] * 0.5, word]))
    evidence.hear(heard, SampleEncoding.PCM16, RATE, 3.5)
    assert (echo_rooms.compared(evidence, 0.0, 3.0, 3.0) or 0.0) > ECHO_SIMILARITY
    assert (echo_rooms.compared(evidence, 0.0, 3.5, 3.5) or 0.0) < OWN_WORDS_ECHO_SIMILARITY


@pytest.mark.parametrize("lag", [-MAX_CLOCK_LEAD_S, 0.0, 0.4, 0.75])
@pytest.mark.parametrize("rate", [8_000, 24_000])
def test_echo_is_detected_at_any_lag_and_sample_rate(
    speech: Samples, lag: float, rate: int
) -> None:
    places = np.arange(4 * RATE, 5 * RATE) - round(lag * RATE)
    at = np.interp(np.arange(0, RATE, RATE / rate), np.arange(RATE), speech[places])
    evidence = played(speech)
    evidence.hear(at.astype("<f4").tobytes(), SampleEncoding.FLOAT32, rate, 5.0)
    assert (echo_rooms.compared(evidence, 4.0, 5.0, 5.0) or 0.0) > OWN_WORDS_ECHO_SIMILARITY


@pytest.mark.parametrize("switched", ["microphone", "voice"])
def test_echo_is_detected_across_a_change_of_sample_rate(speech: Samples, switched: str) -> None:
    evidence, half = EchoDetector(), RATE // 2
    halves = [speech[2 * RATE : 3 * RATE], speech[3 * RATE : 4 * RATE]]
    thin = np.interp(np.arange(0, RATE, 2), np.arange(RATE), halves[1])
    for turn, sound in enumerate(halves, 1):
        rate, late = (half, thin) if turn == 2 else (RATE, sound)
        out = (late, rate) if switched == "voice" else (sound, RATE)
        heard = (late, rate) if switched == "microphone" else (sound, RATE)
        evidence.emit(turn, SynthesizedAudio(pcm16(out[0]), out[1]))
        evidence.play(turn, 1.0, float(turn))
        evidence.hear(pcm16(heard[0]), SampleEncoding.PCM16, heard[1], float(turn))
    for start in (0.0, 0.5, 1.0):
        assert (echo_rooms.compared(evidence, start, start + 1, start + 1) or 0.0) > ECHO_SIMILARITY


def test_microphone_audio_of_forty_sample_rates_is_compared_only_at_the_newest_few(
    speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def noting(samples: Samples, rate: int) -> acoustic_echo_detection.Envelopes:
        looked.append(rate)
        return band_envelopes(samples, rate)

    monkeypatch.setattr(acoustic_echo_detection, "band_envelopes", noting)
    evidence, rates = played(speech), [16_000 + 7 * number for number in range(40)]
    for at, rate in enumerate(rates, 1):
        evidence.hear(bytes(2 * (rate // 10)), SampleEncoding.PCM16, rate, at / 10)
    echo_rooms.compared(evidence, 0.0, 4.0, 4.0)
    assert looked == [*rates[-1 : -MAX_RATES - 1 : -1], RATE], "then the one that was played"


def test_echo_similarity_is_none_without_playback_or_with_too_little_speech(
    speech: Samples,
) -> None:
    evidence = EchoDetector()
    evidence.hear(pcm16(speech), SampleEncoding.PCM16, RATE, 8.0)
    assert echo_rooms.compared(evidence, 1.0, 2.0, 2.0) is None
    evidence = played(speech, 3.0)
    evidence.hear(pcm16(speech), SampleEncoding.PCM16, RATE, 8.0)
    assert echo_rooms.compared(evidence, 1.0, 1.3, 1.3) is None
    assert echo_rooms.compared(evidence, 6.0, 7.0, 7.0) is None
    assert (echo_rooms.compared(evidence, 1.0, 2.0, 2.0) or 0.0) > ECHO_SIMILARITY


def test_audio_of_nan_or_constant_level_or_1_khz_has_no_echo_similarity(speech: Samples) -> None:
    evidence = played(speech, 3.0)
    wrong = np.full(3 * RATE, np.nan, "<f4")
    evidence.hear(wrong.tobytes(), SampleEncoding.FLOAT32, RATE, 3.0)
    assert not echo_rooms.compared(evidence, 0.0, 3.0, 3.0)
    assert echo_similarity(np.ones((50, 48), np.float32), np.ones((150, 48), np.float32)) == 0.0
    assert len(band_envelopes(np.ones(1000, np.int16), 1000)) == 0


def test_playback_report_that_goes_back_adds_no_audio_twice(speech: Samples) -> None:
    evidence = EchoDetector()
    evidence.emit(1, SynthesizedAudio(pcm16(speech), RATE))
    for now, seconds in ((1.0, 1.0), (1.1, 0.9), (2.0, 2.0), (2.1, 2.0), (3.0, 3.0)):
        evidence.play(1, seconds, now)
    evidence.play(2, 1.0, 3.1)  # of another turn nothing is there
    evidence.hear(pcm16(speech[: 3 * RATE]), SampleEncoding.PCM16, RATE, 3.0)
    assert (echo_rooms.compared(evidence, 0.2, 2.8, 2.8) or 0.0) > ECHO_SIMILARITY


@pytest.mark.parametrize("rate", [44_100, 48_000, 192_000])
def test_envelopes_at_a_high_sample_rate_are_similar_to_those_at_the_usual_one(
    speech: Samples, rate: int
) -> None:
    high = pcm16(soxr.resample(speech, RATE, rate))
    looked = band_envelopes(np.frombuffer(high, "<i2"), rate)
    usual = band_envelopes(np.frombuffer(pcm16(speech), "<i2"), RATE)
    assert abs(len(looked) - len(usual)) <= 2
    second = usual[100:200]
    assert echo_similarity(second, looked[80:220]) > 0.95


def test_memory_of_band_envelopes_does_not_grow_with_the_sample_rate() -> None:
    def most(rate: int) -> int:
        tracemalloc.start()
        band_envelopes(np.zeros(4 * rate, np.int16), rate)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert most(192_000) < 2 * most(16_000)


def test_stored_microphone_audio_is_bounded_however_small_the_messages() -> None:
    evidence, at = EchoDetector(), 0.0
    for number in range(round(30 * RATE / 16)):  # messages of a millisecond, and empty ones
        at += 0.001
        evidence.hear(bytes(32 if number % 2 else 0), SampleEncoding.PCM16, RATE, at)
    pieces = evidence.recorded
    assert pieces[-1].end - pieces[0].start <= HISTORY_S + 1
    assert len(pieces) <= 2 * (HISTORY_S + 1) / MERGED_SPAN_S


def test_comparison_of_an_endless_utterance_takes_bounded_memory(speech: Samples) -> None:
    def most(seconds: float) -> int:
        """Bytes that it takes to compare an utterance so long."""
        tracemalloc.start()
        echo_rooms.compared(evidence, 0.0, seconds, seconds)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    evidence = played(speech)
    most(HISTORY_S)
    assert most(8 * HISTORY_S) < 2 * most(HISTORY_S)


def test_utterance_that_began_with_words_is_no_echo_after_their_audio_is_dropped(
    speech: Samples,
) -> None:
    evidence, seconds = played(np.tile(speech, 2), 16.0), round(HISTORY_S) + 3
    _, words = echo_rooms.some(
        np.random.default_rng(1), echo_rooms.voices()["endgame_nagg_nell"], 2.0
    )
    heard = np.concatenate([words, np.tile(speech, 2)[len(words) :]])
    for at in range(seconds):
        evidence.hear(
            pcm16(heard[at * RATE : (at + 1) * RATE]), SampleEncoding.PCM16, RATE, at + 1.0
        )
        assert (
            echo_rooms.compared(evidence, 0.0, at + 1.0, at + 1.0) or 0.0
        ) < OWN_WORDS_ECHO_SIMILARITY
    assert (echo_rooms.compared(evidence, 5.0, seconds, seconds) or 0.0) > ECHO_SIMILARITY

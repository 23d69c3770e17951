"""Moonshine and Whisper in one engine: which of them transcribes, and what a client sees of it."""

import re

import numpy as np
import pytest
import tiny_whisper
import whisper_base
from engine_requests import SampleStream, request_of, transcript_of
from espeak_speech import GERMAN, spoken
from tiny_whisper import PROSE
from wheel_recordings import RATE, clip

from sidecar.audio import Block
from sidecar.engines.moonshine import MoonshineEngine
from sidecar.engines.moonshine_whisper import HeldAudio, MoonshineWhisperEngine
from sidecar.engines.whisper import WhisperEngine
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    Precision,
    TranscribeOptions,
)
from sidecar.transcripts.transcript import Transcript, TranscriptionEvent

pytest.importorskip("faster_whisper", reason="the extra 'whisper'")


def loaded(engine: MoonshineEngine | MoonshineWhisperEngine, **options: object) -> None:
    for _ in engine.load(LoadOptions(**options)):
        pass


@pytest.fixture(scope="module")
def engine() -> MoonshineWhisperEngine:
    """With a Whisper that knows two clips: in fp32, as int8 has other sums on each processor."""
    engine = MoonshineWhisperEngine()
    loaded(engine, precision=Precision.FP32, checkpoint=str(tiny_whisper.model()), device="cpu")
    return engine


@pytest.fixture(scope="module")
def german() -> Block:
    return spoken(GERMAN, "de")


def events_of(
    engine: MoonshineEngine | MoonshineWhisperEngine, samples: Block, language: str = "auto"
) -> list[TranscriptionEvent]:
    options = TranscribeOptions(language=language)
    return [*engine.transcribe(request_of(SampleStream(samples, RATE), options))]


def found(
    engine: MoonshineEngine | MoonshineWhisperEngine, samples: Block, language: str = "auto"
) -> Transcript:
    return transcript_of(events_of(engine, samples, language))


def test_english_recording_has_the_events_of_moonshine_alone_and_loads_no_whisper(
    engine: MoonshineWhisperEngine,
) -> None:
    alone, fresh = MoonshineEngine(), MoonshineWhisperEngine()
    loaded(alone)
    loaded(fresh, checkpoint="no such folder")
    samples = clip("endgame_nagg_nell")
    assert events_of(fresh, samples) == events_of(alone, samples)


def test_recording_in_another_language_is_transcribed_by_whisper_from_its_beginning(
    engine: MoonshineWhisperEngine, german: Block
) -> None:
    alone = WhisperEngine()
    for _ in alone.load(LoadOptions(Precision.FP32, str(tiny_whisper.model()), "cpu")):
        pass
    samples = SampleStream(german, RATE)
    assert events_of(engine, german) == [*alone.transcribe(request_of(samples))]


def test_requested_language_selects_moonshine_or_whisper_and_english_for_german_speech_warns(
    engine: MoonshineWhisperEngine, german: Block
) -> None:
    prose = clip("beckett")
    assert found(engine, prose, "de").engine == "whisper"
    assert " ".join(one.text for one in found(engine, prose, "de").segments) == tiny_whisper.text(
        PROSE
    )
    doubtful = found(engine, german, "en-GB")
    assert doubtful.engine == "moonshine"
    (warning,) = doubtful.notices
    assert warning.code == "language_doubtful"
    assert "language=de" in warning.message
    assert "pip" not in warning.message


def test_part_in_german_behind_english_is_told_with_its_begin(
    engine: MoonshineWhisperEngine, german: Block
) -> None:
    english = clip("two_cities")
    (warning,) = found(engine, np.concatenate([english, german, german]), "auto").notices
    assert warning.code == "language_doubtful"
    minutes, seconds = re.search(r"from (\d+):(\d\d)", warning.message).groups()  # type: ignore[union-attr]
    assert int(minutes) * 60 + int(seconds) == pytest.approx(len(english) / RATE, abs=5.0)
    assert found(engine, english).notices == ()


def test_short_recording_in_another_language_is_transcribed_by_whisper(
    engine: MoonshineWhisperEngine,
) -> None:
    assert found(engine, spoken("God morgon allihopa.", "sv")).engine == "whisper"


def test_german_recording_after_40_s_of_silence_is_transcribed_by_whisper_with_times_behind_it(
    engine: MoonshineWhisperEngine, german: Block
) -> None:
    silence = np.zeros(40 * RATE, np.float32)
    late = found(engine, np.concatenate([silence, german]))
    assert late.engine == "whisper"
    assert all(segment.start > 39 for segment in late.segments)


def test_held_audio_is_read_again_from_its_beginning_and_no_more_is_held_after_release() -> None:
    samples = np.arange(5 * RATE, dtype=np.float32)
    audio = HeldAudio(SampleStream(samples, RATE, block=RATE))
    begun = iter(audio)
    first = [next(begun), next(begun)]
    assert audio.held_s == 2
    begun.close()  # type: ignore[attr-defined]
    again = audio.again()
    assert again.total_s == 5
    assert np.array_equal(np.concatenate([*again]), samples)
    assert np.array_equal(np.concatenate(first), samples[: 2 * RATE])
    other = HeldAudio(SampleStream(samples, RATE, block=RATE))
    begun = iter(other)
    next(begun)
    other.release()
    next(begun)
    assert other.held_s == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("voice", "text", "word"),
    [
        ("de", GERMAN, "sonne"),
        ("it", "Buongiorno a tutti. Ci vediamo domani alle nove davanti alla stazione.", "domani"),
        (
            "es",
            "Buenos días a todos. Hoy vamos a hablar del tiempo en el norte de España.",
            "norte",
        ),
    ],
)
def test_recording_in_german_italian_or_spanish_is_transcribed_in_it_by_published_whisper(
    voice: str, text: str, word: str
) -> None:
    both = MoonshineWhisperEngine()
    loaded(both, checkpoint=str(whisper_base.model()), device="cpu")
    transcript = found(both, spoken(text, voice))
    assert (transcript.engine, transcript.language) == ("whisper", voice)
    assert word in " ".join(one.text for one in transcript.segments).casefold()

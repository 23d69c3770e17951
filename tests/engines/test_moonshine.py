"""The embedded engine on real audio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from moonshine_voice import get_assets_path

from sidecar.audio import Block
from sidecar.audio.decode import decode_file
from sidecar.engine import Diarization, LoadOptions, TranscribeOptions
from sidecar.engines import moonshine
from sidecar.engines.moonshine import listener
from sidecar.engines.moonshine.recent import RecentAudio
from sidecar.engines.moonshine.recognizer import quietest
from sidecar.transcript import Finished, Progress, SegmentReady, Transcript

ASSETS = Path(get_assets_path())
RATE = moonshine.SAMPLE_RATE


class Recorded:
    """An array as an audio stream, in blocks of uneven length."""

    def __init__(self, samples: Block) -> None:
        self._samples = samples
        self.total_s: float | None = len(samples) / RATE

    def __iter__(self) -> Iterator[Block]:
        for start in range(0, len(self._samples), 37_123):
            yield self._samples[start : start + 37_123]


@pytest.fixture(scope="module")
def engine() -> Iterator[moonshine.MoonshineEngine]:
    engine = moonshine.MoonshineEngine()
    list(engine.load(LoadOptions()))
    yield engine
    engine.unload()


@pytest.fixture(scope="module")
def endgame() -> Block:
    return decode_file(ASSETS / "endgame_nagg_nell.wav", RATE)


def transcript(
    engine: moonshine.MoonshineEngine, samples: Block, options: TranscribeOptions | None = None
) -> Transcript:
    *_, last = engine.transcribe(Recorded(samples), options or TranscribeOptions(), lambda: False)
    assert isinstance(last, Finished)
    return last.transcript


def test_two_people_are_told_apart_and_understood(
    engine: moonshine.MoonshineEngine, endgame: Block
) -> None:
    found = transcript(engine, endgame)
    speakers = {segment.text: segment.speaker for segment in found.segments}
    assert found.num_speakers == 2
    assert speakers["Do you hear me?"] == 0
    assert speakers["Yes."] == 1
    assert "ditch" in found.text


@pytest.mark.parametrize("diarize", [True, False])
@pytest.mark.parametrize("seconds", [0.01, 1, 40])
def test_silence_gives_no_segments(
    engine: moonshine.MoonshineEngine, seconds: float, diarize: bool
) -> None:
    silence = np.zeros(int(seconds * RATE), np.float32)
    found = transcript(engine, silence, TranscribeOptions(diarize=diarize))
    assert found.segments == ()
    assert found.num_speakers == 0
    assert found.duration == pytest.approx(seconds, abs=0.001)


def test_what_came_before_does_not_change_a_transcript(
    engine: moonshine.MoonshineEngine, endgame: Block
) -> None:
    options = TranscribeOptions(diarize=False)
    first = transcript(engine, endgame, options)
    noise = np.random.default_rng(0).normal(0, 0.3, 10 * RATE).astype(np.float32)
    for before in (noise, decode_file(ASSETS / "two_cities.wav", RATE), endgame):
        transcript(engine, before, options)
        assert transcript(engine, endgame, options) == first


def test_speakers_keep_their_numbers_across_windows(
    engine: moonshine.MoonshineEngine, endgame: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "WINDOW_S", 28.0)
    pause = np.zeros(RATE, np.float32)
    found = transcript(engine, np.concatenate([endgame, pause] * 2))
    assert found.num_speakers == 2
    by_text: dict[str, set[int | None]] = {}
    for segment in found.segments:
        by_text.setdefault(segment.text, set()).add(segment.speaker)
    said_twice = "Do you remember the day I went and fetched you from that ditch?"
    assert len(by_text[said_twice]) == 1
    assert by_text["Do you hear me?"] == {0}


def test_speech_without_a_pause_is_neither_cut_in_a_word_nor_said_twice(
    engine: moonshine.MoonshineEngine,
) -> None:
    samples = decode_file(ASSETS / "two_cities.wav", RATE)
    found = transcript(engine, samples, TranscribeOptions(diarize=False))
    assert found.text.lower().count("best of times") == 1
    assert found.text.lower().count("winter of despair") == 1
    for before, after in zip(found.segments, found.segments[1:], strict=False):
        assert after.start >= before.end
        assert before.end - before.start <= moonshine.transcription.LONGEST_LINE_S + 0.1


def test_segments_are_announced_while_the_audio_is_still_coming_in(
    engine: moonshine.MoonshineEngine, endgame: Block
) -> None:
    done_at_first = None
    done = 0.0
    for event in engine.transcribe(Recorded(endgame), TranscribeOptions(), lambda: False):
        if isinstance(event, Progress):
            done = event.audio_s_done
        if isinstance(event, SegmentReady) and done_at_first is None:
            done_at_first = done
    assert done_at_first is not None
    assert done_at_first < 6


@pytest.mark.parametrize(
    ("effort", "length_s", "cadence_s"),
    [
        (Diarization.BALANCED, 5, 1.25),
        (Diarization.BALANCED, 145, 1.6),
        (Diarization.BALANCED, 300, 3.2),
        (Diarization.BALANCED, 600, 4.0),
        (Diarization.FAST, 5, 2.0),
        (Diarization.FAST, 600, 5.0),
        (Diarization.ACCURATE, 5, 1.0),
        (Diarization.ACCURATE, 600, 1.0),
    ],
)
def test_a_short_window_is_looked_at_more_often_than_a_long_one(
    effort: Diarization, length_s: float, cadence_s: float
) -> None:
    assert listener.cadence(effort, length_s) == cadence_s


def test_the_quietest_moment_is_found() -> None:
    audio = np.full(4 * RATE, 0.5, np.float32)
    audio[int(2.9 * RATE) : int(3.1 * RATE)] = 0.01
    assert quietest(audio, 2.0, 4.0) == pytest.approx(3.0, abs=0.1)
    assert quietest(audio[: RATE // 50], 0.0, 0.02) == 0.02


def test_recent_audio_gives_back_what_it_has_not_forgotten() -> None:
    audio = RecentAudio(10)
    for start in range(0, 100, 7):
        audio.append(np.arange(start, min(start + 7, 100), dtype=np.float32))
    assert audio.end_s == 10
    assert audio.between(2.0, 4.5).tolist() == list(range(20, 45))
    audio.forget(5.0)
    assert audio.between(5.0, 12.0).tolist() == list(range(50, 100))
    assert len(audio.between(0.0, 4.0)) == 0

"""The embedded engine on real audio."""

from __future__ import annotations

import json
import shutil
import subprocess
from bisect import bisect
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from engine_requests import SampleStream, request_of, transcript_of
from live_client import LiveClient
from moonshine_voice import get_assets_path
from not_tested import missing
from service_process import PATIENCE_S

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.audio.loudness import AudioHistoryBuffer
from sidecar.diarization import speaker_models
from sidecar.diarization.diarizer import Diarizer
from sidecar.engines import moonshine
from sidecar.engines.moonshine import MoonshineEngine, moonshine_transcription
from sidecar.engines.moonshine.moonshine_recognizer import MoonshineHypothesis, MoonshineRecognizer
from sidecar.interfaces.engine_interface import LoadOptions, TranscribeOptions
from sidecar.interfaces.live_events import LiveEvent, NoticeRaised
from sidecar.interfaces.live_options import LiveOptions
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import (
    WORDS_BY_ATTENTION,
    Checkpoint,
    Progress,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
    from_wire,
    to_wire,
)

ASSETS = Path(get_assets_path())
RATE = moonshine.SPEC.sample_rate


@pytest.fixture(scope="module")
def engine() -> MoonshineEngine:
    engine = MoonshineEngine()
    list(engine.load(LoadOptions()))
    return engine


@pytest.fixture(scope="module")
def endgame() -> Block:
    return decode_audio_file(ASSETS / "endgame_nagg_nell.wav", RATE)


def transcript(
    engine: MoonshineEngine, samples: Block, options: TranscribeOptions | None = None
) -> Transcript:
    return transcript_of(engine.transcribe(request_of(SampleStream(samples, RATE), options)))


@pytest.fixture(scope="module")
def found_in_endgame(engine: MoonshineEngine, endgame: Block) -> Transcript:
    """Heard once for all: the same recording has the same transcript."""
    return transcript(engine, endgame)


@pytest.fixture(scope="module")
def backwards(endgame: Block) -> Block:
    """Speech in no language, and a pause."""
    return np.ascontiguousarray(np.concatenate([endgame[::-1], np.zeros(8 * RATE, np.float32)]))


@pytest.fixture(scope="module")
def events_of_backwards(engine: MoonshineEngine, backwards: Block) -> list[TranscriptionEvent]:
    """All that the engine tells of it."""
    return list(engine.transcribe_from([], request_of(SampleStream(backwards, RATE))))


GERMAN = (
    "Die Sitzung beginnt um neun Uhr im großen Saal im zweiten Stock. Bitte bringen Sie den "
    "Bericht vom letzten Monat mit und sagen Sie mir, ob Sie kommen können."
)
ENGLISH = (
    "The meeting begins at nine o'clock in the large room on the second floor. Please bring the "
    "report of last month and tell me whether you can come."
)


def warnings(found: Transcript) -> list[str]:
    return [notice.code for notice in found.notices]


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason=missing("espeak-ng", "espeak-ng"))
@pytest.mark.parametrize(
    ("voice", "text", "expected"),
    [("de", GERMAN, ["language_doubtful"]), ("en-gb", ENGLISH, []), ("en-us", ENGLISH, [])],
    ids=["de", "en-gb", "en-us"],
)
def test_other_language_of_espeak_is_warned_of_and_english_is_not(
    engine: MoonshineEngine, tmp_path: Path, voice: str, text: str, expected: list[str]
) -> None:
    spoken = tmp_path / "spoken.wav"
    subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "-w", spoken, text], check=True)
    found = transcript(engine, decode_audio_file(spoken, RATE))
    assert found.text
    assert warnings(found) == expected


def test_reversed_speech_has_language_warning_with_advice(
    events_of_backwards: list[TranscriptionEvent], found_in_endgame: Transcript
) -> None:
    found = transcript_of(events_of_backwards)
    assert found.text
    assert warnings(found) == ["language_doubtful"]
    (warning,) = found.notices
    assert "pull whisper:small" in warning.message
    assert "vibevoice-asr open --engine whisper" in warning.message
    assert warnings(found_in_endgame) == []


def test_language_warning_is_kept_in_checkpoint(
    engine: MoonshineEngine,
    backwards: Block,
    events_of_backwards: list[TranscriptionEvent],
) -> None:
    settled = [
        from_wire(json.loads(json.dumps(to_wire(one))))
        for one in events_of_backwards
        if isinstance(one, Checkpoint)
    ]
    assert settled
    again = engine.transcribe_from(settled, request_of(SampleStream(backwards, RATE)))
    assert warnings(transcript_of(again)) == ["language_doubtful"]


def test_two_speakers_are_separated_and_recognized(found_in_endgame: Transcript) -> None:
    found = found_in_endgame
    speakers = {segment.text: segment.speaker for segment in found.segments}
    assert found.num_speakers == 2
    assert speakers["Do you hear me?"] == 0
    assert speakers["Yes."] == 1
    assert "ditch" in found.text


FLOOR = (0.0, 1.5, 2.4, 3.9, 4.8, 8.7, 12.0, 14.6, 17.6, 19.4, 20.4, 22.4, 23.7, 28.0)
"""When Nagg, Nell, Nagg and so on begin to speak in the clip, seconds."""


def live(
    engine: MoonshineEngine, samples: Block, **options: bool
) -> tuple[list[LiveEvent], Transcript]:
    """What a session tells of all that is said in it, and its transcript."""
    client = LiveClient(engine, LiveOptions(partials=False, patience_s=PATIENCE_S, **options))
    client.session.push(samples)
    client.end()
    return client.told, client.transcript


@pytest.mark.slow
def test_two_live_speakers_are_separated(engine: MoonshineEngine, endgame: Block) -> None:
    _, found = live(engine, endgame, words=True)
    assert found.diarized
    assert found.num_speakers == 2
    right_s = all_s = 0.0
    for segment in found.segments:
        for word in segment.words:
            all_s += word.end - word.start
            speaks = (bisect(FLOOR, (word.start + word.end) / 2) - 1) % 2
            right_s += (word.end - word.start) * (segment.speaker == speaks)
    assert right_s >= 0.8 * all_s > 5.0


@pytest.mark.parametrize(("step", "expected"), [(-1, ["language_doubtful"]), (1, [])])
def test_reversed_live_speech_has_one_notice_and_warning_in_summary(
    engine: MoonshineEngine, endgame: Block, step: int, expected: list[str]
) -> None:
    told, found = live(engine, np.ascontiguousarray(endgame[::step]), diarize=False)
    assert [one.notice.code for one in told if isinstance(one, NoticeRaised)] == expected
    assert warnings(found) == expected


@pytest.mark.slow_except("[1-", "[0.01")
@pytest.mark.parametrize("diarize", [True, False])
@pytest.mark.parametrize("seconds", [0.01, 1, 40])
def test_silence_gives_no_segments(engine: MoonshineEngine, seconds: float, diarize: bool) -> None:
    silence = np.zeros(int(seconds * RATE), np.float32)
    found = transcript(engine, silence, TranscribeOptions(diarize=diarize))
    assert found.segments == ()
    assert found.num_speakers == 0
    assert found.duration == pytest.approx(seconds, abs=0.001)


@pytest.mark.slow
def test_early_settled_segments_are_those_of_whole_recording(
    engine: MoonshineEngine, endgame: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times the same two people; the sound of what is 15 s old is gone."""
    pause = np.zeros(RATE, np.float32)
    thrice = np.concatenate([endgame, pause] * 3)
    whole = transcript(engine, thrice)
    monkeypatch.setattr(moonshine_transcription, "REVISION_WINDOW_S", 15.0)
    early = transcript(engine, thrice)
    assert whole.num_speakers == early.num_speakers == 2
    same = set(whole.segments) & set(early.segments)
    assert len(same) >= 0.8 * len(whole.segments)
    by_text: dict[str, set[int | None]] = {}
    for segment in early.segments:
        by_text.setdefault(segment.text, set()).add(segment.speaker)
    assert by_text["Do you hear me?"] == {0}


@pytest.mark.slow
def test_audio_of_settled_segments_is_dropped(
    engine: MoonshineEngine, endgame: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moonshine_transcription, "REVISION_WINDOW_S", 15.0)
    kept: list[float] = []
    forget = AudioHistoryBuffer.forget

    def watched(audio: AudioHistoryBuffer, before_s: float) -> None:
        forget(audio, before_s)
        kept.append(audio.end_s - before_s)

    monkeypatch.setattr(AudioHistoryBuffer, "forget", watched)
    transcript(engine, np.concatenate([endgame] * 4))
    talking, kept[:] = max(kept[:-1]), []
    transcript(engine, np.zeros(120 * RATE, np.float32))
    assert (talking < 75.0, max(kept[:-1]) < 75.0) == (True, True)


def test_speech_without_pause_is_cut_between_words_without_repeats(
    engine: MoonshineEngine,
) -> None:
    samples = decode_audio_file(ASSETS / "two_cities.wav", RATE)
    found = transcript(engine, samples, TranscribeOptions(diarize=False))
    assert found.text.lower().count("best of times") == 1
    assert found.text.lower().count("winter of despair") == 1
    for before, after in zip(found.segments, found.segments[1:], strict=False):
        assert after.start >= before.end
        assert before.end - before.start <= moonshine_transcription.MAX_UTTERANCE_S + 0.1


def test_segments_are_in_order_of_time_also_with_speech_beside_a_long_utterance() -> None:
    turns = [SpeakerTurn(0.0, 30.0, 0), SpeakerTurn(5.0, 7.0, 1), SpeakerTurn(20.0, 22.0, 1)]
    feeding = SimpleNamespace(feed=len, finish=list, turns=turns, told_s=9.0, windows=0)
    saying = SimpleNamespace(hear=lambda *_, **__: MoonshineHypothesis("some words"))
    work = moonshine_transcription.MoonshineTranscription(
        cast(MoonshineRecognizer, saying),
        cast(Diarizer, feeding),
        request_of(SampleStream(np.zeros(30 * RATE, np.float32), RATE)),
    )
    for _ in work.events():
        pass
    starts = [one.start for one in work.segments]
    assert len(starts) == 6
    assert starts == sorted(starts)
    assert {5.0, 20.0} < set(starts)


def test_first_segment_comes_within_10_s_of_audio(engine: MoonshineEngine, endgame: Block) -> None:
    given_s = 0.0

    class Live(SampleStream):
        def __iter__(self) -> Iterator[Block]:
            nonlocal given_s
            for block in super().__iter__():
                given_s += len(block) / RATE
                yield block

    sentence = endgame[round(4.6 * RATE) : round(8.3 * RATE)]
    sound = np.concatenate([sentence, np.zeros(RATE, np.float32), endgame, endgame])
    events = engine.transcribe(request_of(Live(sound, RATE)))
    next(event for event in events if isinstance(event, SegmentReady))
    assert given_s <= 10 + 37_123 / RATE


def test_unavailable_speaker_models_fail_load_with_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> None:
        raise speaker_models.SpeakerModelsUnavailable("another wheel")

    monkeypatch.setattr(speaker_models, "load_models", unavailable)
    with pytest.raises(errors.ModelLoadFailed, match="another wheel") as refused:
        list(MoonshineEngine().load(LoadOptions()))
    assert "moonshine-voice==" in refused.value.hint


def test_audio_history_returns_what_was_not_dropped() -> None:
    audio = AudioHistoryBuffer(10)
    for start in range(0, 100, 7):
        audio.append(np.arange(start, min(start + 7, 100), dtype=np.float32))
    assert audio.end_s == 10
    assert audio.between(2.0, 4.5).tolist() == list(range(20, 45))
    audio.forget(5.0)
    assert audio.between(5.0, 12.0).tolist() == list(range(50, 100))
    assert len(audio.between(0.0, 4.0)) == 0


@pytest.mark.slow
def test_transcription_resumed_from_checkpoint_has_same_transcript(
    engine: MoonshineEngine, endgame: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute of two people, most of it settled."""
    monkeypatch.setattr(moonshine_transcription, "REVISION_WINDOW_S", 15.0)
    monkeypatch.setattr(moonshine, "CHECKPOINT_INTERVAL_S", 8.0)
    play = request_of(SampleStream(np.tile(endgame, 2), RATE), TranscribeOptions(words=True))
    whole = list(engine.transcribe_from((), play))
    checkpoints = [event for event in whole if isinstance(event, Checkpoint)]
    assert len(checkpoints) >= 5
    assert max(later.audio_s - one.audio_s for one, later in pairwise(checkpoints)) <= 10.0
    settled = [from_wire(json.loads(json.dumps(to_wire(one)))) for one in checkpoints[:-1]]
    known = sum(len(one.segments) for one in checkpoints[:-1])
    again = list(engine.transcribe_from(settled, play))  # type: ignore[arg-type]
    assert again[-1] == whole[-1]
    segments = transcript_of(again).segments
    assert {one.words_by for one in segments} == {WORDS_BY_ATTENTION}
    for segment in segments:
        edges = [edge for word in segment.words for edge in (word.start, word.end)]
        assert edges == sorted(edges)
        assert segment.start <= edges[0] <= edges[-1] <= segment.end
    done = [event.audio_s_done for event in again if isinstance(event, Progress)]
    assert done[0] > checkpoints[-2].audio_s, "it was heard again"
    ready = [event.index for event in again if isinstance(event, SegmentReady)]
    assert known > 0
    assert ready == [*range(known, known + len(ready))]

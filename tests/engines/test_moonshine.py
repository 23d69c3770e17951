"""The embedded engine on real audio."""

import json
import shutil
import subprocess
from bisect import bisect
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count, pairwise
from math import inf
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from engine_requests import SampleStream, request_of, transcript_of
from hypothesis import example, given
from hypothesis import strategies as st
from live_client import LiveClient
from moonshine_voice import get_assets_path
from not_tested import missing
from service_process import PATIENCE_S, REPOSITORY, wait_until

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.audio.sample_buffers import AudioHistoryBuffer
from sidecar.diarization import speaker_models
from sidecar.diarization.diarizer import Diarizer
from sidecar.engines import moonshine, utterance_transcription
from sidecar.engines.moonshine import MoonshineEngine
from sidecar.interfaces.engine_interface import LoadOptions, TranscribeOptions, TranscriptionRequest
from sidecar.interfaces.live_events import Final, LiveEvent, NoticeRaised
from sidecar.interfaces.live_options import LiveOptions
from sidecar.interfaces.recognition import RecognitionHypothesis
from sidecar.live.runtime.endpointing import FRAME_SAMPLES
from sidecar.live.runtime.segment_embeddings import SegmentEmbeddings
from sidecar.transcripts.speaker_turns import SpeakerTurn, merged_spans
from sidecar.transcripts.transcript import (
    WORDS_BY_ATTENTION,
    Finished,
    Progress,
    ResumePoint,
    Segment,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
    Word,
    from_wire,
    to_wire,
)
from sidecar.transcripts.word_alignment import align_words
from sidecar.transcripts.word_timing import estimate_word_times

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
    """Heard once for all, with words: the same recording has the same transcript."""
    return transcript(engine, endgame, TranscribeOptions(words=True))


@pytest.fixture(scope="module")
def backwards(endgame: Block) -> Block:
    """Speech in no language, and a pause."""
    play = endgame[: 16 * RATE][::-1]
    return np.ascontiguousarray(np.concatenate([play, np.zeros(8 * RATE, np.float32)]))


@pytest.fixture(scope="module")
def events_of_backwards(engine: MoonshineEngine, backwards: Block) -> list[TranscriptionEvent]:
    """All that the engine tells of it, with words."""
    return list(engine.transcribe_from([], spoken(backwards)))


def spoken(samples: Block) -> TranscriptionRequest:
    return request_of(SampleStream(samples, RATE), TranscribeOptions(words=True))


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
@pytest.mark.slow_except("de")
@pytest.mark.parametrize(
    ("voice", "text", "expected"),
    [("de", GERMAN, ["language_doubtful"]), ("en-gb", ENGLISH, []), ("en-us", ENGLISH, [])],
    ids=["de", "en-gb", "en-us"],
)
def test_german_speech_has_a_language_warning_and_english_has_none(
    engine: MoonshineEngine, tmp_path: Path, voice: str, text: str, expected: list[str]
) -> None:
    spoken = tmp_path / "spoken.wav"
    subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "-w", spoken, text], check=True)
    found = transcript(engine, decode_audio_file(spoken, RATE))
    assert found.text
    assert warnings(found) == expected


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason=missing("espeak-ng", "espeak-ng"))
def test_misheard_names_are_recognized_as_hotwords_and_unsaid_hotwords_are_not_written(
    engine: MoonshineEngine, tmp_path: Path
) -> None:
    spoken, text = tmp_path / "spoken.wav", "The ship sailed from Valparaiso to Honolulu."
    subprocess.run(["espeak-ng", "-v", "en-gb", "-s", "150", "-w", spoken, text], check=True)
    sound = decode_audio_file(spoken, RATE)
    hotwords = ("Kubernetes", "Valparaiso", "Zbigniew", "Honolulu")
    unhelped = transcript(engine, sound).text
    helped = transcript(engine, sound, TranscribeOptions(hotwords=hotwords, words=True))
    assert [name for name in hotwords if name in unhelped] == []
    assert [name for name in hotwords if name in helped.text] == ["Valparaiso", "Honolulu"]
    assert helped.segments[0].words
    assert " ".join(word.text for word in helped.segments[0].words) == helped.text


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason=missing("espeak-ng", "espeak-ng"))
def test_hotwords_of_a_live_session_are_in_its_transcript(
    engine: MoonshineEngine, tmp_path: Path
) -> None:
    spoken, text = tmp_path / "spoken.wav", "The ship sailed from Valparaiso to Honolulu."
    subprocess.run(["espeak-ng", "-v", "en-gb", "-s", "150", "-w", spoken, text], check=True)
    client = LiveClient(engine, LiveOptions(hotwords=("Valparaiso", "Honolulu"), diarize=False))
    for _ in client.say(decode_audio_file(spoken, RATE), RATE // 10):
        pass
    found = client.end().transcript.text
    assert "Valparaiso" in found
    assert "Honolulu" in found


def test_reversed_speech_has_language_warning_with_advice(
    events_of_backwards: list[TranscriptionEvent], found_in_endgame: Transcript
) -> None:
    found = transcript_of(events_of_backwards)
    assert found.text
    assert warnings(found) == ["language_doubtful"]
    (warning,) = found.notices
    assert "pip install -e '.[languages]'" in warning.message
    assert warnings(found_in_endgame) == []


def test_language_warning_is_kept_in_resume_points(
    engine: MoonshineEngine, backwards: Block, events_of_backwards: list[TranscriptionEvent]
) -> None:
    resume_points_read = [
        from_wire(json.loads(json.dumps(to_wire(one))))
        for one in events_of_backwards
        if isinstance(one, ResumePoint)
    ]
    assert resume_points_read
    *_, last = engine.transcribe_from(resume_points_read, spoken(backwards))
    assert isinstance(last, Finished)
    assert warnings(last.transcript) == ["language_doubtful"]


def test_two_speakers_are_separated_and_recognized(found_in_endgame: Transcript) -> None:
    found = found_in_endgame
    speakers = {segment.text: segment.speaker for segment in found.segments}
    assert found.num_speakers == 2
    assert speakers["Do you hear me?"] == 0
    assert speakers["Yes."] == 1
    assert "ditch" in found.text


def test_confidence_of_speech_is_above_that_of_reversed_speech(
    found_in_endgame: Transcript, events_of_backwards: list[TranscriptionEvent]
) -> None:
    known, reversed_ = found_in_endgame.segments, transcript_of(events_of_backwards).segments
    assert {one.language for one in known} == {"en"}
    no_speech = [one.no_speech_probability for one in known if one.no_speech_probability]
    assert len(no_speech) == len(known), "of each segment"
    assert 0.0 < min(no_speech) < np.median(no_speech) < 0.2
    for segment in known:
        sure = [word.confidence or 0.0 for word in segment.words]
        assert 0.0 < min(sure) <= (segment.confidence or 0.0) + 0.05
    assert np.median([one.confidence for one in known]) > 0.7  # type: ignore[type-var]
    assert np.median([one.confidence for one in reversed_]) < 0.55  # type: ignore[type-var]


def noise(size: int, steepness: float) -> Block:
    """Noise of a mean square of 1, whose power falls by the frequency to this power."""
    spectrum = np.fft.rfft(np.random.default_rng(7).standard_normal(size))
    found = np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** (steepness / 2), size)
    return (found / found.std()).astype(np.float32)


@pytest.mark.parametrize("steepness", [0, 1], ids=["white", "pink"])
def test_short_words_14_db_over_the_noise_are_speech_and_noise_alone_is_none(
    engine: MoonshineEngine, endgame: Block, found_in_endgame: Transcript, steepness: float
) -> None:
    words = [word for one in found_in_endgame.segments for word in one.words]
    short = [one for one in words if 0.25 < one.end - one.start < 0.6][:8]
    sound = noise(3 * RATE * (len(short) + 1), steepness) * 10 ** (-14 / 20)
    assert transcript(engine, sound).no_speech
    for at_s, word in zip(count(3, 3), short):
        spoken_word = endgame[round(word.start * RATE) : round(word.end * RATE)]
        sound[at_s * RATE :][: len(spoken_word)] += spoken_word / spoken_word.std()
    found = transcript(engine, sound / 10)
    heard = [
        at
        for at in range(3, 3 * len(short) + 1, 3)
        if any(one.start < at + 1 and at < one.end for one in found.segments)
    ]
    assert not found.no_speech
    assert len(heard) > len(short) / 2


FLOOR = (0.0, 1.5, 2.4, 3.9, 4.8, 8.7, 12.0, 14.6, 17.6, 19.4, 20.4, 22.4, 23.7, 28.0)
"""When Nagg, Nell, Nagg and so on begin to speak in the clip, seconds."""


def embeddings_of(client: LiveClient) -> SegmentEmbeddings:
    found = client.session.recognizer.segment_embeddings
    assert found is not None
    return found


def live(
    engine: MoonshineEngine, samples: Block, **options: bool
) -> tuple[list[LiveEvent], Transcript]:
    """What a session tells of all that is said in it, and its transcript. It is said as fast as
    segments get their embeddings: of many that wait the oldest are dropped."""
    client = LiveClient(engine, LiveOptions(partials=False, patience_s=PATIENCE_S, **options))
    for at in range(0, len(samples), 4 * RATE):
        client.session.push(samples[at : at + 4 * RATE])
        wait_until(lambda: client.session.backlog_s < FRAME_SAMPLES / RATE, "it is heard")
        wait_until(lambda: not embeddings_of(client).waiting, "its speakers are told apart")
    client.end()
    return client.told, client.transcript


@pytest.mark.slow
def test_two_live_speakers_are_separated_for_80_percent_of_the_time_of_their_words(
    engine: MoonshineEngine, endgame: Block
) -> None:
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


def test_live_speech_of_two_people_without_a_pause_has_a_final_of_each(
    engine: MoonshineEngine, endgame: Block
) -> None:
    nell, nagg = endgame[int(12.2 * RATE) : int(14.4 * RATE)], endgame[int(14.8 * RATE) : 17 * RATE]
    sound = np.concatenate([nell, nagg, np.zeros(RATE, np.float32)])
    told, found = live(engine, sound)
    finals = [one.segment for one in told if isinstance(one, Final)]
    assert [one.speaker for one in found.segments] == [0, 1]
    assert [one.text for one in found.segments] == [one.text for one in finals]
    assert finals[0].end == finals[1].start == pytest.approx(2.2, abs=0.4)


@pytest.mark.slow_except("[-1")
@pytest.mark.parametrize(("step", "expected"), [(-1, ["language_doubtful"]), (1, [])])
def test_reversed_live_speech_has_one_language_notice_and_warning_and_plain_speech_none(
    engine: MoonshineEngine, endgame: Block, step: int, expected: list[str]
) -> None:
    sound = np.ascontiguousarray(endgame[: 15 * RATE][::step])
    told, found = live(engine, sound, diarize=False)
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


def words_of(segments: Iterable[Segment]) -> list[str]:
    return [word for segment in segments for word in segment.text.split()]


def check_stream(events: Iterable[TranscriptionEvent]) -> Transcript:
    """The transcript, which has the words that came before it, in the same order: that of time."""
    told = list(events)
    ready = [event for event in told if isinstance(event, SegmentReady)]
    found = transcript_of(told)
    assert [event.index for event in ready] == [*range(len(ready))]
    assert words_of(event.segment for event in ready) == words_of(found.segments)
    for segments in ([event.segment for event in ready], found.segments):
        starts = [segment.start for segment in segments]
        assert starts == sorted(starts)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("late_s", [4.0, 9.5])
def test_streamed_segments_have_the_words_of_the_transcript_of_overlapping_speech(
    engine: MoonshineEngine, endgame: Block, late_s: float
) -> None:
    """Two people who talk to each other, and another talk of theirs that begins later."""
    other = np.roll(endgame, round(late_s * RATE))
    other[: round(late_s * RATE)] = 0.0
    sound = np.concatenate([endgame + 0.7 * other, endgame[: 8 * RATE]]).astype(np.float32)
    found = check_stream(engine.transcribe(request_of(SampleStream(sound, RATE))))
    assert len(words_of(found.segments)) > 60


@pytest.mark.slow
@pytest.mark.parametrize("name", ["panel_4spk.flac", "ami_trn04_3spk.opus", "katiesteve_2spk.m4a"])
def test_streamed_segments_have_the_words_of_the_transcript_of_a_real_recording(
    engine: MoonshineEngine, name: str
) -> None:
    if not (path := REPOSITORY.parent / "shared/audio" / name).exists():
        pytest.skip("../shared/audio is not there")
    check_stream(engine.transcribe(request_of(SampleStream(decode_audio_file(path, RATE), RATE))))


@pytest.mark.slow
def test_at_most_75_s_of_audio_is_kept_in_memory_in_speech_and_in_silence(
    engine: MoonshineEngine, endgame: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_speech_without_pause_is_cut_into_segments_of_limited_length_without_repeats(
    engine: MoonshineEngine,
) -> None:
    samples = decode_audio_file(ASSETS / "two_cities.wav", RATE)
    found = transcript(engine, samples, TranscribeOptions(diarize=False))
    assert found.text.lower().count("best of times") == 1
    assert found.text.lower().count("winter of despair") == 1
    for before, after in zip(found.segments, found.segments[1:], strict=False):
        assert after.start >= before.end
        assert before.end - before.start <= utterance_transcription.MAX_UTTERANCE_S + 0.1


LONGEST_S = 60
turns = st.tuples(st.integers(0, LONGEST_S - 1), st.integers(1, 30), st.integers(0, 2))


class RevisedDiarizer:
    """A diarizer that takes all speakers for one before ``revised_s``, and hears 10 s behind."""

    windows = 0
    recent_windows = ()

    def __init__(self, turns: list[tuple[int, int, int]], revised_s: int) -> None:
        self._turns, self._revised_s, self._end_s = turns, revised_s, 0.0

    def feed(self, block: Block) -> None:
        self._end_s += len(block) / RATE

    def finish(self) -> None:
        self._end_s, self._revised_s = inf, 0

    @property
    def final_s(self) -> float:
        return max(0.0, self._end_s - 10)

    @property
    def turns(self) -> list[SpeakerTurn]:
        revised = self._end_s >= self._revised_s
        return [
            SpeakerTurn(start, min(end, self._end_s), label)
            for label in range(3)
            for start, end in merged_spans(
                (start, min(LONGEST_S, start + length))
                for start, length, speaker in self._turns
                if (speaker if revised else 0) == label
            )
            if start < self._end_s
        ]


@pytest.mark.parametrize("border", [5.0, 6.0, 7.0, 8.0])
def test_short_answer_right_behind_a_recognized_question_is_recognized(border: float) -> None:
    """Up to what is final the pause behind the question is long enough, that behind the answer is
    not: the question is recognized first."""

    class Question(RevisedDiarizer):
        @property
        def final_s(self) -> float:
            return inf if self._end_s == inf else min(self._end_s, border + 0.8)

        @property
        def turns(self) -> list[SpeakerTurn]:
            return [SpeakerTurn(1.0, border, 0), SpeakerTurn(border, border + 0.45, 1)]

    heard: list[tuple[float, float]] = []

    def hear(audio: Block, *_: object) -> RecognitionHypothesis:
        heard.append((float(audio[0]), float(audio[-1])))
        return RecognitionHypothesis("words")

    work = utterance_transcription.UtteranceTranscription(
        hear,
        cast(Diarizer, Question([], 0)),
        None,
        request_of(SampleStream(np.arange(20 * RATE, dtype=np.float32) / np.float32(RATE), RATE)),
        moonshine.SPEC,
    )
    list(work.events())
    assert [start <= border + 0.2 <= end for start, end in heard] == [False, True]


@given(turns=st.lists(turns, max_size=8), revised_s=st.integers(0, LONGEST_S))
@example(turns=[(0, 30, 0), (5, 2, 1), (20, 2, 1)], revised_s=0)
@example(turns=[(0, 30, 0), (25, 30, 1)], revised_s=40)
def test_revised_speakers_change_no_word_and_no_order(
    turns: list[tuple[int, int, int]], revised_s: int
) -> None:
    """The recognizer hears each second as a word, which the sound has as its level."""

    def hear(audio: Block, *_: object) -> RecognitionHypothesis:
        words = tuple(
            Word(at / RATE, (at + RATE // 4) / RATE, f"{audio[at]:.0f}")
            for at in range(0, len(audio), RATE // 2)
        )
        return RecognitionHypothesis(" ".join(word.text for word in words), words=words)

    sound = np.repeat(np.arange(LONGEST_S, dtype=np.float32), RATE)
    work = utterance_transcription.UtteranceTranscription(
        hear,
        cast(Diarizer, RevisedDiarizer(turns, revised_s)),
        None,  # a VAD hears no speech in such a sound, and takes half a second for that
        request_of(SampleStream(sound, RATE)),
        moonshine.SPEC,
    )
    ready = [event.segment for event in work.events() if isinstance(event, SegmentReady)]
    found = work.segments
    assert words_of(ready) == words_of(found)
    assert [one.start for one in found] == sorted(one.start for one in found)
    spoken = {second for start, length, _ in turns for second in range(start, start + length)}
    assert {*map(str, spoken & {*range(LONGEST_S)})} <= {*words_of(found)}


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


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason=missing("espeak-ng", "espeak-ng"))
@pytest.mark.slow_except("window-True", "turns-False", "end-False")
@pytest.mark.parametrize("diarize", [True, False])
@pytest.mark.parametrize(
    ("loud_s", "quiet_s", "quiet_db"),
    [({0.0: (4.6, 5.8), 15.0: (0.0, 10.0)}, 2.6, -30), ({0.0: (0.0, 20.0)}, 21.0, -36),
     ({0.0: (0.0, 20.0), 25.0: (0.0, 10.0)}, 21.0, -36)],
    ids=["hidden-by-a-shout-in-the-first-window", "in-no-turn-at-the-end", "between-two-turns"],
)  # fmt: skip
def test_quiet_speech_beside_or_after_loud_speech_is_recognized(
    engine: MoonshineEngine, endgame: Block, tmp_path: Path, *, diarize: bool,
    loud_s: dict[float, tuple[float, float]], quiet_s: float, quiet_db: float,
) -> None:  # fmt: skip
    spoken, text = tmp_path / "spoken.wav", "Please bring the report of last month with you."
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "150", "-w", spoken, text], check=True)
    parts = {at: endgame[round(a * RATE) : round(b * RATE)] for at, (a, b) in loud_s.items()}
    parts[0.0] = parts[0.0] * (2 if quiet_s < 10 else 1)
    parts[quiet_s] = decode_audio_file(spoken, RATE) * 10 ** (quiet_db / 20)
    end = max(round(at * RATE) + len(part) for at, part in parts.items())
    sound = np.zeros(end + RATE, np.float32)
    for at, part in parts.items():
        sound[round(at * RATE) :][: len(part)] += part
    found = transcript(engine, sound, TranscribeOptions(diarize=diarize))
    assert "report" in found.text.lower()
    assert [one.start for one in found.segments] == sorted(one.start for one in found.segments)


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


def test_aligned_word_times_are_nearer_to_attention_times_than_evenly_spread_ones(
    found_in_endgame: Transcript, endgame: Block
) -> None:
    known = found_in_endgame.segments
    bare = [replace(one, words=(), words_by="") for one in known]

    def distance_s(guessed: list[Segment]) -> float:
        pairs = zip(known, guessed, strict=True)
        words = ((one.words, other.words) for one, other in pairs)
        starts = [abs(a.start - b.start) for one in words for a, b in zip(*one, strict=True)]
        return float(np.median(starts))

    aligned = distance_s([align_words(one, endgame, RATE) for one in bare])
    assert aligned < 0.1
    assert aligned < distance_s([estimate_word_times(one) for one in bare])


@pytest.mark.slow
def test_transcription_from_resume_points_has_the_same_transcript_and_continues_its_numbers(
    engine: MoonshineEngine, endgame: Block
) -> None:
    """Two minutes of two people."""
    play = spoken(np.tile(endgame, 4))
    whole = list(engine.transcribe_from((), play))
    resume_points = [event for event in whole if isinstance(event, ResumePoint)]
    assert len(resume_points) >= 5
    assert max(later.audio_s - one.audio_s for one, later in pairwise(resume_points)) <= 22.0
    resume_points_read = [
        from_wire(json.loads(json.dumps(to_wire(one)))) for one in resume_points[:-1]
    ]
    known = [one for point in resume_points[:-1] for one in point.segments]
    again = list(engine.transcribe_from(resume_points_read, play))  # type: ignore[arg-type]
    assert again[-1] == whole[-1]
    assert to_wire(again[-1]) == to_wire(whole[-1]), "with the confidences"
    segments = transcript_of([*map(SegmentReady, count(), known), *again]).segments
    assert {one.words_by for one in segments} == {WORDS_BY_ATTENTION}
    for segment in segments:
        edges = [edge for word in segment.words for edge in (word.start, word.end)]
        assert edges == sorted(edges)
        assert segment.start <= edges[0] <= edges[-1] <= segment.end
    done = [event.audio_s_done for event in again if isinstance(event, Progress)]
    assert done[0] > resume_points[-2].audio_s, "it was heard again"
    ready = [event.index for event in again if isinstance(event, SegmentReady)]
    assert known
    assert ready == [*range(len(known), len(known) + len(ready))]

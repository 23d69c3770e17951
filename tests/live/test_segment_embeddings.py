"""Whose a session's pieces are: its machine with made-up voices, and a hall with a made-up ear."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service_process import PATIENCE_S, wait_until

from sidecar.audio import Block
from sidecar.diarization.speaker_identification import SpeakerVector, embedding_of
from sidecar.engines.scripted_engine import (
    TICK_S,
    LoudnessSpeakerEncoder,
    LoudnessVad,
    ScriptedEngine,
)
from sidecar.interfaces.engine_interface import LoadOptions
from sidecar.interfaces.live_events import (
    Final,
    LiveEvent,
    LiveSessionStart,
    NoticeRaised,
    SpeakerEmbeddingsKnown,
    SpeakersRevised,
    Summary,
    TurnEnded,
)
from sidecar.interfaces.live_options import (
    LIVE_RATE,
    EndpointingOptions,
    LiveOptions,
    LiveOrder,
    TurnControl,
)
from sidecar.interfaces.recognition import (
    DEFAULT_SCHEDULE,
    PartialSchedule,
    RecognitionHypothesis,
    SegmentRequest,
)
from sidecar.live.runtime import segment_embeddings
from sidecar.live.runtime.endpointing import FRAME_SAMPLES
from sidecar.live.runtime.live_scheduler import LiveRecognizers, LiveScheduler
from sidecar.live.runtime.live_speaker_labels import Vector, relabel
from sidecar.live.runtime.recognition_plan import RecognitionTask, RecognitionUrgency
from sidecar.live.runtime.segment_embeddings import (
    MAX_EMBEDDING_S,
    MAX_WAITING_SEGMENTS,
    EmbeddingTask,
)
from sidecar.live.runtime.stream_recognizer import StreamRecognizer
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import Segment, SpeakerCandidate, SpeakerEmbedding, Transcript

ANNE, BERT, CLEO = 0.2, 0.3, 0.4
"""Who is so loud; all of them speak."""
EAR = LoudnessSpeakerEncoder()


class Table:
    """A session, and an engine that hears words and voices when it is let."""

    def __init__(
        self,
        options: LiveOptions | None = None,
        begin: LiveSessionStart | None = None,
        schedule: PartialSchedule = DEFAULT_SCHEDULE,
    ) -> None:
        options = options or LiveOptions(partials=False)
        begin = begin or LiveSessionStart()
        self.recognizer = StreamRecognizer(options, begin, voices=True, schedule=schedule)
        self.changes: list[int] = []
        """Samples at which the speaker changes, for an engine that hears that."""
        self.turns: tuple[SpeakerTurn, ...] = ()
        """Turns that are heard within the next segment that is recognized to its end."""
        self.told: list[LiveEvent] = []
        self.going: list[tuple[RecognitionTask | EmbeddingTask, Block | None]] = []
        self.encoded_s: list[float] = []

    def take(self, events: Iterable[LiveEvent]) -> None:
        self.told += events

    def speak(self, who: float, seconds: float) -> None:
        for _ in range(round(seconds * LIVE_RATE / FRAME_SAMPLES)):
            self.recognizer.push(np.full(FRAME_SAMPLES, who, np.float32), 0.0)
            assert self.recognizer.frames(9) is not None
            self.take(self.recognizer.process_frame(0.9 if who else 0.0, 0.0))

    def change(self, options: LiveOptions) -> None:
        self.recognizer.push(options, 0.0)
        self.take(self.recognizer.follow())

    def begin(self, voices: bool = True) -> RecognitionTask | EmbeddingTask | None:
        due = self.recognizer.next_task(voices)
        if isinstance(due, RecognitionTask):
            self.going.append((due, self.recognizer.begin(due).audio))
        elif due is not None:
            assert self.recognizer.segment_embeddings is not None
            self.going.append(
                (due, self.recognizer.segment_embeddings.began(due, self.recognizer.audio))
            )
        return due

    def end(self, at: int = 0, text: str | None = "words") -> None:
        due, sound = self.going.pop(at)
        if isinstance(due, RecognitionTask):
            late = 0 if due.urgency is RecognitionUrgency.FINAL else LIVE_RATE
            heard = [at for at in self.changes if at <= due.to - late]
            self.changes = self.changes[len(heard) :]
            earlier = tuple((at, RecognitionHypothesis("words")) for at in heard)
            found = None if text is None else RecognitionHypothesis(text, earlier=earlier)
            if found is not None and due.urgency is not RecognitionUrgency.PARTIAL:
                found, self.turns = dataclasses.replace(found, turns=self.turns), ()
            self.take(self.recognizer.add_hypothesis(due, found, 0.0, 0.0))
            return
        vector: Vector | None = None
        if sound is not None:
            self.encoded_s.append(len(sound) / LIVE_RATE)
            vector = EAR.vector(sound)
        assert self.recognizer.segment_embeddings is not None
        question = self.recognizer.segment_embeddings.add_embedding(due, vector)
        self.take(self.recognizer.relabel(due, None if question is None else relabel(question)))

    def work(self, voices: bool = True) -> None:
        """All that is due, at once."""
        while self.begin(voices) is not None:
            self.end()

    def say(self, who: float, seconds: float = 2.0, voices: bool = True) -> None:
        """A turn of somebody's, with the pause behind it."""
        self.speak(who, seconds)
        self.work(voices)
        self.speak(0.0, 0.3)
        self.work(voices)
        self.speak(0.0, 0.7)
        self.work(voices)

    def talk(self, *people: float, voices: bool = True) -> None:
        for who in people:
            self.say(who, voices=voices)

    def finish(self, voices: bool = True) -> None:
        self.take(self.recognizer.finish(0.0))
        self.work(voices)

    @property
    def finals(self) -> list[int | None]:
        return [one.segment.speaker for one in self.told if isinstance(one, Final)]

    @property
    def names(self) -> list[str | None]:
        return [one.name for one in self.told if isinstance(one, Final)]

    @property
    def revisions(self) -> list[dict[int, int]]:
        return [one.speakers for one in self.told if isinstance(one, SpeakersRevised)]

    @property
    def voices(self) -> dict[int, SpeakerEmbedding]:
        """The last that were told."""
        return [one.voices for one in self.told if isinstance(one, SpeakerEmbeddingsKnown)][-1]

    @property
    def transcript(self) -> Transcript:
        [found] = [one.transcript for one in self.told if isinstance(one, Summary)]
        return found

    @property
    def summary(self) -> list[int | None]:
        return [one.speaker for one in self.transcript.segments]

    def followed(self) -> list[int | None]:
        """What somebody knows in the end who goes by the events."""
        return list(followed(self.told).values())


TWO_TURNS = (SpeakerTurn(0.0, 2.1, 0), SpeakerTurn(2.1, 4.2, 1))
ASKED, ANSWERED = "Do you believe in that?", "No, I never did so."


@pytest.mark.parametrize("later", [0, 1, 3], ids="{} segments ended since".format)
def test_utterance_of_two_people_has_a_final_of_each_with_the_label_of_its_voice(
    later: int,
) -> None:
    table = Table()
    table.speak(ANNE, 2.0)
    table.speak(BERT, 2.0)
    table.speak(0.0, 1.0)
    for _ in range(later):
        table.speak(BERT, 2.0)
        table.speak(0.0, 1.0)
    table.turns = TWO_TURNS
    assert isinstance(table.begin(), RecognitionTask)
    table.end(text=f"{ASKED} {ANSWERED}")
    table.work()
    table.finish()
    segments = table.transcript.segments
    assert [one.text for one in segments] == [ASKED, ANSWERED, *["words"] * later]
    assert [one.speaker for one in segments] == [0, 1, *[1] * later]
    assert table.followed() == table.summary
    assert segments[0].end == segments[1].start == pytest.approx(segments[0].start + 2.1, abs=0.1)
    ended = next(one for one in table.told if isinstance(one, TurnEnded))
    assert ended.text == f"{ASKED} {ANSWERED}"


def test_turns_heard_at_a_pause_that_does_not_last_cut_nothing() -> None:
    table = Table()
    table.speak(ANNE, 2.0)
    table.speak(BERT, 2.0)
    table.speak(0.0, 0.3)
    table.turns = TWO_TURNS
    table.begin()
    table.end(text=f"{ASKED} {ANSWERED}")
    assert not table.finals
    table.speak(ANNE, 1.0)
    table.speak(0.0, 1.0)
    table.work()
    table.finish()
    assert [one.text for one in table.transcript.segments] == ["words"]


def known_as(name: str, loud: float) -> SpeakerCandidate:
    """Somebody who is known by a recording of ten seconds."""
    vector = EAR.vector(np.full(LIVE_RATE, loud, np.float32))
    return SpeakerCandidate(name.lower(), name, (embedding_of(SpeakerVector(vector, 10.0)),))


def names_followed(told: Iterable[LiveEvent]) -> dict[int, str | None]:
    """What somebody knows of each piece who goes by the events: a name is the speaker's."""
    names: dict[int | None, str | None] = {}
    for event in told:
        if isinstance(event, Final):
            names[event.segment.speaker] = event.name
        elif isinstance(event, SpeakersRevised):
            names |= event.names
    return {piece: names.get(who) for piece, who in followed(told).items()}


def followed(told: Iterable[LiveEvent]) -> dict[int, int | None]:
    labels: dict[int, int | None] = {}
    for event in told:
        if isinstance(event, Final):
            labels[event.segment_number] = event.segment.speaker
        elif isinstance(event, SpeakersRevised):
            assert event.speakers.keys() <= labels.keys(), "of what was told alone"
            labels.update(event.speakers)
    return labels


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.mark.parametrize("seconds", [0.3, 0.38, 0.6])
def test_short_answer_has_the_label_of_its_own_voice(seconds: float, table: Table) -> None:
    for who in (ANNE, BERT, ANNE, BERT, ANNE):
        table.say(who, 3.0)
    table.say(BERT, seconds)
    table.finish()
    assert table.finals[-2:] == [0, 1]
    assert table.summary == [0, 1, 0, 1, 0, 1]


def test_wrong_label_is_revised_once_the_other_voice_is_known() -> None:
    """A short answer founds nobody: it is its partner's until that voice says more."""
    table = Table()
    table.say(ANNE, 3.0)
    table.say(BERT, 0.3)
    table.say(ANNE, 3.0)
    table.say(BERT, 3.0)
    assert table.finals[:2] == [0, 0]
    assert table.followed() == [0, 1, 0, 1]
    table.finish()
    assert table.summary == [0, 1, 0, 1]


def test_final_has_its_label_if_the_embedding_was_ready(table: Table) -> None:
    table.talk(ANNE, BERT, ANNE, CLEO)
    table.finish()
    assert table.finals == [0, 1, 0, 2]
    assert table.summary == [0, 1, 0, 2]
    assert not table.revisions


def test_final_does_not_wait_for_its_embedding_and_the_label_follows(table: Table) -> None:
    table.talk(ANNE, BERT, voices=False)
    assert table.finals == [0, None]
    table.work()
    assert table.revisions == [{1: 1}]
    table.finish()
    assert table.summary == table.followed() == [0, 1]


def test_final_is_more_urgent_than_an_embedding(table: Table) -> None:
    table.say(ANNE)
    table.speak(BERT, 2.0)
    table.speak(0.0, 0.6)
    urgencies = [due and due.urgency for due in (table.begin() for _ in range(3))]
    voice = RecognitionUrgency.VOICE
    assert urgencies == [RecognitionUrgency.FINAL, voice, voice]


def test_session_of_one_segment_computes_no_embedding() -> None:
    table = Table(LiveOptions(turns=TurnControl.ONE))
    table.say(ANNE, 6.0)
    assert table.finals == table.summary == [0]
    assert not table.encoded_s


def test_segment_has_one_embedding_of_its_first_seconds(table: Table) -> None:
    table.say(ANNE, 7.0)
    table.say(BERT, 1.0)
    table.finish()
    assert sorted(table.encoded_s) == pytest.approx([1.0, MAX_EMBEDDING_S], abs=0.1)


def test_segment_that_goes_on_after_a_pause_is_embedded_again_only_if_it_grew_enough(
    table: Table,
) -> None:
    table.say(ANNE)
    for more_s, vectors in ((0.8, 1), (0.3, 1), (1.5, 2)):
        table.speak(BERT, more_s)
        table.work()
        table.speak(0.0, 0.3)
        table.work()
        assert len(table.encoded_s) - 1 == vectors


def test_segment_with_too_little_voice_has_the_label_of_the_segment_before_it(table: Table) -> None:
    table.say(ANNE)
    table.say(BERT)
    table.say(CLEO, 0.2)
    table.finish()
    assert table.summary == [0, 1, 1]


def test_embedding_of_a_dropped_turn_is_discarded(table: Table) -> None:
    table.say(ANNE)
    table.speak(CLEO, 3.5)
    table.work(voices=False)
    assert isinstance(table.begin(), EmbeddingTask)
    table.end()
    assert isinstance(table.begin(), EmbeddingTask)
    table.take(table.recognizer.cancel())
    table.end()
    table.say(BERT)
    table.finish()
    assert table.summary == [0, 1]
    assert len(table.encoded_s) == 3
    assert table.recognizer.segment_embeddings is not None
    assert table.recognizer.segment_embeddings.speakers.embedding_count == 2


def test_oldest_waiting_segments_are_dropped_and_still_get_labels(table: Table) -> None:
    for turn in range(MAX_WAITING_SEGMENTS + 4):
        table.say(ANNE if turn % 2 else BERT, voices=False)
    voices = table.recognizer.segment_embeddings
    assert voices is not None
    assert len(voices.waiting) == MAX_WAITING_SEGMENTS
    table.finish()
    assert len(table.encoded_s) == MAX_WAITING_SEGMENTS
    assert table.summary == table.followed() == [0] * 5 + [1, 0, 1, 0, 1, 0, 1]


def test_many_waiting_embeddings_alternate_with_partials() -> None:
    table = Table(LiveOptions())
    for _ in range(segment_embeddings.URGENT_WAITING_SEGMENTS + 1):
        table.say(ANNE, voices=False)
    dues = []
    table.speak(BERT, 0.8)
    for _ in range(3):
        table.speak(BERT, 1.0)
        dues.append(table.begin())
        table.end()
    assert [type(due) for due in dues] == [EmbeddingTask, RecognitionTask, EmbeddingTask]
    assert all(due is not None and due.urgency is RecognitionUrgency.PARTIAL for due in dues)


def test_summary_waits_for_embeddings_which_are_then_more_urgent(table: Table) -> None:
    table.talk(ANNE, BERT, voices=False)
    table.take(table.recognizer.finish(0.0))
    due = table.begin()
    assert due is not None
    assert due.urgency is RecognitionUrgency.SPECULATIVE
    assert not table.recognizer.over
    table.end()
    table.work()
    assert table.recognizer.over
    assert table.summary == [0, 1]


def test_enrolled_speaker_is_named_after_enough_audio_and_others_are_not() -> None:
    known = known_as("Anne", ANNE), known_as("Cleo", CLEO)
    table = Table(LiveOptions(partials=False, known_voices=known, voiceprints=True))
    table.say(BERT)
    table.say(ANNE, 1.2)
    assert table.names == [None, None]
    table.talk(ANNE, BERT, ANNE)
    assert table.names[-2:] == [None, "Anne"]
    assert list(names_followed(table.told).values()) == [None, "Anne", "Anne", None, "Anne"]
    table.finish()
    summary = table.transcript
    names = [summary.name_of(one.speaker) for one in summary.segments]
    assert names == list(names_followed(table.told).values())
    assert [one.person for one in summary.voices] == [None, "anne"]
    assert all(one.print is not None for one in summary.voices)
    assert len(summary.prints) == 5
    assert None not in summary.prints


def test_single_enrolled_speaker_is_named_also_after_an_engine_restart() -> None:
    options = LiveOptions(partials=False, known_voices=(known_as("Anne", ANNE),))
    table = Table(options)
    table.say(ANNE, 3.0)
    assert list(names_followed(table.told).values()) == ["Anne"]
    said = Segment(0.0, 3.0, "words", 0)
    again = Table(options, LiveSessionStart(4.0, 1, 1, (said,), 0, (0,), table.voices))
    again.say(ANNE)
    assert again.names == ["Anne"]
    again.finish()
    summary = again.transcript
    assert [summary.name_of(one.speaker) for one in summary.segments] == ["Anne", "Anne"]
    assert summary.prints == ()


def test_enrolled_speaker_is_named_in_a_session_that_asks_for_labels_later() -> None:
    options = LiveOptions(partials=False, diarize=False, known_voices=(known_as("Anne", ANNE),))
    table = Table(options)
    table.say(ANNE, 3.0)
    table.change(LiveOptions(partials=False))
    table.say(ANNE, 3.0)
    table.say(BERT)
    table.finish()
    assert list(names_followed(table.told).values()) == [None, "Anne", None]
    assert [one.person for one in table.transcript.voices] == ["anne", None]


def test_summary_of_a_session_that_wants_no_more_labels_keeps_names_and_voiceprints() -> None:
    known = known_as("Anne", ANNE)
    options = LiveOptions(partials=False, known_voices=(known,), voiceprints=True)
    table = Table(options)
    table.say(ANNE, 3.0)
    table.say(BERT)
    table.change(dataclasses.replace(options, diarize=False))
    table.say(ANNE)
    table.finish()
    assert table.summary == [0, 1, None]
    assert [one.person for one in table.transcript.voices] == ["anne", None]
    assert [one is not None for one in table.transcript.prints] == [True, True, False]


def test_without_diarization_no_embedding_is_computed() -> None:
    table = Table(LiveOptions(diarize=False))
    table.talk(ANNE, BERT)
    table.finish()
    assert table.summary == [None, None]
    assert not table.encoded_s


def test_restarted_engine_keeps_the_speaker_labels() -> None:
    first = Table()
    first.talk(ANNE, BERT, CLEO)
    said = tuple(one.segment for one in first.told if isinstance(one, Final))
    begin = LiveSessionStart(20.0, 3, 3, said, 0, (0, 1, 2), first.voices)
    assert LiveSessionStart.from_wire(begin.to_wire()) == begin
    second = Table(begin=begin)
    second.talk(CLEO, BERT)
    second.finish()
    assert second.finals == [2, 1]
    assert second.summary == [0, 1, 2, 2, 1]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_speaker_events_in_any_order_of_work_end_with_the_labels_of_the_summary(seed: int) -> None:
    chance = random.Random(seed)
    options = LiveOptions(
        partials=chance.random() < 0.3, endpointing=EndpointingOptions(longest_s=2.0)
    )
    table = Table(options)
    hearing = table.recognizer
    for _ in range(chance.randrange(5, 60)):
        match chance.randrange(9):
            case 0 | 1 | 2:
                table.speak(chance.choice((0.0, 0.0, ANNE, BERT, CLEO)), chance.random() * 1.5)
            case 3 | 4 | 5 if len(table.going) < 3:
                table.begin(chance.random() < 0.7)
            case 6 | 7 if table.going:
                text = chance.choice(("words", "words", "", None))
                table.end(chance.randrange(len(table.going)), text)
            case 8 if chance.random() < 0.3:
                table.take(chance.choice((lambda: hearing.commit(0.0), hearing.cancel))())
    table.take(hearing.finish(0.0))
    while table.going or table.begin() is not None:
        table.end()
    assert hearing.over
    assert table.summary == table.followed()
    numbers = list(dict.fromkeys(table.summary))
    assert numbers == list(range(len(numbers))), "not in order of appearance"


def labels_by_turns(chance: random.Random) -> list[int | None]:
    """The labels that an engine of turns gives to a talk with changes between and within its
    utterances, each embedding made at some time or other."""
    table = Table(schedule=PartialSchedule(1.0, 1.0, grows=True, turns=True))
    at, spoke, rate = 0.0, False, chance.choice((0.02, 0.1, 0.5))
    for who, seconds in (
        *((BERT, 1.6), (0.0, 1.024), (ANNE, 2.016), (CLEO, 3.008), (0.0, 1.024)),
        *((CLEO, 4.0), (ANNE, 0.608), (0.0, 1.024)),
        *((ANNE, 0.512), (0.0, 0.32), (CLEO, 1.504), (0.0, 1.024)),
    ):
        if who and spoke:
            table.changes.append(round(at * LIVE_RATE))
        spoke = bool(who)
        for _ in range(round(seconds / 0.032)):
            table.speak(who, 0.032)
            at += 0.032
            while table.recognizer.held:
                if chance.random() < 0.3:
                    table.begin()
                elif table.begin(voices=False) is not None:
                    table.end(-1)
                else:
                    table.end(chance.randrange(len(table.going)))
            if chance.random() < 0.1:
                table.begin()
            if table.going and chance.random() < rate:
                table.end(chance.randrange(len(table.going)))
    table.take(table.recognizer.finish(0.0))
    while table.going or table.begin() is not None:
        table.end()
    assert table.summary == table.followed()
    return table.summary


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_speaker_labels_do_not_depend_on_when_embeddings_are_computed(seed: int) -> None:
    assert labels_by_turns(random.Random(seed)) == [0, 1, 2, 2, 1, 3]


class Listener:
    """Hears a session in a hall to its end."""

    def __init__(self) -> None:
        self.events: queue.Queue[LiveEvent] = queue.Queue()

    def __call__(self, event: LiveEvent) -> None:
        self.events.put(event)

    def finals(self, count: int) -> None:
        """Wait for so many."""
        while count:
            count -= isinstance(self.events.get(timeout=PATIENCE_S), Final)

    def all(self) -> list[LiveEvent]:
        told = []
        while not told or not isinstance(told[-1], Summary):
            told.append(self.events.get(timeout=PATIENCE_S))
        return told


def talk(*people: float) -> Block:
    """Two seconds of each, and a pause."""
    parts = [np.full(LIVE_RATE * 2, who, np.float32) for who in people]
    pause = np.zeros(LIVE_RATE, np.float32)
    return np.concatenate([one for part in parts for one in (part, pause)])


def test_sessions_of_one_scheduler_have_separate_speakers() -> None:
    engine = ScriptedEngine()
    list(engine.load(LoadOptions()))
    listeners = [Listener() for _ in range(3)]
    talks = [talk(ANNE, BERT, ANNE), talk(CLEO, ANNE), talk(BERT)]
    seats = [engine.open(LiveOptions(), LiveSessionStart(), one) for one in listeners]
    for seat, sound in zip(seats, talks, strict=True):
        seat.push(sound)
        seat.push(LiveOrder.FINISH)
    stories = [one.all() for one in listeners]
    summaries = [told[-1] for told in stories if isinstance(told[-1], Summary)]
    assert all(one.transcript.diarized for one in summaries)
    labels = [[part.speaker for part in one.transcript.segments] for one in summaries]
    assert labels == [[0, 1, 0], [0, 1], [0]]
    assert [list(followed(told).values()) for told in stories] == labels


def words(request: SegmentRequest) -> RecognitionHypothesis:
    return RecognitionHypothesis("their words")


class Ear:
    """One that takes its time, or does not hear."""

    def __init__(self, wrong: bool = False) -> None:
        self.go_on, self.wrong = threading.Event(), wrong
        self.at_once = self.most = 0
        self._lock = threading.Lock()

    def vector(self, voice: Block) -> Vector:
        if self.wrong:
            raise RuntimeError("deaf")
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        assert self.go_on.wait(PATIENCE_S)
        with self._lock:
            self.at_once -= 1
        return EAR.vector(voice)


@contextlib.contextmanager
def hall_of(
    ear: Ear | None, threads: int, changes: Callable[[Block], Sequence[SpeakerTurn]] | None = None
) -> Iterator[LiveScheduler]:
    recognizers = LiveRecognizers(words, encoder=ear, changes=changes)
    hall = LiveScheduler(
        recognizers, LoudnessVad(), "made-up", "fp32", threads=threads, tick_s=TICK_S
    )
    yield hall
    hall.close()


def spoken(hall: LiveScheduler, said: Block, begin: LiveSessionStart | None = None) -> Listener:
    """A session that says it and finishes."""
    listener = Listener()
    seat = hall.open(LiveOptions(), begin or LiveSessionStart(), listener)
    seat.push(said)
    seat.push(LiveOrder.FINISH)
    return listener


def test_scheduler_asks_for_the_changes_of_speakers_in_each_final_and_does_without_where_that_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard_s = list[float]()

    def changes(audio: Block) -> Sequence[SpeakerTurn]:
        heard_s.append(len(audio) / LIVE_RATE)
        if len(heard_s) > 1:
            raise RuntimeError("deaf")
        return TWO_TURNS

    ear = Ear()
    ear.go_on.set()
    with hall_of(ear, threads=1, changes=changes) as hall:
        told = spoken(hall, np.concatenate([talk(ANNE)[: 2 * LIVE_RATE], talk(BERT, BERT)])).all()
    assert [one.segment.text for one in told if isinstance(one, Final)] == [
        "their",
        "words",
        "their words",
    ]
    assert heard_s[0] == pytest.approx(4.0, abs=1.0)
    assert "segmentation of speakers" in caplog.text


def test_embeddings_occupy_at_most_half_of_the_threads_and_finals_come_meanwhile() -> None:
    ear, listener = Ear(), Listener()
    with hall_of(ear, threads=4) as hall:
        first, *others = [hall.open(LiveOptions(), LiveSessionStart(), listener) for _ in range(4)]
        first.push(talk(ANNE, BERT, CLEO))
        wait_until(lambda: ear.at_once == 2, "half of the threads are at voices")
        for seat in others:
            seat.push(talk(ANNE, BERT, CLEO))
        listener.finals(12)
        assert ear.most == 2, "half of the threads"
        ear.go_on.set()
        for seat in (first, *others):
            seat.push(LiveOrder.FINISH)
        for _ in range(4):
            assert isinstance(listener.all()[-1], Summary)
        assert ear.most == 2


def test_session_closed_during_an_embedding_gets_no_more_events() -> None:
    ear, listener = Ear(), Listener()
    with hall_of(ear, threads=2) as hall:
        seat = hall.open(LiveOptions(), LiveSessionStart(), listener)
        seat.push(talk(ANNE, BERT))
        seat.push(LiveOrder.FINISH)
        listener.finals(2)
        wait_until(lambda: ear.at_once == 1, "a voice is heard")
        seat.close()
        while not listener.events.empty():
            listener.events.get()
        ear.go_on.set()
        wait_until(lambda: ear.at_once == 0, "it was heard")
    assert listener.events.empty()


def test_failing_speaker_encoder_costs_labels_and_no_words() -> None:
    with hall_of(Ear(wrong=True), threads=2) as hall:
        told = spoken(hall, talk(ANNE, BERT)).all()
    assert list(followed(told).values()) == [0, 0]
    assert [one.segment.text for one in told if isinstance(one, Final)] == [
        "their words",
        "their words",
    ]


def test_missing_speaker_encoder_is_one_notice_and_no_second_after_an_engine_restart() -> None:
    noticed = []
    later = LiveSessionStart(3.0, 1, 1, (Segment(0.0, 1.0, "words"),), 0, (0,))
    with hall_of(None, threads=1) as hall:
        for begin in (LiveSessionStart(), later):
            told = spoken(hall, talk(ANNE), begin).all()
            codes = [one.notice.code for one in told if isinstance(one, NoticeRaised)]
            noticed.append(codes.count("speakers_unavailable"))
            [summary] = [one for one in told if isinstance(one, Summary)]
            assert not summary.transcript.diarized
            assert [one.code for one in summary.transcript.notices] == ["speakers_unavailable"]
    assert noticed == [1, 0]

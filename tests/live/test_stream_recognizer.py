"""One session's machine, fed with made-up sound, made-up probabilities and made-up words."""

import dataclasses
import itertools
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar import limit_overrides
from sidecar.interfaces.live_events import (
    UTTERANCE_DROPPED,
    Final,
    InputProcessed,
    LiveEvent,
    LiveSessionStart,
    NoticeRaised,
    Partial,
    SessionRejected,
    SpeechStarted,
    SpeechStopped,
    Summary,
    TurnDropped,
    TurnEnded,
)
from sidecar.interfaces.live_options import (
    ALL_AUDIO,
    LIVE_RATE,
    EndpointingOptions,
    LiveOptions,
    LiveOrder,
    TurnControl,
)
from sidecar.interfaces.recognition import (
    DEFAULT_SCHEDULE,
    PartialSchedule,
    PrecedingContext,
    RecognitionHypothesis,
)
from sidecar.live.runtime.endpointing import FRAME_SAMPLES
from sidecar.live.runtime.load_shedding import UtteranceAdmission
from sidecar.live.runtime.recognition_plan import RecognitionTask, RecognitionUrgency
from sidecar.live.runtime.stream_recognizer import StreamRecognizer
from sidecar.transcripts.language_detection import Confidence
from sidecar.transcripts.transcript import UNHEARD_FLAG, Segment, Word, join_texts

SHORT = EndpointingOptions(longest_s=2.0)


Kind = TypeVar("Kind", bound=LiveEvent)


class Table:
    """Where a session sits: what it tells, and an engine that hears when it is let."""

    def __init__(
        self,
        options: LiveOptions | None = None,
        begin: LiveSessionStart | None = None,
        schedule: PartialSchedule = DEFAULT_SCHEDULE,
        context: bool = False,
    ) -> None:
        self.recognizer = StreamRecognizer(
            options or LiveOptions(), begin or LiveSessionStart(), "made-up", "fp32",
            schedule=schedule, context=context,
        )  # fmt: skip
        self.behind: list[PrecedingContext | None] = []
        self.told: list[LiveEvent] = []
        self.going: list[RecognitionTask] = []
        self.now = 0.0

    def take(self, events: Iterable[LiveEvent]) -> None:
        self.told += events

    def sound(self, seconds: float, probability: float) -> None:
        for _ in range(round(seconds * LIVE_RATE / FRAME_SAMPLES)):
            self.recognizer.push(np.full(FRAME_SAMPLES, probability, np.float32), self.now)
            assert self.recognizer.frames(9) is not None
            self.take(self.recognizer.process_frame(probability, self.now))

    def speak(self, speech_s: float, pause_s: float) -> None:
        self.sound(speech_s, 0.9)
        self.sound(pause_s, 0.0)

    def change(self, options: LiveOptions) -> None:
        self.recognizer.push(options, self.now)
        self.take(self.recognizer.follow())

    def begin(self) -> RecognitionTask | None:
        task = self.recognizer.next_recognition()
        if task is not None:
            request = self.recognizer.begin(task)
            in_front = 0 if request.preceding_context is None else request.preceding_context.samples
            assert len(request.audio) == task.to - task.segment.start + in_front
            self.behind.append(request.preceding_context)
            self.going.append(task)
        return task

    def begun(self) -> RecognitionTask:
        task = self.begin()
        assert task is not None
        return task

    def end(self, task: RecognitionTask, text: str | None) -> None:
        words = (Word(0.0, 0.1, "w"),)
        tokens = tuple(map(ord, text or ""))
        found = None if text is None else RecognitionHypothesis(text, words, tokens=tokens)
        self.answer(task, found)

    def answer(
        self, task: RecognitionTask, found: RecognitionHypothesis | None, work_s: float = 0.0
    ) -> None:
        self.going.remove(task)
        self.take(self.recognizer.add_hypothesis(task, found, self.now, work_s))

    def hear(self, text: str | None = "some words") -> RecognitionTask | None:
        """The engine hears what is due, and is done at once."""
        task = self.begin()
        if task is not None:
            self.end(task, text)
        return task

    def say(self, speech_s: float, pause_s: float, text: str | None = "some words") -> None:
        """A piece, and what is heard of it once it has ended."""
        self.speak(speech_s, pause_s)
        self.hear(text)

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.told if isinstance(event, kind)]

    def codes(self) -> list[str]:
        return [one.notice.code for one in self.of(NoticeRaised)]

    @property
    def finals(self) -> list[Final]:
        return self.of(Final)

    @property
    def texts(self) -> list[str]:
        return [one.segment.text for one in self.finals]


@pytest.fixture
def table() -> Table:
    return Table()


def test_turn_ends_at_a_pause_once_its_words_are_recognized(table: Table) -> None:
    table.sound(0.5, 0.0)
    table.speak(1.0, 1.0)
    assert not table.finals
    assert table.hear("hello there") is not None
    [final] = table.finals
    assert final.segment.text == "hello there"
    assert (final.turn, final.segment_number) == (0, 0)
    assert 0.2 <= final.segment.start <= 0.5 < 1.5 <= final.segment.end <= 1.7
    assert final.segment.words == (Word(final.segment.start, final.segment.start + 0.1, "w"),)
    kinds = [type(one) for one in table.told if not isinstance(one, InputProcessed)]
    assert kinds == [SpeechStarted, SpeechStopped, Final, TurnEnded]
    assert [one.text for one in table.of(TurnEnded)] == ["hello there"]


def test_words_recognized_within_the_pause_become_the_final(table: Table) -> None:
    table.speak(1.0, 0.3)
    task = table.hear("hello there")
    assert task is not None
    assert task.urgency is RecognitionUrgency.SPECULATIVE
    table.sound(0.5, 0.0)
    assert table.texts == ["hello there"]
    assert table.hear() is None


def test_recognition_begun_within_the_pause_becomes_the_final(table: Table) -> None:
    table.speak(1.0, 0.3)
    task = table.begun()
    assert task.urgency is RecognitionUrgency.SPECULATIVE
    table.sound(0.5, 0.0)
    assert table.begin() is None, "the same is heard twice"
    table.end(task, "hello there")
    assert table.texts == ["hello there"]


def test_words_recognized_at_a_pause_are_dropped_if_speech_resumes(table: Table) -> None:
    table.say(1.0, 0.3, "hello")
    table.say(1.0, 1.0, "hello again")
    assert table.texts == ["hello again"]


def test_first_partial_is_due_within_a_second_of_speech_and_others_after_each_further_second(
    table: Table,
) -> None:
    table.sound(0.7, 0.9)
    assert table.hear("one two") is not None
    assert table.hear() is None
    for said in ("one two three", "one two three four", "one too three"):
        table.sound(0.5, 0.9)
        assert table.hear() is None
        table.sound(0.55, 0.9)
        assert table.hear(said) is not None
    shown = [(one.text, one.stable, one.tail) for one in table.of(Partial)]
    assert shown == [
        ("one", "", "two"),
        ("one two", "one two", "three"),
        ("one two three", "one two three", "four"),
        ("one two three", "one two three", ""),
    ]


def test_without_partials_nothing_is_recognized_before_a_pause() -> None:
    table = Table(LiveOptions(partials=False))
    table.sound(3.0, 0.9)
    assert table.hear() is None
    table.sound(0.3, 0.0)
    assert table.hear("all of it") is not None
    assert not table.of(Partial)


def test_running_partial_is_obsolete_once_speech_pauses(table: Table) -> None:
    table.sound(1.0, 0.9)
    partial = table.begun()
    assert not partial.obsolete
    table.sound(0.3, 0.0)
    assert partial.obsolete
    speculative = table.begun()
    assert speculative.urgency is RecognitionUrgency.SPECULATIVE


def test_long_turn_has_several_finals_and_one_end() -> None:
    table = Table(LiveOptions(endpointing=SHORT))
    table.speak(5.0, 1.0)
    while table.hear("words") is not None:
        pass
    pieces = table.finals
    assert len(pieces) >= 3
    assert {one.turn for one in pieces} == {0}
    assert [one.segment_number for one in pieces] == list(range(len(pieces)))
    for one, after in itertools.pairwise(pieces):
        assert one.segment.end == after.segment.start
    [ended] = table.of(TurnEnded)
    assert ended.text == join_texts(["words"] * len(pieces))


def test_pause_ends_no_turn_if_the_client_ends_turns() -> None:
    table = Table(LiveOptions(turns=TurnControl.CLIENT))
    for _ in range(2):
        table.say(1.0, 1.0, "words")
    assert len(table.finals) == 2
    assert not table.of(TurnEnded)
    table.take(table.recognizer.commit(0.0))
    assert [one.text for one in table.of(TurnEnded)] == ["words words"]


@pytest.mark.parametrize("turns", TurnControl)
@pytest.mark.parametrize("endpointing", [SHORT, ALL_AUDIO])
def test_missing_audio_ends_the_turn_where_it_is_missing_if_silence_ends_turns(
    turns: TurnControl, endpointing: EndpointingOptions
) -> None:
    table = Table(LiveOptions(turns=turns, endpointing=endpointing))
    ends = turns is not TurnControl.CLIENT and endpointing is SHORT
    table.sound(1.0, 0.9)
    for order in (LiveOrder.PAUSE, LiveOrder.PAUSE):  # the second finds nothing open
        table.recognizer.push(order, table.now)
        table.take(table.recognizer.follow())
    table.hear("words")
    assert [one.text for one in table.of(TurnEnded)] == ["words"] * ends
    assert len(table.of(SpeechStopped)) == ends
    assert table.recognizer.over == (ends and turns is TurnControl.ONE)
    if ends and turns is TurnControl.SILENCE:
        table.say(1.0, 1.0, "other words")
        assert [(one.turn, one.text) for one in table.of(TurnEnded)][1:] == [(1, "other words")]


def test_missing_audio_ends_the_turn_whose_engine_died_before_it_sent_the_end() -> None:
    table = Table(begin=LiveSessionStart(1.6, 0, 1, (Segment(0.5, 1.6, "words"),), 1, (0,)))
    table.recognizer.push(LiveOrder.PAUSE, table.now)
    table.take(table.recognizer.follow())
    assert table.of(TurnEnded) == [TurnEnded(0, 0.5, 1.6, "words")]


@pytest.mark.parametrize("turns", [TurnControl.SILENCE, TurnControl.ONE])
def test_pause_ends_the_turn_once_the_client_leaves_that_to_pauses(turns: TurnControl) -> None:
    table = Table(LiveOptions(turns=TurnControl.CLIENT))
    table.say(1.0, 0.7, "words")
    table.change(LiveOptions(turns=turns))
    table.sound(0.1, 0.0)
    assert [one.text for one in table.of(TurnEnded)] == ["words"]
    assert table.recognizer.over == (turns is TurnControl.ONE)


@pytest.mark.parametrize("speech_s", [0.0, 0.06])
def test_pause_ends_the_turn_whose_engine_died_before_it_sent_the_end(speech_s: float) -> None:
    said = (Segment(0.5, 1.6, "words"),)
    table = Table(begin=LiveSessionStart(1.6, 0, 1, said, 1, (0,)))
    table.sound(speech_s, 0.6)
    table.sound(0.2, 0.0)
    assert not table.of(TurnEnded)
    table.sound(0.3, 0.0)
    assert table.of(TurnEnded) == [TurnEnded(0, 0.5, 1.6, "words")]
    table.say(1.0, 0.7, "other words")
    assert [(one.turn, one.text) for one in table.of(TurnEnded)][1:] == [(1, "other words")]


def test_commit_of_silence_ends_an_empty_turn() -> None:
    table = Table(LiveOptions(turns=TurnControl.CLIENT))
    table.sound(1.0, 0.0)
    table.take(table.recognizer.commit(0.0))
    assert table.of(TurnEnded) == [
        TurnEnded(0, pytest.approx(1.0, abs=0.05), pytest.approx(1.0, abs=0.05), "", committed=True)
    ]


def test_single_turn_session_ends_at_its_first_pause() -> None:
    table = Table(LiveOptions(turns=TurnControl.ONE))
    table.say(1.0, 1.0, "over")
    assert isinstance(table.told[-2], Summary | InputProcessed)
    assert table.recognizer.over
    assert [one.transcript.text for one in table.of(Summary)] == ["over"]


def test_cancelled_turn_gives_no_more_events(table: Table) -> None:
    table.sound(1.0, 0.9)
    partial = table.begun()
    table.take(table.recognizer.cancel())
    before = len(table.told)
    assert partial.obsolete
    table.end(partial, "too late")
    assert len(table.told) == before
    assert table.of(TurnDropped)
    table.say(1.0, 1.0, "next")
    assert [(one.turn, one.segment.text) for one in table.finals] == [(1, "next")]


def test_committed_turn_is_sent_before_the_drop_of_the_next() -> None:
    table = Table(LiveOptions(turns=TurnControl.CLIENT))
    table.sound(1.0, 0.9)
    table.take(table.recognizer.commit(0.0))
    table.sound(1.0, 0.9)
    table.take(table.recognizer.cancel())
    assert not table.of(TurnDropped), "the first has no words yet"
    table.hear("first")
    assert [(one.turn, one.segment.text) for one in table.finals] == [(0, "first")]
    ends = [one for one in table.told if isinstance(one, TurnEnded | TurnDropped)]
    assert [(type(one), one.turn) for one in ends] == [(TurnEnded, 0), (TurnDropped, 1)]
    assert table.begin() is None


def test_final_whose_recognition_failed_has_the_words_of_its_partial_a_flag_and_a_notice(
    table: Table,
) -> None:
    table.sound(0.9, 0.9)
    table.hear("one two")
    table.sound(1.2, 0.9)
    table.take(table.recognizer.commit(0.0))
    table.hear(None)
    [final] = table.finals
    assert (final.segment.text, final.segment.flags) == ("one two", (UNHEARD_FLAG,))
    assert table.codes() == ["recognition_failed"]
    assert [one.missing_from for one in table.of(NoticeRaised)] == [final.segment.start]


def test_restarted_recognizer_continues_the_open_turn_its_text_and_the_segment_numbers() -> None:
    said = (Segment(1.0, 2.0, "before that"), Segment(2.0, 3.0, "and that"))
    table = Table(
        LiveOptions(turns=TurnControl.CLIENT), LiveSessionStart(3.0, 7, 12, said, 1, (10, 11))
    )
    table.sound(1.0, 0.9)
    table.take(table.recognizer.commit(0.0))
    table.hear("and this")
    table.take(table.recognizer.finish(0.0))
    [final] = table.finals
    assert (final.turn, final.segment_number) == (7, 12)
    assert final.segment.start >= 3.0
    assert [one.text for one in table.of(TurnEnded)] == ["and that and this"]
    assert [one.transcript.text for one in table.of(Summary)] == ["before that and that and this"]
    assert not table.of(SpeechStarted), "its turn had begun"


@pytest.mark.parametrize("doubted", [True, False])
def test_doubt_about_the_language_survives_a_restart_and_is_one_notice(doubted: bool) -> None:
    said = (Segment(1.0, 2.0, "was in taste in"),)
    begin = LiveSessionStart(
        3.0, 7, 12, said, 0, (10,), confidence=Confidence(-30.0, 30), doubted=doubted
    )
    table = Table(begin=begin)
    table.say(1.0, 1.0, "who made")
    table.take(table.recognizer.finish(0.0))
    assert table.codes() == ([] if doubted else ["language_doubtful"])
    [summary] = table.of(Summary)
    assert "language_doubtful" in [one.code for one in summary.transcript.notices]
    assert table.finals[0].confidence == Confidence()


def test_audio_after_the_first_turn_of_a_single_turn_session_is_dropped() -> None:
    table = Table(LiveOptions(turns=TurnControl.ONE))
    for _ in range(3):  # as a microphone that goes on while the final is recognized
        table.speak(1.0, 0.8)
    while table.hear() is not None:
        pass
    assert [one.turn for one in table.of(SpeechStarted)] == [0]
    assert [one.turn for one in table.of(TurnEnded)] == [0]
    assert isinstance(table.told[-1], Summary)
    assert table.recognizer.audio.end - table.recognizer.audio.start <= 2 * FRAME_SAMPLES


def test_commit_behind_the_end_of_a_single_turn_session_costs_no_words() -> None:
    table = Table(LiveOptions(turns=TurnControl.ONE))
    table.speak(1.0, 0.7)
    task = table.begun()
    table.sound(0.1, 0.0)
    table.recognizer.push(LiveOrder.COMMIT, table.now)
    table.take(table.recognizer.follow())
    table.end(task, "some words")
    assert [one.text for one in table.of(TurnEnded)] == ["some words"]
    assert [one.transcript.text for one in table.of(Summary)] == ["some words"]


def test_settled_audio_is_dropped_and_the_backlog_is_the_audio_that_waits_for_recognition() -> None:
    table = Table(LiveOptions(partials=False))
    table.sound(30.0, 0.0)
    assert table.recognizer.audio.end - table.recognizer.audio.start < LIVE_RATE
    table.speak(1.0, 1.0)
    assert table.recognizer.backlog_s == pytest.approx(1.3, abs=0.2)
    table.hear()
    assert table.recognizer.backlog_s == 0.0


def test_audio_replayed_from_before_the_start_position_counts_as_no_backlog() -> None:
    """No event says that it is processed: a sender that waits for one would wait for ever."""
    table = Table(begin=LiveSessionStart(at=40.0, lead=12.0))
    for end_s, backlog_s in ((39.0, 0.0), (43.0, 3.0)):
        missing = round(end_s * LIVE_RATE) - table.recognizer.audio.end
        table.recognizer.push(np.zeros(missing, np.float32), 0.0)
        assert table.recognizer.backlog_s == backlog_s


def test_short_segment_is_recognized_with_the_segment_before_it_as_context_if_that_is_near() -> (
    None
):
    table = Table(LiveOptions(partials=False), context=True)
    for speech_s, pause_s, text in [
        (2.0, 0.7, "one"),
        (2.0, 0.7, "two"),
        (1.0, 0.7, "three"),
        (6.0, 2.5, "too long with the one before"),
        (1.0, 0.7, "too far from the one before"),
        (1.0, 0.7, None),
        (1.0, 0.7, "nobody understood the one before"),
        (1.0, 0.7, "last"),
    ]:
        table.say(speech_s, pause_s, text)
    said = [before and "".join(map(chr, before.said)) for before in table.behind]
    far, unheard = "too far from the one before", "nobody understood the one before"
    assert said == [None, "one", "onetwo", None, None, far, None, unheard]
    for one in table.behind[1:2]:
        assert one is not None
        assert one.samples / LIVE_RATE == pytest.approx(2.5, abs=0.1)


def test_partial_and_segment_after_a_dropped_one_are_recognized_without_context() -> None:
    table = Table(context=True)
    table.say(0.5, 0.7)
    table.sound(1.0, 0.9)
    table.hear("a partial")
    assert table.behind[-1] is None
    table.take(table.recognizer.cancel())
    table.say(0.5, 0.7)
    assert table.behind[-1] is None


def test_audio_of_the_context_is_kept_only_while_it_can_be_used() -> None:
    table = Table(LiveOptions(partials=False), context=True)
    table.say(2.0, 0.7)
    kept = table.recognizer.audio
    assert kept.end - kept.start > 2 * LIVE_RATE
    assert table.of(InputProcessed)[-1].settled > 2.0, "nobody needs it to begin anew"
    table.sound(9.0, 0.0)
    assert kept.end - kept.start < LIVE_RATE


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    turns=st.sampled_from(list(TurnControl)),
    partials=st.booleans(),
    context=st.booleans(),
)
def test_any_order_of_recognition_and_commands_gives_complete_and_consistent_events(
    seed: int, turns: TurnControl, partials: bool, context: bool
) -> None:
    chance = random.Random(seed)
    table = Table(LiveOptions(turns=turns, partials=partials, endpointing=SHORT), context=context)
    hearing = table.recognizer
    for _ in range(chance.randrange(5, 60)):
        match chance.randrange(8):
            case 0 | 1 | 2 if not hearing.over:
                table.sound(chance.random() * 1.5, chance.choice((0.0, 0.2, 0.6, 0.9)))
            case 3 | 4 if len(table.going) < 3:
                table.begin()
            case 5 | 6 if table.going:
                said = " ".join("abc"[: chance.randrange(4)])
                table.end(chance.choice(table.going), chance.choice((said, said, None)))
            case 7 if not hearing.over:
                table.take(
                    chance.choice((lambda: hearing.commit(0.0), hearing.cancel))()
                    if chance.random() < 0.5
                    else ()
                )
    table.take(hearing.finish(0.0))
    while table.going or hearing.next_recognition() is not None:
        table.end(table.going[0] if table.going else table.begin(), "end")  # type: ignore[arg-type]
    assert hearing.over
    assert hearing.next_recognition() is None
    _holds(table.told)


def _holds(told: list[LiveEvent]) -> None:
    """What is promised of any story."""
    summary = [one for one in told if isinstance(one, Summary)]
    assert len(summary) == 1
    finals = [one for one in told if isinstance(one, Final)]
    assert [one.segment for one in finals] == list(summary[0].transcript.segments)
    assert [one.segment_number for one in finals] == sorted({one.segment_number for one in finals})
    ended: list[int] = []
    stable: dict[int, str] = {}
    final_of: set[int] = set()
    settled = 0.0
    texts: dict[int, list[str]] = {}
    for place, one in enumerate(told):
        match one:
            case SpeechStarted(turn) | SpeechStopped(turn):
                assert turn not in ended
            case Partial() as partial:
                assert partial.turn not in ended
                assert partial.segment_number not in final_of
                before = stable.get(partial.segment_number, "")
                assert partial.stable.startswith(before)
                assert partial.text.startswith(partial.stable)
                stable[partial.segment_number] = partial.stable
            case Final() as final:
                assert final.turn not in ended
                assert final.segment.start >= settled - 1e-6, "the sound of it was let go of"
                final_of.add(final.segment_number)
                texts.setdefault(final.turn, []).append(final.segment.text)
            case TurnEnded(turn, start, end, text, _):
                assert turn not in ended
                assert start <= end
                assert text == join_texts(texts.get(turn, []))
                ended.append(turn)
            case TurnDropped(turn):
                ended.append(turn)
            case InputProcessed(at, now_settled):
                assert settled <= now_settled <= at
                settled = now_settled
            case Summary():
                assert all(isinstance(after, InputProcessed) for after in told[place + 1 :])
    assert ended == sorted(ended)


def test_options_changed_before_an_utterance_apply_to_it(table: Table) -> None:
    patient = dataclasses.replace(LiveOptions(), endpointing=EndpointingOptions(silence_s=2.0))
    table.change(patient)
    table.speak(1.0, 1.0)
    assert not table.of(SpeechStopped)
    table.sound(1.2, 0.0)
    assert table.of(SpeechStopped)


def test_segments_are_recognized_with_the_options_of_their_begin() -> None:
    table = Table(LiveOptions(partials=False, language="en"))
    table.speak(1.0, 1.0)
    table.sound(1.0, 0.9)
    table.change(LiveOptions(partials=False, language="de"))
    table.sound(1.0, 0.9)
    table.sound(1.0, 0.0)
    table.speak(1.0, 1.0)
    tasks = [table.hear() for _ in range(3)]
    assert [one and one.segment.options.language for one in tasks] == ["en", "en", "de"]
    assert [one.language for one in table.finals] == ["en", "en", "de"]


ALL_OF_CLIENT = LiveOptions(
    partials=False, turns=TurnControl.CLIENT, endpointing=ALL_AUDIO, language="en"
)


@pytest.mark.parametrize("probability", [0.0, 0.9], ids=["silence", "speech"])
def test_pauses_end_turns_once_a_client_whose_audio_all_counts_leaves_them_to_pauses(
    probability: float,
) -> None:
    table = Table(ALL_OF_CLIENT)
    table.sound(0.5, probability)
    table.change(LiveOptions(partials=False))
    for _ in range(3):
        table.speak(1.0, 1.0)
    while table.hear("words"):
        pass
    assert len(table.of(SpeechStopped)) == len(table.of(TurnEnded)) == 3
    assert [one.turn for one in table.finals][-3:] == [0, 1, 2]


def test_change_to_one_turn_before_any_speech_does_not_end_the_session() -> None:
    table = Table(ALL_OF_CLIENT)
    table.sound(0.5, 0.0)
    table.change(LiveOptions(partials=False, turns=TurnControl.ONE))
    table.sound(2.0, 0.0)
    assert not table.recognizer.finishing
    table.speak(1.0, 1.0)
    table.hear("")
    table.hear("words")
    assert [one.transcript.text for one in table.of(Summary)] == ["words"]


def test_language_changed_after_a_commit_is_that_of_the_next_turn_of_all_audio() -> None:
    table = Table(ALL_OF_CLIENT)
    table.sound(1.0, 0.9)
    table.take(table.recognizer.commit(0.0))
    table.sound(0.1, 0.0)
    table.change(dataclasses.replace(ALL_OF_CLIENT, language="de"))
    table.sound(2.0, 0.9)
    table.take(table.recognizer.commit(0.0))
    for text in ("first", "", "zweitens"):
        table.hear(text)
    assert [(one.turn, one.segment.text, one.language) for one in table.finals] == [
        (0, "first", "en"),
        (1, "zweitens", "de"),
    ]
    assert table.finals[-1].segment.end - table.finals[-1].segment.start > 1.9


GROWING = PartialSchedule(first_s=0.16, step_s=0.16, grows=True)


def test_words_of_an_incremental_engine_are_stable_and_sent_once() -> None:
    table = Table(schedule=GROWING)
    for text in ("one", "one", "one two"):
        table.sound(0.5, 0.9)
        task = table.hear(text)
        assert task is not None
        assert task.urgency is RecognitionUrgency.PARTIAL
        assert task.to <= table.recognizer.audio.end - 0.1 * LIVE_RATE, "it may lie behind the end"
    assert [(one.text, one.stable, one.tail) for one in table.of(Partial)] == [
        ("one", "one", ""),
        ("one two", "one two", ""),
    ]


def test_incremental_engine_recognizes_speech_without_partials_too_and_waits_at_a_pause() -> None:
    table = Table(LiveOptions(partials=False), schedule=GROWING)
    table.sound(0.6, 0.9)
    assert table.hear("one") is not None
    table.sound(0.3, 0.0)
    assert table.hear() is None, "a pause is heard that may be none"
    assert not table.of(Partial)


def test_final_of_an_incremental_engine_waits_for_the_running_partial() -> None:
    table = Table(schedule=GROWING)
    table.sound(0.6, 0.9)
    partial = table.begun()
    table.sound(0.8, 0.0)
    assert table.begin() is None, "two go on with one draft"
    table.end(partial, "one")
    final = table.begun()
    assert final.urgency is RecognitionUrgency.FINAL
    assert final.segment.draft_hypothesis is not None
    table.end(final, "one two")
    assert table.texts == ["one two"]


TURNS = dataclasses.replace(GROWING, turns=True)


def turns(*texts: tuple[float, str], last: str) -> RecognitionHypothesis:
    """What an engine hears that tells speakers apart: texts with their ends in seconds."""
    earlier = [(round(end * LIVE_RATE), RecognitionHypothesis(text)) for end, text in texts]
    return RecognitionHypothesis(last, earlier=tuple(earlier))


def test_change_of_speaker_splits_the_open_segment_where_speech_is_least_likely() -> None:
    table = Table(schedule=dataclasses.replace(TURNS, first_s=1.6))
    table.sound(1.0, 0.9)
    table.sound(0.1, 0.4)
    table.sound(0.9, 0.9)
    table.answer(table.begun(), turns((1.5, "yes?"), last="no."))
    [first] = table.finals
    assert first.segment.text == "yes?"
    assert 1.0 <= first.segment.end <= 1.1, "the pause near the place that the engine named"
    table.sound(1.0, 0.0)
    final = table.begun()
    assert final.urgency is RecognitionUrgency.FINAL
    assert final.segment.start == round(first.segment.end * LIVE_RATE)
    table.answer(final, turns(last="no, never."))
    assert table.texts == ["yes?", "no, never."]
    assert [one.segment_number for one in table.finals] == [0, 1]
    assert [one.text for one in table.of(TurnEnded)] == ["yes? no, never."]


def test_audio_is_held_until_an_ended_segment_is_split_so_that_numbers_follow_time() -> None:
    table = Table(schedule=TURNS)
    table.speak(2.0, 0.7)
    final = table.begun()
    assert table.recognizer.held, "the next segment would get the number of the second speaker"
    table.answer(final, turns((1.0, "yes?"), last="no."))
    assert not table.recognizer.held
    table.speak(1.0, 1.0)
    table.answer(table.begun(), turns(last="why?"))
    assert table.texts == ["yes?", "no.", "why?"]
    assert [one.segment_number for one in table.finals] == [0, 1, 2]
    starts = [one.segment.start for one in table.finals]
    assert starts == sorted(starts)


def test_partial_with_over_a_second_of_audio_waiting_behind_it_gives_partials_late_notice() -> None:
    for behind_s, codes in ((0.9, []), (1.2, ["partials_late"])):
        table = Table(schedule=TURNS)
        table.sound(0.5, 0.9)
        table.recognizer.push(np.zeros(round(behind_s * LIVE_RATE), np.float32), 0.0)
        table.answer(table.begun(), turns(last="late"))
        assert table.codes() == codes
        assert table.recognizer.waiting_s == pytest.approx(behind_s)
        assert table.recognizer.backlog_s == pytest.approx(behind_s)


def test_wait_of_a_final_is_from_the_arrival_of_its_audio_less_the_work_on_it() -> None:
    table = Table(schedule=dataclasses.replace(TURNS, first_s=9.0))
    for seconds, came in ((1, 3.0), (1, 5.0), (7, 7.0)):
        table.recognizer.push(np.zeros(seconds * LIVE_RATE, np.float32), came)
    table.now = 20.0
    table.speak(1.0, 0.9)
    table.answer(table.begun(), turns(last="late"), work_s=2.0)
    assert [one.wait_s for one in table.finals] == [20.0 - 5.0 - 2.0]


def test_audio_before_a_cancel_is_processed_without_waiting_for_a_running_recognition() -> None:
    table = Table(LiveOptions(turns=TurnControl.CLIENT), schedule=TURNS)
    table.speak(1.0, 0.7)
    running = table.begun()
    assert running.urgency is RecognitionUrgency.FINAL
    frames = round(2.0 * LIVE_RATE / FRAME_SAMPLES)
    table.recognizer.push(np.zeros(frames * FRAME_SAMPLES, np.float32), 0.0)
    table.recognizer.push(LiveOrder.COMMIT, 0.0)
    assert table.recognizer.held, "it is not cancelled"
    table.recognizer.orders.clear()
    table.recognizer.push(LiveOrder.CANCEL, 0.0)
    assert not table.recognizer.held
    for _ in range(frames):
        assert table.recognizer.frames(9) is not None
        table.take(table.recognizer.process_frame(0.9, 0.0))
    assert table.recognizer.frames(9) is None
    assert not running.obsolete
    table.take(table.recognizer.follow())
    assert running.obsolete
    table.answer(running, turns(last="dropped"))
    assert table.begin() is None
    assert table.of(TurnDropped)


def test_long_speech_is_cut_after_the_audio_that_a_diarizing_engine_has_recognized() -> None:
    schedule = dataclasses.replace(TURNS, first_s=26.5)
    table = Table(LiveOptions(partials=False), schedule=schedule)
    table.sound(16.0, 0.9)
    table.sound(0.1, 0.4)
    table.sound(11.0, 0.9)
    table.answer(table.begun(), turns(last="it"))
    table.sound(4.0, 0.9)
    final = table.begun()
    assert final.urgency is RecognitionUrgency.FINAL
    assert final.segment.end is not None
    assert 26.0 < final.segment.end / LIVE_RATE < 30.5
    table.answer(final, turns(last="it goes on"))
    table.sound(1.0, 0.0)
    assert table.begun().segment.start == final.segment.end


def test_speech_without_pause_is_cut_within_half_of_a_configured_replay_buffer() -> None:
    """The size of the buffer is read where modules are imported."""
    program = f"""
import numpy as np
from sidecar.interfaces.live_events import LiveSessionStart
from sidecar.interfaces.live_options import LiveOptions
from sidecar.interfaces.recognition import PartialSchedule
from sidecar.live.runtime.recognition_plan import RecognitionUrgency
from sidecar.live.runtime.stream_recognizer import StreamRecognizer
from sidecar.live.sessions.session_limits import SessionBounds

schedule = PartialSchedule(grows=True, turns=True)
hearing = StreamRecognizer(LiveOptions(), LiveSessionStart(), schedule=schedule)
for _ in range({11 * LIVE_RATE // FRAME_SAMPLES}):
    hearing.audio.append(np.ones({FRAME_SAMPLES}, np.float32))
    list(hearing.process_frame(0.9, 0.0))
task = hearing.next_recognition()
assert task.urgency is RecognitionUrgency.FINAL
assert task.segment.end / {LIVE_RATE} <= SessionBounds().buffer_s / 2 == 10.0
"""
    limits = {limit_overrides.VARIABLE: '{"live_buffer": 20}'}
    subprocess.run([sys.executable, "-c", program], env=os.environ | limits, check=True)


def test_change_of_speaker_is_placed_within_the_audio_that_the_engine_has_recognized() -> None:
    table = Table(schedule=TURNS)
    table.sound(2.0, 0.9)
    task = table.begun()
    table.sound(0.5, 0.1)  # less speech than before, which the engine has not heard
    table.answer(task, turns((task.to / LIVE_RATE, "yes?"), last="no."))
    assert table.finals[0].segment.end <= task.to / LIVE_RATE


def test_next_segment_waits_for_a_running_partial_of_a_diarizing_engine() -> None:
    """The engine has one state for the session."""
    table = Table(schedule=TURNS)
    table.sound(1.0, 0.9)
    running = table.begun()
    table.take(table.recognizer.cancel())
    table.speak(1.0, 0.7)
    assert table.begin() is None
    table.answer(running, turns(last="dropped"))
    assert table.begun().urgency is RecognitionUrgency.FINAL


def test_final_of_partly_recognized_audio_keeps_its_text_and_is_flagged_unheard() -> None:
    table = Table(schedule=TURNS)
    table.speak(2.0, 0.7)
    heard = dataclasses.replace(turns((1.0, "yes?"), last="no."), unheard=True)
    table.answer(table.begun(), heard)
    assert table.texts == ["yes?", "no."]
    assert [one.segment.flags for one in table.finals] == [(), (UNHEARD_FLAG,)]


def test_rejected_session_sends_nothing_but_the_rejection(table: Table) -> None:
    table.recognizer.decide_admission = lambda: UtteranceAdmission.REFUSE
    table.sound(0.2, 0.0)
    table.speak(2.0, 2.0)
    assert [type(event) for event in table.told if not isinstance(event, InputProcessed)] == [
        SessionRejected
    ]
    assert table.recognizer.over
    assert not table.hear()


def test_shed_utterance_has_no_words_and_the_next_one_has() -> None:
    table = Table(LiveOptions(turns=TurnControl.CLIENT))
    verdicts = iter([UtteranceAdmission.SHED, UtteranceAdmission.SERVE])
    table.recognizer.decide_admission = lambda: next(verdicts)
    for _ in range(2):
        table.speak(1.0, 1.0)
    assert not table.recognizer.speaking
    assert not table.hear(), "of all pieces of the turn"
    table.take(table.recognizer.commit(0.0))
    table.sound(1.0, 1.0)
    assert table.recognizer.speaking
    table.sound(1.0, 0.0)
    assert table.recognizer.waiting_s > 1.0
    while table.hear("heard"):
        pass
    table.take(table.recognizer.commit(0.0))
    [noticed] = table.of(NoticeRaised)
    assert (noticed.notice.code, noticed.turn) == (UTTERANCE_DROPPED, 0)
    assert noticed.missing_from is not None
    ended = [(one.text, one.committed) for one in table.of(TurnEnded)]
    assert ended == [("", True), ("heard", True)]
    assert [one.turn for one in table.finals] == [1]


def test_audio_after_a_cancel_belongs_to_the_next_turn(table: Table) -> None:
    recognizer, half = table.recognizer, FRAME_SAMPLES // 2
    recognizer.push(np.ones(half, np.float32), 0.0)
    recognizer.push(LiveOrder.CANCEL, 0.0)
    recognizer.push(np.ones(FRAME_SAMPLES, np.float32), 0.0)
    assert recognizer.frames(9) is None, "the order comes first"
    table.take(recognizer.follow())
    frames = recognizer.frames(9)
    assert frames is not None
    [frame] = frames
    assert (frame[:half].max(), frame[half:].min()) == (0.0, 1.0)

"""The story of a session, for who listens and who comes again."""

import asyncio
import dataclasses
import json

import pytest

from sidecar import errors
from sidecar.interfaces import live_events
from sidecar.live.sessions.event_log import EventLog
from sidecar.transcripts.language_detection import Confidence, doubtful_language_notice
from sidecar.transcripts.transcript import Segment, SpeakerEmbedding


def final(
    turn: int, piece: int, text: str = "words", speaker: int | None = None
) -> live_events.Final:
    return live_events.Final(turn, piece, Segment(float(piece), piece + 1.0, text, speaker))


def partial(piece: int, text: str) -> live_events.Partial:
    return live_events.Partial(0, piece, 0.0, 1.0, text)


async def read(told: EventLog, after: int = 0) -> list[live_events.LiveEvent]:
    return [one.event async for one in told.after(after)]


SLOWLY = (
    live_events.SpeechStarted(0, 0.0),
    partial(0, "one"),
    live_events.InputProcessed(1.0, 0.0),
    partial(0, "one two"),
    live_events.InputProcessed(2.0, 0.0),
)
BEGINS = tuple(live_events.SpeechStarted(turn, at) for turn, at in ((0, 0.0), (0, 0.1), (1, 0.2)))
STOPS = tuple(
    live_events.SpeechStopped(turn, at)
    for turn, at in ((0, 0.9), (0, 0.9), (0, 1.2), (0, 0.9 + 1e-6), (0, 1.2), (1, 4.0))
)


@pytest.fixture
def told() -> EventLog:
    return EventLog()


@pytest.mark.parametrize(
    ("said", "left"),
    [
        pytest.param(SLOWLY, (0, 3, 4), id="partials that were replaced"),
        pytest.param((partial(0, "one"), final(0, 0)), (1,), id="a partial behind its final"),
        pytest.param((partial(1, "one"), final(0, 0)), (0, 1), id="none behind an earlier final"),
        pytest.param(
            (live_events.Partial(0, 1, 4.0, 5.0, "one"), final(0, 2)),
            (0, 1),
            id="none behind the second part of a divided segment before it",
        ),
        pytest.param(
            (partial(0, "one"), live_events.TurnEnded(0, 0.0, 1.0, "")),
            (1,),
            id="a partial behind the end of its turn",
        ),
        pytest.param(BEGINS, (0, 2), id="a turn that begins again"),
        pytest.param(STOPS, (0, 2, 5), id="a pause that is told again"),
    ],
)
async def test_slow_reader_misses_only_outdated_events(
    said: tuple[live_events.LiveEvent, ...], left: tuple[int, ...], told: EventLog
) -> None:
    for event in said:
        told.add(event)
    told.end()
    assert await read(told) == [said[at] for at in left]


async def test_reader_that_reconnects_gets_exactly_the_events_after_the_number_it_names(
    told: EventLog,
) -> None:
    for piece in range(5):
        told.add(final(0, piece))
    told.end()
    assert await read(told, 3) == [final(0, 3), final(0, 4)]
    assert await read(told, told.last) == []


async def test_waiting_readers_all_get_the_same_events(told: EventLog) -> None:
    readers = [asyncio.create_task(read(told)) for _ in range(3)]
    for piece in range(20):
        await asyncio.sleep(0)
        told.add(final(0, piece))
    told.end()
    whole = [final(0, piece) for piece in range(20)]
    assert await asyncio.gather(*readers) == [whole] * 3


async def test_error_that_ended_the_session_comes_after_its_events(told: EventLog) -> None:
    told.add(final(0, 0))
    told.end(errors.SessionIdle())
    told.end()
    story = aiter(told.after(0))
    assert (await anext(story)).event == final(0, 0)
    with pytest.raises(errors.SessionIdle):
        await anext(story)


def test_restarted_engine_gets_revised_labels_and_the_next_turn_and_segment_number(
    told: EventLog,
) -> None:
    assert told.so_far(0.0) == live_events.LiveSessionStart()
    for event in (
        live_events.SpeechStarted(0, 0.0),
        final(0, 0, "a", 0),
        live_events.TurnEnded(0, 0.0, 1.0, "a"),
        live_events.SpeechStarted(1, 1.0),
        final(1, 1, "b", 0),
        final(1, 2, "c", 1),
        live_events.SpeakersRevised({1: 1}),
    ):
        told.add(event)
    said = (Segment(0.0, 1.0, "a", 0), Segment(1.0, 2.0, "b", 1), Segment(2.0, 3.0, "c", 1))
    assert told.so_far(2.5) == live_events.LiveSessionStart(2.5, 1, 3, said, 2, (0, 1, 2), began=2)
    told.add(final(1, 4, "e"))
    told.add(final(1, 3, "d"))
    assert told.so_far(3.0).segment_number == 5, "a number of a final is given once"
    told.add(live_events.TurnDropped(1, 3.0))
    after = told.so_far(3.0)
    assert (after.at, after.turn, after.segment_number, after.open) == (3.0, 2, 5, 0)


def test_restarted_engine_gets_only_context_that_lies_wholly_in_the_audio_sent_again(
    told: EventLog,
) -> None:
    times = ((0.5, 1.5), (2.0, 3.0), (3.0, 4.0), (4.0, 5.5))
    told.add(live_events.ContextKnown(tuple(live_events.ContextUtterance(*one) for one in times)))
    context = told.so_far(4.0, lead=2.0).context
    assert [(one.start, one.end) for one in context] == [(2.0, 3.0), (3.0, 4.0)]
    assert told.so_far(4.0).context == ()


def test_turns_that_no_engine_continues_end_each_once_with_the_text_that_was_sent(
    told: EventLog,
) -> None:
    for event in (
        *(live_events.SpeechStarted(0, 0.0), final(0, 0, "a"), live_events.TurnEnded(0, 0, 1, "a")),
        *(live_events.SpeechStarted(1, 1.0), final(1, 1, "b"), final(1, 2, "c")),
        *(live_events.SpeechStarted(2, 4.0), live_events.SpeechStarted(3, 6.0)),
    ):
        told.add(event)
    assert told.broken_off(7.0) == [
        live_events.TurnEnded(1, 1.0, 7.0, "b c"),
        live_events.TurnEnded(2, 7.0, 7.0, ""),
        live_events.TurnEnded(3, 7.0, 7.0, ""),
    ]


def test_restarted_engine_gets_the_summed_language_confidence_and_whether_its_notice_was_sent(
    told: EventLog,
) -> None:
    told.add(dataclasses.replace(final(0, 0), confidence=Confidence(-6.0, 8)))
    told.add(dataclasses.replace(final(0, 1), confidence=Confidence(-9.0, 8)))
    begin = told.so_far(2.0)
    assert (begin.confidence, begin.doubted) == (Confidence(-15.0, 16), False)
    told.add(live_events.NoticeRaised(doubtful_language_notice()))
    begin = told.so_far(2.0)
    assert begin.doubted
    assert live_events.LiveSessionStart.from_wire(json.loads(json.dumps(begin.to_wire()))) == begin
    [first, *_] = told.kept
    assert (
        live_events.from_wire(json.loads(json.dumps(live_events.to_wire(first.event))))
        == first.event
    )


async def test_speaker_embeddings_go_to_a_restarted_engine_and_not_to_clients(
    told: EventLog,
) -> None:
    voices = live_events.SpeakerEmbeddingsKnown({0: SpeakerEmbedding("AAAA", 2.5)})
    told.add(live_events.Final(0, 3, Segment(0.0, 1.0, "hello")))
    told.add(voices)
    told.add(live_events.SpeakersRevised({3: 0}))
    told.end()
    numbered = [one async for one in told.after(0)]
    assert [type(one.event) for one in numbered] == [live_events.Final, live_events.SpeakersRevised]
    assert [one.number for one in numbered] == [1, 2]
    begin = told.so_far(1.0)
    assert begin.voices == voices.voices
    assert live_events.from_wire(live_events.to_wire(voices)) == voices, "between our processes"
    assert (begin.segment_numbers, begin.said[0].speaker) == ((3,), 0)


def test_text_of_a_broken_off_turn_has_one_punctuation_mark_between_its_segments(
    told: EventLog,
) -> None:
    for piece, text in enumerate(("In short", ", the period;", "; the end")):
        told.add(final(0, piece, text))
    [ended] = told.broken_off(3.0)
    assert ended == live_events.TurnEnded(0, 0.0, 3.0, "In short, the period; the end")

"""The story of a session, for who listens and who comes again."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest

from sidecar import errors
from sidecar.interfaces.live_events import (
    Final,
    InputProcessed,
    LiveEvent,
    LiveSessionStart,
    NoticeRaised,
    Partial,
    SpeakerEmbeddingsKnown,
    SpeakersRevised,
    SpeechStarted,
    SpeechStopped,
    TurnDropped,
    TurnEnded,
    from_wire,
    to_wire,
)
from sidecar.live.sessions.event_log import EventLog
from sidecar.transcripts.language_detection import Confidence, doubtful_language_notice
from sidecar.transcripts.speaker_embeddings import SpeakerEmbedding
from sidecar.transcripts.transcript import Segment


def final(turn: int, piece: int, text: str = "words", speaker: int | None = None) -> Final:
    return Final(turn, piece, Segment(float(piece), piece + 1.0, text, speaker))


def partial(piece: int, text: str) -> Partial:
    return Partial(0, piece, 0.0, 1.0, text)


async def read(told: EventLog, after: int = 0) -> list[LiveEvent]:
    return [one.event async for one in told.after(after)]


async def test_who_reads_slowly_misses_partials_that_were_replaced_and_nothing_else() -> None:
    told = EventLog()
    said: list[LiveEvent] = [
        SpeechStarted(0, 0.0),
        partial(0, "one"),
        InputProcessed(1.0, 0.0),
        partial(0, "one two"),
        InputProcessed(2.0, 0.0),
    ]
    for event in said:
        told.add(event)
    told.end()
    assert await read(told) == [said[0], said[3], said[4]]


async def test_a_partial_is_not_told_behind_its_final() -> None:
    told = EventLog()
    told.add(partial(0, "one"))
    told.add(final(0, 0))
    told.end()
    assert await read(told) == [final(0, 0)]


async def test_who_comes_again_hears_what_came_behind_a_number() -> None:
    told = EventLog()
    for piece in range(5):
        told.add(final(0, piece))
    told.end()
    assert await read(told, 3) == [final(0, 3), final(0, 4)]
    assert await read(told, told.last) == []


async def test_who_waits_is_told_at_once_and_everybody_hears_the_same() -> None:
    told = EventLog()
    readers = [asyncio.create_task(read(told)) for _ in range(3)]
    for piece in range(20):
        await asyncio.sleep(0)
        told.add(final(0, piece))
    told.end()
    whole = [final(0, piece) for piece in range(20)]
    assert await asyncio.gather(*readers) == [whole] * 3


async def test_what_ended_it_comes_behind_what_was_said() -> None:
    told = EventLog()
    told.add(final(0, 0))
    told.end(errors.SessionIdle())
    told.end()
    story = aiter(told.after(0))
    assert (await anext(story)).event == final(0, 0)
    with pytest.raises(errors.SessionIdle):
        await anext(story)


def test_an_engine_that_knows_nothing_goes_on_in_the_turn_that_is_open() -> None:
    told = EventLog()
    assert told.so_far(0.0) == LiveSessionStart()
    for event in (
        SpeechStarted(0, 0.0),
        final(0, 0, "a", 0),
        TurnEnded(0, 0.0, 1.0, "a"),
        SpeechStarted(1, 1.0),
        final(1, 1, "b", 0),
        final(1, 2, "c", 1),
        SpeakersRevised({1: 1}),
    ):
        told.add(event)
    said = (
        Segment(0.0, 1.0, "a", 0),
        Segment(1.0, 2.0, "b", 1),
        Segment(2.0, 3.0, "c", 1),
    )
    assert told.so_far(2.5) == LiveSessionStart(2.5, 1, 3, said, 2, (0, 1, 2), began=2)
    told.add(TurnDropped(1, 3.0))
    assert told.so_far(3.0) == LiveSessionStart(3.0, 2, 3, said, 0, (0, 1, 2), began=2)


def test_an_engine_that_goes_on_knows_how_sure_the_one_before_it_was_of_the_language() -> None:
    told = EventLog()
    told.add(dataclasses.replace(final(0, 0), confidence=Confidence(-6.0, 8)))
    told.add(dataclasses.replace(final(0, 1), confidence=Confidence(-9.0, 8)))
    begin = told.so_far(2.0)
    assert (begin.confidence, begin.doubted) == (Confidence(-15.0, 16), False)
    told.add(NoticeRaised(doubtful_language_notice()))
    begin = told.so_far(2.0)
    assert begin.doubted
    assert LiveSessionStart.from_wire(json.loads(json.dumps(begin.to_wire()))) == begin
    [first, *_] = told._kept
    assert from_wire(json.loads(json.dumps(to_wire(first.event)))) == first.event


async def test_that_a_turn_begins_is_told_once() -> None:
    told = EventLog()
    told.add(SpeechStarted(0, 0.0))
    told.add(SpeechStarted(0, 0.1))
    told.add(SpeechStarted(1, 0.2))
    told.end()
    assert await read(told) == [SpeechStarted(0, 0.0), SpeechStarted(1, 0.2)]


async def test_that_a_turn_stops_is_told_once_and_so_is_each_pause_of_one_that_goes_on() -> None:
    told = EventLog()
    for turn, at in ((0, 0.9), (0, 0.9), (0, 2.5), (0, 0.9 + 1e-6), (0, 2.5), (1, 4.0)):
        told.add(SpeechStopped(turn, at))
    told.end()
    assert await read(told) == [
        SpeechStopped(0, 0.9),
        SpeechStopped(0, 2.5),
        SpeechStopped(1, 4.0),
    ]


async def test_no_client_hears_what_voices_sound_like() -> None:
    told = EventLog()
    voices = SpeakerEmbeddingsKnown({0: SpeakerEmbedding("AAAA", 2.5)})
    told.add(Final(0, 3, Segment(0.0, 1.0, "hello")))
    told.add(voices)
    told.add(SpeakersRevised({3: 0}))
    told.end()
    numbered = [one async for one in told.after(0)]
    assert [type(one.event) for one in numbered] == [Final, SpeakersRevised]
    assert [one.number for one in numbered] == [1, 2]
    begin = told.so_far(1.0)
    assert begin.voices == voices.voices
    assert (begin.pieces, begin.said[0].speaker) == ((3,), 0)


def test_voices_come_back_from_the_wire_between_our_processes() -> None:
    voices = SpeakerEmbeddingsKnown({4: SpeakerEmbedding("AAAA", 2.5)})
    assert from_wire(to_wire(voices)) == voices

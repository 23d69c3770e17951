"""What a client is told of a session, and relieved of, is what another service goes on with."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_process import stand_still
from vibevoice_asr_client import Retry
from vibevoice_asr_client.flows import Surroundings
from vibevoice_asr_client.live_events import Final as FinalTold
from vibevoice_asr_client.live_events import LiveEvent as Told
from vibevoice_asr_client.live_events import TurnEnded as TurnEndedTold
from vibevoice_asr_client.live_stream import Stream

from sidecar import errors
from sidecar.api import live_messages
from sidecar.api.live_routes import ResentAudio
from sidecar.interfaces.live_events import (
    Final,
    InputProcessed,
    NoticeRaised,
    Partial,
    SpeechStarted,
    SpeechStopped,
    TurnEnded,
)
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions.event_log import UNSAVED_SEQ_OFFSET, NumberedEvent
from sidecar.live.sessions.input_log import InputChunk, InputCommit, InputLogTotals
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_checkpoint import (
    MAX_UNSAVED_AUDIO_S,
    SessionCheckpointer,
    parse_checkpoint,
    serialize_checkpoint,
    serialize_events,
)
from sidecar.live.sessions.session_limits import SessionBounds
from sidecar.transcripts.speaker_embeddings import SpeakerCandidate, SpeakerEmbedding
from sidecar.transcripts.transcript import Segment

RATE = 16_000
STEP = 80
"""Samples of a piece of sound."""
AROUND = Surroundings(Retry(attempts=10_000), lambda: 0.5, lambda: datetime.now(UTC))


def of(sample: int) -> bytes:
    """A sample that no other is."""
    return (sample % 65_521).to_bytes(2, "little")


class Front:
    """A service that has the session, and an engine that hears it."""

    def __init__(self, world: World, found: bool, after: int) -> None:
        self.world = world
        self.session = Session(
            "n", "o", LiveOptions(), SessionBounds(), InputLogTotals(1 << 30), lambda: 0.0
        )
        one = None
        if found:
            one = parse_checkpoint(world.head, world.story).orphaned(after)
            self.session.restore(one)
        self.checkpointer = self.session.checkpointer = SessionCheckpointer(
            self.session.told, self.session.sound, lambda: None, lambda: False, self.session.heard
        )
        if one is not None:
            self.checkpointer.found(one, len(world.story))
        self.save()
        self.session.begins_anew()
        begin = self.session.told.so_far(self.session.sound.settled, self.session.sound.lead)
        assert begin.lead is not None
        self.at, self.settled = round(begin.lead * RATE), round(begin.at * RATE)
        self.turn, self.piece, self.commits = begin.turn, begin.piece, 0
        self.resent = ResentAudio(self.session, RATE)

    def save(self) -> None:
        """All of it is in the database."""
        one = self.checkpointer.snapshot(self.session, 0.0)
        self.world.head = serialize_checkpoint(one.checkpoint)
        del self.world.story[one.place :]
        if one.has_events:
            self.world.story.append(serialize_events(one.said, one.known))
        self.checkpointer.saved(one)

    def counts(self, kind: str) -> str:
        samples, orders = self.resent.acknowledged
        return live_messages.message(
            kind, **live_messages.received_message(samples, samples / RATE, orders, 0)
        )

    async def take(self, message: bytes | str) -> None:
        if isinstance(message, bytes):
            await self.session.send(self.resent.sound(message, 2))
        elif self.resent.order():
            pass
        elif json.loads(message)["type"] == "commit":
            self.session.commit()
        else:
            self.session.finish()

    def hear(self) -> bool:
        """The next of what came; whether there was any."""
        item = self.session.sound.take()
        if isinstance(item, InputChunk):
            assert round(item.at * RATE) == self.at
            samples = len(item.raw) // 2
            assert item.raw == b"".join(map(of, range(self.at, self.at + samples)))
            self.at += samples
            for more in range(
                self.world.dice.randrange(4)
            ):  # told before it is saved, not as often
                self.session.heard(SpeechStopped(self.turn, self.at / RATE + more / 1000))
            if self.at >= self.settled:
                self.session.heard(
                    InputProcessed(self.at / RATE, self.settled / RATE, self.commits)
                )
        elif isinstance(item, InputCommit):
            self.end_piece()
            self.session.heard(TurnEnded(self.turn, 0, self.at / RATE, "", committed=True))
            self.turn, self.piece, self.commits = self.turn + 1, self.piece, self.commits + 1
            self.steady()
        return item is not None

    def end_piece(self) -> None:
        """What was heard and not told is told."""
        if self.at > self.settled:
            segment = Segment(self.settled / RATE, self.at / RATE, "said")
            self.session.heard(Final(self.turn, self.piece, segment))
            self.settled, self.piece = self.at, self.piece + 1

    def steady(self) -> None:
        wanted = max(0.0, self.settled / RATE - 0.02)
        self.session.heard(
            InputProcessed(self.at / RATE, self.settled / RATE, self.commits, wanted)
        )


class World:
    """A client and its session, over as many services as it takes."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.head, self.story = b"", list[bytes]()
        self.stream = Stream({}, "pcm16", RATE, AROUND)
        self.sent, self.commits = 0, list[int]()
        self.told: list[Told] = []
        self.last = 0
        self.front = Front(self, False, 0)
        self.open()

    def open(self) -> None:
        self.stream.opening()
        self.stream.took(self.front.counts("began"))

    async def step(self) -> None:
        front = self.front
        match self.dice.randrange(9):
            case 0 | 1:
                self.say(self.dice.randrange(1, 5))
            case 2 if self.dice.random() < 0.4:
                self.stream.order("commit")
                self.commits.append(self.sent)
            case 3 | 4:
                if (message := self.stream.next()) is not None:
                    await front.take(message)
            case 5:
                front.hear()
            case 6:
                front.end_piece()
                if self.dice.random() < 0.8:
                    front.steady()
            case 7:
                self.tell()
                if self.dice.random() < 0.5:
                    self.stream.took(front.counts("received"))
            case 8 if front.session.steady.is_set():
                front.save()
        if self.dice.random() < 0.04:  # it dies, or only the line breaks
            self.stream.lost(None)
            if self.dice.random() < 0.7:
                self.front = Front(self, True, self.last)
            else:
                front.resent = ResentAudio(front.session, RATE)
            self.open()

    def say(self, pieces: int) -> None:
        for _ in range(pieces):
            self.stream.sound(b"".join(map(of, range(self.sent, self.sent + STEP))))
            self.sent += STEP

    def tell(self) -> None:
        """What may be read is."""
        told = self.front.session.told
        for one in told.since(self.last):
            if told._until is None or one.number <= told._until:
                self.told += self.stream.took(live_messages.event_message(one))
                self.last = one.number

    async def rest(self) -> None:
        front = self.front
        while (message := self.stream.next()) is not None:
            await front.take(message)
            self.stream.took(front.counts("received"))
        while front.hear():
            pass
        front.end_piece()
        front.steady()
        front.save()
        self.tell()


@given(st.integers(0, 2**32))
def test_whenever_services_die_nothing_is_told_twice_and_nothing_lost(seed: int) -> None:
    async def run() -> None:
        world = World(random.Random(seed))
        for _ in range(150):
            await world.step()
        await world.rest()
        finals = [one.segment for one in world.told if isinstance(one, FinalTold)]
        borders = [round(one.start * RATE) for one in finals]
        ends = [round(one.end * RATE) for one in finals]
        assert [*borders, world.sent] == [0, *ends] if finals else world.sent == 0
        turns = [one for one in world.told if isinstance(one, TurnEndedTold)]
        assert [round(one.end * RATE) for one in turns] == world.commits

    asyncio.run(run())


async def test_a_word_comes_though_who_died_had_told_more_on_the_way_to_it() -> None:
    first = durable([])
    assert first.checkpointer is not None
    first.heard(SpeechStarted(0, 0.1))
    one = first.checkpointer.snapshot(first, 0.0)
    first.checkpointer.saved(one)
    for heard in range(1, 9):  # in real time; who goes on has it all at once
        first.heard(Partial(0, 0, 0.1, heard / 10, "so far"))
    after = first.told.last
    second = Session("n", "o", LiveOptions(), SessionBounds(), InputLogTotals(1 << 30), lambda: 0.0)
    second.restore(
        parse_checkpoint(
            serialize_checkpoint(one.checkpoint), [serialize_events(one.said, one.known)]
        ).orphaned(after)
    )
    second.heard(Final(0, 0, Segment(0.1, 0.9, "said")))
    second.end()
    assert [type(told.event) async for told in second.events(after)] == [Final]


def durable(away: list[bool]) -> Session:
    session = Session(
        "n", "o", LiveOptions(), SessionBounds(), InputLogTotals(1 << 30), lambda: 0.0
    )
    session.checkpointer = SessionCheckpointer(
        session.told, session.sound, lambda: None, lambda: bool(away), session.heard
    )
    return session


def readable(session: Session) -> list[tuple[int, str]]:
    until = session.told._until
    return [
        (one.number, type(one.event).__name__)
        for one in session.told.since(0)
        if until is None or one.number <= until
    ]


async def test_what_stands_waits_until_it_is_saved_and_what_is_said_anew_does_not() -> None:
    session = durable([])
    assert session.checkpointer is not None
    session.heard(SpeechStarted(0, 0.1))
    assert readable(session) == [(1, "SpeechStarted")]
    session.heard(Final(0, 0, Segment(0.1, 0.5, "said")))
    session.heard(InputProcessed(0.5, 0.5))
    one = session.checkpointer.snapshot(session, 0.0)
    session.heard(SpeechStarted(1, 0.6))
    session.heard(Final(1, 1, Segment(0.6, 0.9, "more")))
    assert readable(session) == [(1, "SpeechStarted")]
    session.checkpointer.saved(one)
    assert readable(session) == [(1, "SpeechStarted"), (2, "Final"), (4, "SpeechStarted")]
    session.checkpointer.close()
    assert readable(session)[-1] == (5 + UNSAVED_SEQ_OFFSET, "Final")


async def test_while_the_service_itself_stands_still_the_database_is_not_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sidecar.live.sessions.session_checkpoint.MAX_EVENT_HOLD_S", 0.06)
    session = durable([])
    assert session.checkpointer is not None
    session.heard(Final(0, 0, Segment(0.1, 0.5, "said")))
    one = session.checkpointer.snapshot(session, 0.0)
    stand_still(0.2)  # what the database says meanwhile is not read
    for _ in range(3):
        await asyncio.sleep(0)
    assert readable(session) == []
    session.checkpointer.saved(one)
    assert readable(session) == [(1, "Final")]


async def test_while_the_database_is_away_what_is_told_is_numbered_so_that_it_shows() -> None:
    away: list[bool] = []
    session = durable(away)
    assert session.checkpointer is not None
    session.checkpointer.saved(session.checkpointer.snapshot(session, 0.0))
    session.heard(Final(0, 0, Segment(0.1, 0.5, "said")))
    assert readable(session) == []
    away.append(True)
    session.checkpointer.unsaved()
    assert readable(session) == [(1 + UNSAVED_SEQ_OFFSET, "Final")]
    session.heard(InputProcessed(0.5, 0.5))
    one = session.checkpointer.snapshot(session, 0.0)
    session.heard(Final(0, 1, Segment(0.5, 0.9, "between")))
    away.clear()
    session.checkpointer.saved(one)
    assert session.told.since(0)[-1].number >= one.checkpoint.told.last + UNSAVED_SEQ_OFFSET, (
        "who knows of it knows too much"
    )
    session.checkpointer.saved(session.checkpointer.snapshot(session, 0.0))
    session.heard(Final(0, 2, Segment(0.9, 1.2, "waits again")))
    assert len(readable(session)) == 2


async def unsaved(session: Session) -> None:
    """Nothing of it can be saved, for as long as its client keeps sound for that."""
    assert session.checkpointer is not None
    session.checkpointer.unsaved()
    await heard_on(session, MAX_UNSAVED_AUDIO_S + 1)
    assert session.acknowledged == (0.0, 0)


async def heard_on(session: Session, seconds: float) -> None:
    for _ in range(int(seconds)):
        await session.send(bytes(2 * RATE))
        session.sound.take()
        session.heard(InputProcessed(session.received_s, session.received_s))


async def all_of(session: Session, after: int = 0) -> list[NumberedEvent]:
    """What is told now."""
    told = list[NumberedEvent]()

    async def read() -> None:
        async for one in session.events(after):
            told.append(one)

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    reading.cancel()
    return told


def notices(told: list[NumberedEvent]) -> list[int]:
    return [one.number for one in told if isinstance(one.event, NoticeRaised)]


async def test_a_client_keeps_its_sound_for_so_long_and_then_knows_that_it_has_to_let_go() -> None:
    session = durable([True])
    await unsaved(session)
    assert len(notices(await all_of(session))) == 1
    assert session.acknowledged[0] == session.received_s


async def test_a_client_lets_go_of_nothing_that_its_number_does_not_say() -> None:
    session = durable([True])
    await unsaved(session)
    (first,) = notices(await all_of(session))
    assert session.acknowledged[0] == session.received_s
    assert session.checkpointer is not None
    one = session.checkpointer.snapshot(session, 0.0)  # from here on it may lie there, as it is now
    await heard_on(session, MAX_UNSAVED_AUDIO_S - 1)
    assert notices(await all_of(session, first)) == [], "and so it was told nothing"
    assert session.acknowledged[0] == one.checkpoint.sound.at
    await heard_on(session, 1)
    (again,) = notices(await all_of(session, first))
    assert session.acknowledged[0] == session.received_s
    with pytest.raises(errors.SessionNotFound, match="died while the database did not answer"):
        one.checkpoint.orphaned(again)


async def test_what_went_into_a_line_that_had_broken_relieves_nobody() -> None:
    session = durable([True])
    await unsaved(session)
    dead = session.events()
    assert [type((await anext(dead)).event) for _ in range(2)] == [NoticeRaised, InputProcessed]
    assert session.acknowledged[0] == session.received_s
    session.goes_on(0)
    assert session.acknowledged == (0.0, 0), "it sends all again to whoever has the session"
    for turn in range(2):
        session.heard(SpeechStarted(turn, turn / 10))
        assert isinstance((await anext(dead)).event, SpeechStarted)
    assert session.acknowledged == (0.0, 0)
    (number,) = notices(await all_of(session))
    assert session.acknowledged[0] == session.received_s
    session.goes_on(number)
    assert session.acknowledged[0] == session.received_s


async def test_whom_its_owner_knows_is_written_once_and_again_when_that_changes() -> None:
    session = durable([])
    assert session.checkpointer is not None
    anna, ben = (SpeakerCandidate(name, name, (SpeakerEmbedding("v" * 684, 1.0),)) for name in "ab")
    session.meet(LiveOptions(known_voices=(anna,)))
    story, sizes = list[bytes](), list[int]()
    for piece, known in enumerate([(anna,), (anna,), (anna, ben), ()]):
        session.meet(LiveOptions(known_voices=known))
        session.heard(Final(0, piece, Segment(piece, piece + 0.5, "said")))
        one = session.checkpointer.snapshot(session, 0.0)
        story.append(serialize_events(one.said, one.known))
        sizes.append(len(serialize_checkpoint(one.checkpoint)) + len(story[-1]))
        assert (
            parse_checkpoint(serialize_checkpoint(one.checkpoint), story).options.known_voices
            == known
        )
        if piece == 0:  # what is not there yet is written again
            assert session.checkpointer.snapshot(session, 0.0).known == known
        session.checkpointer.saved(one)
    assert max(sizes[1], sizes[3]) < 1_200 < min(sizes[0], sizes[2])
    session.checkpointer.lost()
    session.meet(LiveOptions(known_voices=(anna,)))
    assert session.checkpointer.snapshot(session, 0.0).known == (anna,)

"""What a conversation hears, and when that was said."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from virtual_time import virtual_time

from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import SampleEncoding
from sidecar.live.sessions.input_log import InputLogTotals
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_limits import SessionBounds
from sidecar.plugins.conversation import speech_input
from sidecar.plugins.conversation.conversation_events import (
    ConversationEvent,
    RecognizedWords,
    StageFailed,
    UserSpeechStarted,
)
from sidecar.plugins.conversation.speech_input import (
    CLOCK_HISTORY_S,
    AudioClock,
    SpeechInput,
)
from sidecar.transcripts.transcript import Notice, Segment

pytestmark = virtual_time
SOUND = bytes(320)


class Told:
    """A session that says what the test has it say."""

    def __init__(self) -> None:
        self.options, self.received_s = speech_input.speech_input_options(), 0.0
        self._events: asyncio.Queue[live_events.LiveEvent] = asyncio.Queue()

    async def send(self, raw: bytes, encoding: SampleEncoding, rate: int) -> None:
        self.received_s += len(raw) / encoding.width / rate

    async def tell(self, event: live_events.LiveEvent) -> None:
        self._events.put_nowait(event)
        for _ in range(3):
            await asyncio.sleep(0)

    async def events(self) -> AsyncIterator[Any]:
        while True:
            yield SimpleNamespace(event=await self._events.get())


async def heard_by(
    session: Told | Session,
) -> tuple[SpeechInput, list[ConversationEvent], asyncio.Task[None]]:
    """An ear that listens to the session, and what it tells."""
    happened = list[ConversationEvent]()
    hears = SpeechInput(cast(Session, session), lambda: 0.0, happened.append, lambda notice: None)
    return hears, happened, asyncio.ensure_future(hears.listen())


@pytest.mark.parametrize("goes_on", [False, True])
async def test_utterances_lost_with_the_engine_fail_and_the_next_gets_its_own_words(
    goes_on: bool,
) -> None:
    """The engine dies twice on the first utterance; the user has begun two more, or is within
    the last of them."""
    options = speech_input.speech_input_options()
    session = Session("n", "o", options, SessionBounds(), InputLogTotals(1 << 20))
    hears, happened, listening = await heard_by(session)
    session.begins_anew()
    for turn in range(3):
        await hears.hear(SOUND, SampleEncoding.PCM16, 16_000)
        session.input_log.take()
        session.handle_event(live_events.SpeechStarted(turn, turn / 100))
        if turn < 2 or not goes_on:
            session.handle_event(live_events.SpeechStopped(turn, (turn + 1) / 100))
    session.lose()
    session.begins_anew()
    begin = session.event_log.so_far(session.position_s)
    await hears.hear(SOUND, SampleEncoding.PCM16, 16_000)
    session.handle_event(live_events.SpeechStarted(begin.turn, 0.03))
    session.handle_event(live_events.SpeechStopped(begin.turn, 0.04))
    session.handle_event(final(begin.turn, "again", 0.03, 0.04))
    session.handle_event(live_events.TurnEnded(begin.turn, 0.03, 0.04, "again"))
    session.end()
    await listening
    failed = [one.turn for one in happened if isinstance(one, StageFailed)]
    started = [one.utterance for one in happened if isinstance(one, UserSpeechStarted)]
    words = [(one.utterance, one.text) for one in happened if isinstance(one, RecognizedWords)]
    assert (failed, started, words) == ([0, 1, 2], [0, 1, 2, 3], [(3, "again")])
    ended = [one.event for one in session.event_log.kept]
    assert [one.turn for one in ended if isinstance(one, live_events.TurnEnded)] == [0, 1, 2, 3]


async def test_only_the_utterance_that_a_dropped_notice_names_fails() -> None:
    dropped = Notice(live_events.UTTERANCE_DROPPED, "")
    session = Told()
    hears, happened, listening = await heard_by(session)
    await hears.hear(SOUND, SampleEncoding.PCM16, 16_000)
    for event in (
        live_events.SpeechStarted(0, 0.0),
        live_events.SpeechStopped(0, 0.01),
        live_events.SpeechStarted(1, 0.01),
        live_events.NoticeRaised(dropped, 1),
        live_events.TurnEnded(0, 0.0, 0.01, ""),  # noise
        live_events.TurnEnded(1, 0.01, 0.02, ""),
        live_events.TurnEnded(2, 0.01, 0.02, ""),
    ):
        await session.tell(event)
    listening.cancel()
    await asyncio.wait({listening})
    failed = [(one.turn, one.error.code) for one in happened if isinstance(one, StageFailed)]
    assert failed == [(1, live_events.UTTERANCE_DROPPED)]


async def test_recognition_failure_of_a_discarded_utterance_fails_neither_it_nor_the_next() -> None:
    session = Told()
    _, happened, listening = await heard_by(session)
    for event in (
        live_events.SpeechStarted(0, 0.0),
        live_events.NoticeRaised(Notice(live_events.RECOGNITION_FAILED, "")),  # it was cut
        live_events.TurnDropped(0, 0.01),
        live_events.SpeechStarted(1, 0.01),
        live_events.SpeechStopped(1, 0.02),
        live_events.TurnEnded(1, 0.01, 0.02, ""),  # noise
    ):
        await session.tell(event)
    listening.cancel()
    assert not [one for one in happened if isinstance(one, StageFailed)]


def final(turn: int, text: str, start: float, end: float) -> live_events.Final:
    return live_events.Final(turn, 0, Segment(start, end, text))


async def test_partial_and_final_words_belong_to_their_utterance() -> None:
    session = Told()
    _, happened, listening = await heard_by(session)
    for event in (
        live_events.SpeechStarted(0, 0.0),
        live_events.Partial(0, 0, 0.0, 1.0, "I would"),
        live_events.SpeechStopped(0, 1.0),
        live_events.SpeechStarted(1, 1.2),  # a final may take longer than the pause
        final(0, "I would like", 0.0, 1.0),
        live_events.TurnEnded(0, 0.0, 1.0, "I would like"),
        live_events.Partial(1, 1, 1.2, 2.0, "a coffee"),
        final(1, "a coffee with", 1.2, 9.2),  # it was long, and is cut
        live_events.Partial(1, 2, 9.2, 10.0, ", milk"),
    ):
        await session.tell(event)
    listening.cancel()
    words = [(one.utterance, one.text) for one in happened if isinstance(one, RecognizedWords)]
    assert words == [
        (0, "I would"),
        (0, "I would like"),
        (1, "a coffee"),
        (1, "a coffee with"),
        (1, "a coffee with, milk"),  # as at the end of the turn
    ]


@pytest.mark.parametrize(
    "end",
    [
        live_events.TurnEnded(0, 0.0, 1.0, "first", committed=True),
        live_events.SpeechStopped(0, 1.0),
        live_events.TurnDropped(0, 1.0),
    ],
    ids=lambda end: type(end).__name__,
)
async def test_late_end_of_one_turn_does_not_end_the_next(end: live_events.LiveEvent) -> None:
    session = Told()
    hears, happened, listening = await heard_by(session)
    await session.tell(live_events.SpeechStarted(0, 0.0))
    await session.tell(live_events.SpeechStarted(1, 1.0))
    await session.tell(end)
    await session.tell(live_events.Partial(1, 1, 1.0, 2.0, "stop it now"))
    assert RecognizedWords(0.0, 1, "stop it now", 1.0) in happened
    assert hears.speaking == 1
    listening.cancel()


def test_audio_clock_gives_the_time_of_audio_counted_back_from_the_end_of_its_chunk() -> None:
    clock = AudioClock()
    clock.came(0.5, 100.5)
    clock.came(1.0, 101.0)
    for position in (0.1, 0.5, 0.7, 1.0):
        assert clock.time(position) == pytest.approx(100 + position)


def test_audio_clock_gives_times_that_pauses_between_chunks_do_not_change() -> None:
    clock = AudioClock()
    clock.came(0.5, 100.5)
    clock.came(1.0, 160.0)
    assert clock.time(0.5) == 100.5
    assert clock.time(0.6) == pytest.approx(159.6)


def test_audio_clock_clamps_future_positions_and_keeps_a_bounded_history() -> None:
    clock = AudioClock()
    assert clock.time(3.0) == 3.0
    for second in range(1, 1000):
        clock.came(float(second), 50.0 + second)
    assert clock.ends[-1][0] - clock.ends[0][0] <= CLOCK_HISTORY_S
    assert clock.time(2000.0) == 50.0 + 999
    assert clock.time(999 - CLOCK_HISTORY_S) == pytest.approx(50 + 999 - CLOCK_HISTORY_S)

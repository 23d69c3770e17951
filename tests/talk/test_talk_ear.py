"""What a conversation hears when its client falls silent in the middle, by the ear alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from serving import stand_still, until

from sidecar.sessions.session import Session
from sidecar.speech import live_events
from sidecar.speech.live import Encoding
from sidecar.talk import ear
from sidecar.talk.ear import Ear
from sidecar.talk.events import SpeechStarted, SpeechStopped, TalkEvent

SOUND = bytes(320)


class Told:
    """A session that says what the test has it say, and notes how often its sound was ended."""

    def __init__(self) -> None:
        self.options, self.received_s, self.commits = ear.options(), 0.0, 0
        self._events: asyncio.Queue[live_events.LiveEvent] = asyncio.Queue()
        self.room = asyncio.Event()
        self.room.set()

    async def send(self, raw: bytes, encoding: Encoding, rate: int) -> None:
        await self.room.wait()
        self.received_s += len(raw) / encoding.width / rate

    def commit(self) -> None:
        self.commits += 1

    async def tell(self, event: live_events.LiveEvent) -> None:
        self._events.put_nowait(event)
        for _ in range(3):
            await asyncio.sleep(0)

    async def events(self) -> AsyncIterator[Any]:
        while True:
            yield SimpleNamespace(event=await self._events.get())


@pytest.mark.parametrize("late", [False, True])
async def test_speech_is_ended_where_no_sound_comes_any_more_also_if_it_is_told_later(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ear, "STARVED_S", 0.0)
    monkeypatch.setattr(ear, "CHUNKS", 0.0)
    session, happened = Told(), list[TalkEvent]()
    hears = Ear(cast(Session, session), lambda: 0.0, happened.append, lambda notice: None)
    listening = asyncio.ensure_future(hears.listen())
    for utterance in (1, 2):
        if not late:
            await session.tell(live_events.SpeechStarted(utterance, 0.0))
        await hears.hear(SOUND)
        await until(lambda: hears._quiet if late else session.commits == utterance)  # noqa: B023
        assert session.commits == utterance - late, "while nobody speaks nothing is to be ended"
        if late:
            await session.tell(live_events.SpeechStarted(utterance, 0.0))
        assert session.commits == utterance
        await session.tell(live_events.TurnEnded(utterance, "word", 0.0, 0.01, committed=True))
    await session.tell(live_events.SpeechStarted(3, 0.0))
    assert session.commits == 2, "what came was ended behind all of it"
    listening.cancel()
    assert [type(one) for one in happened].count(SpeechStarted) == 3
    assert [type(one) for one in happened].count(SpeechStopped) == 2


async def test_who_speaks_on_while_the_service_stands_still_is_not_cut_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ear, "STARVED_S", 0.06)
    session = Told()
    hears = Ear(cast(Session, session), lambda: 0.0, [].append, lambda notice: None)
    listening = asyncio.ensure_future(hears.listen())
    await hears.hear(SOUND)
    await session.tell(live_events.SpeechStarted(1, 0.0))
    stand_still(0.2)  # what is said meanwhile has not been read
    for _ in range(3):
        await asyncio.sleep(0)
    await hears.hear(SOUND)
    assert session.commits == 0
    session.room.clear()
    receiving = asyncio.ensure_future(hears.hear(SOUND))
    await asyncio.sleep(0.5)
    assert session.commits == 0, "what is to be heard is there, and an engine has no room for it"
    receiving.cancel()
    await until(lambda: session.commits == 1)
    listening.cancel()

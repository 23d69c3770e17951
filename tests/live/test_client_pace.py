"""Clients by the pace of their audio: whose speech waits behind that of others."""

import asyncio
import dataclasses

import pytest

from sidecar.interfaces.live_events import InputProcessed
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions.input_log import InputChunk, InputLogTotals
from sidecar.live.sessions.session import (
    MAX_MICROPHONE_LEAD_S,
    MAX_MICROPHONE_PACE,
    Session,
)
from sidecar.live.sessions.session_limits import SessionBounds

BUFFER_S = 4.0


def audio(seconds: float) -> bytes:
    return bytes(2 * round(seconds * 16_000))


class Client:
    """Client of a session that keeps `BUFFER_S` until an engine settles it, on a clock of its
    own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.session = Session(
            *("s", "o", LiveOptions(), SessionBounds(), InputLogTotals(1 << 30), lambda: self.now)
        )
        self.session.bounds = dataclasses.replace(self.session.bounds, buffer_s=BUFFER_S)
        self.judged: list[bool] = []
        """Of each chunk that an engine took, whether it came ahead of real time."""

    async def send(self, seconds: float) -> None:
        """Send audio that is recognized at once."""
        await self.session.send(audio(seconds))
        self.recognize()

    async def send_late(self, late_s: float) -> None:
        """Send more audio than the buffer takes: the service takes the rest ``late_s`` later."""
        await self.session.send(audio(2 * BUFFER_S))
        sending = asyncio.create_task(self.session.send(audio(1.0)))
        await asyncio.sleep(0)
        assert not sending.done()
        self.now += late_s
        self.recognize()
        await sending
        self.recognize()

    def recognize(self) -> None:
        """Recognize all that has come."""
        log = self.session.input_log
        self.judged += [one.ahead for one in iter(log.take, None) if isinstance(one, InputChunk)]
        self.session.handle_event(InputProcessed(log.at, log.at))


@pytest.mark.parametrize("late_s", [20.0, 3600.0])
async def test_microphone_that_service_holds_back_is_never_ahead_while_it_catches_up(
    late_s: float,
) -> None:
    client = Client()
    for _ in range(60):
        client.now += 1.0
        await client.send(1.0)
    client.now += 2 * BUFFER_S
    await client.send_late(late_s)
    for _ in range(round(late_s) - 1):
        await client.send(1.0)  # what it recorded meanwhile, as fast as that is taken
    for _ in range(60):
        client.now += 1.0
        await client.send(1.0)
    assert not any(client.judged)


async def test_recording_is_ahead_for_as_long_as_service_holds_it_back() -> None:
    client = Client()
    for _ in range(10):
        await client.send(1.0)
    for _ in range(100):
        await client.send_late(30.0)
    first = next(at for at, ahead in enumerate(client.judged) if ahead)
    assert first <= MAX_MICROPHONE_LEAD_S + 1
    assert all(client.judged[first:])


async def test_client_that_recorded_before_it_connected_is_ahead_until_it_is_in_real_time() -> None:
    client = Client()
    for _ in range(20):
        await client.send(1.0)
    assert client.judged[-1]
    for _ in range(round(20 / (MAX_MICROPHONE_PACE - 1)) + 1):
        client.now += 1.0
        await client.send(1.0)
    assert not client.judged[-1]
    await client.send(10.0)  # one message is judged by what came before it
    assert not client.judged[-1]


async def test_client_that_recorded_for_minutes_is_a_microphone_soon_after_it_caught_up() -> None:
    client = Client()
    for _ in range(600):
        await client.send(1.0)
    assert client.judged[-1]
    for _ in range(round(MAX_MICROPHONE_LEAD_S / (MAX_MICROPHONE_PACE - 1)) + 5):
        client.now += 1.0
        await client.send(1.0)
    assert not client.judged[-1]

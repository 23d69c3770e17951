"""When another session is refused because those who are there wait too long."""

from __future__ import annotations

import pytest

from sidecar import errors
from sidecar.access.identity import EVERYBODY
from sidecar.engines import spec_of
from sidecar.sessions.registry import Room, Sessions
from sidecar.sessions.session import Bounds
from sidecar.sessions.waits import LEAST, WINDOW_S, Waits
from sidecar.speech.live import LiveOptions
from sidecar.speech.live_events import Final
from sidecar.speech.transcript import Segment


def told(waits: Waits, *delays_s: float, now: float = 0.0) -> bool:
    for delay_s in delays_s:
        waits.add(delay_s, now)
    return waits.too_long(now)


def test_a_tenth_of_late_finals_is_borne_and_not_more() -> None:
    waits = Waits(1.0)
    assert not told(waits, *[0.1] * 18, 1.4, 1.4)
    assert told(waits, 1.4)


def test_what_the_engine_takes_for_one_alone_is_no_waiting() -> None:
    assert not told(Waits(1.0), *[3.0, 3.9] * LEAST)
    assert told(Waits(1.0), *[3.0, 4.1] * LEAST)


def test_few_finals_say_nothing_nor_do_those_of_long_ago() -> None:
    waits = Waits(1.0)
    assert not told(waits, *[0.1, *[9.0] * (LEAST - 2)])
    assert told(waits, 9.0)
    assert waits.too_long(WINDOW_S)
    assert not waits.too_long(WINDOW_S + 0.1)


def test_without_a_limit_sessions_are_only_counted() -> None:
    assert not told(Waits(0.0), 0.1, *[99.0] * LEAST)


async def test_another_is_refused_while_those_who_are_there_wait_and_nobody_is_sent_away() -> None:
    now = 0.0
    room = Room(delay_s=1.0)
    sessions = Sessions(spec_of("scripted"), _nothing, room, Bounds(), now=lambda: now)
    first = sessions.open(EVERYBODY, LiveOptions())
    for number in range(LEAST):
        wait_s = 5.0 if number else 0.0
        first.heard(Final(number, number, Segment(0, 1, "word", None), wait_s=wait_s))
    with pytest.raises(errors.LiveFull, match="wait too long"):
        sessions.open(EVERYBODY, LiveOptions())
    assert not first.over
    sessions.end(first)
    second = sessions.open(EVERYBODY, LiveOptions())
    sessions.end(second)
    now = WINDOW_S + 1
    sessions.open(EVERYBODY, LiveOptions())
    sessions.open(EVERYBODY, LiveOptions())
    await sessions.close()


class _nothing:  # noqa: N801 - a `Share` that never comes
    async def __aenter__(self) -> None:
        import asyncio

        await asyncio.Event().wait()

    async def __aexit__(self, *what: object) -> None: ...

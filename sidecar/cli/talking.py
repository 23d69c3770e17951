"""One session as it is driven: sound by the clock, what comes back, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar import errors
from sidecar.cli.course import SAMPLE_BYTES, Course, Part
from sidecar.cli.visit import Turn, Visit
from sidecar.interfaces.live import LIVE_RATE

PATIENCE_S = 60.0
"""For the end of a session, once all was sent."""


class EndedEarly(Exception):
    """The service ended a session that its client had not."""


class Refusal(Exception):
    """The service said no; ``code`` is its word for why."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class Carrier(Protocol):
    """What takes sound to the service."""

    async def begin(self, turn: int) -> None:
        """An utterance begins."""

    async def send(self, sound: bytes) -> None:
        """A piece of it, or of a pause."""

    async def end(self, turn: int) -> None:
        """It is over."""

    @property
    def silent(self) -> bool:
        """Whether nothing is sent in a pause."""


@dataclass(frozen=True, slots=True)
class Tempo:
    """Pieces of ``chunk_s``, ``pace`` seconds of sound in a second; 0: as fast as they go."""

    chunk_s: float = 0.1
    pace: float = 1.0


async def play(course: Course, tempo: Tempo, carrier: Carrier, visit: Visit) -> None:
    """Send all of ``course``, and keep in ``visit`` when which utterance began and ended."""
    begun, position = time.monotonic(), 0.0
    for part in course.parts:
        turn = Turn(position, time.monotonic())
        number = len(visit.turns)
        if part.speech:
            visit.turns.append(turn)
            await carrier.begin(number)
        for piece in pieces(part, tempo.chunk_s):
            position += len(piece) / SAMPLE_BYTES / LIVE_RATE
            await _until(begun, position, tempo.pace, visit)
            if part.speech or not carrier.silent:
                await carrier.send(piece)
        if part.speech:
            turn.end_s, turn.ended = position, time.monotonic()
            await carrier.end(number)
    if course.idle_s:
        await asyncio.sleep(course.idle_s)
    visit.sent = time.monotonic()


async def _until(begun: float, position: float, pace: float, visit: Visit) -> None:
    """Wait until that place of the sound has been spoken."""
    if not pace:
        return
    wait = begun + position / pace - time.monotonic()
    if wait > 0:
        await asyncio.sleep(wait)
    visit.late_s = max(visit.late_s, time.monotonic() - begun - position / pace)


def pieces(part: Part, chunk_s: float) -> list[bytes]:
    """A part in pieces of ``chunk_s``, the last as long as it is."""
    size = max(1, round(chunk_s * LIVE_RATE)) * SAMPLE_BYTES
    return [part.sound[at : at + size] for at in range(0, len(part.sound), size)]


async def together(sending: Coroutine[Any, Any, None], reading: Coroutine[Any, Any, None]) -> None:
    """Both, until the service has told the end.

    Raises:
        EndedEarly: it did while there was more to be sent.
        TimeoutError: it did not, for `PATIENCE_S`.
        Exception: whatever either raises; that of ``reading`` where both do.
    """
    spawn = asyncio.get_running_loop().create_task
    sender, reader = spawn(sending), spawn(reading)
    try:
        await asyncio.wait({sender, reader}, return_when=asyncio.FIRST_COMPLETED)
        if sender.done():
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.wait({reader})
        await reader
        if not sender.done():
            raise EndedEarly
        await sender
    finally:
        for task in (sender, reader):
            task.cancel()
        await asyncio.gather(sender, reader, return_exceptions=True)


@contextlib.contextmanager
def visiting(visit: Visit, course: Course) -> Iterator[None]:
    """Around a session: when it began and ended, and as what code it failed, if it did."""
    visit.begun = time.monotonic()
    try:
        yield
    except Exception as error:  # whatever becomes of one session, the others are measured
        visit.error_code = code_of(error)
    visit.ended = time.monotonic()
    if course.seconds and course.parts and not visit.error_code:
        visit.sound_s = course.seconds
        visit.pace.append((visit.ended - visit.begun) / course.seconds)


def code_of(error: Exception) -> str:
    """What a session failed with, in a word: the service's own code where it told one."""
    from vibevoice_asr_client import ServiceError, ServiceUnreachable

    match error:
        case Refusal() | errors.SidecarError():
            return error.code
        case ServiceError():
            return error.code or f"status_{error.status}"
        case EndedEarly():
            return "ended_early"
        case TimeoutError():
            return "timeout"
        case ServiceUnreachable() | OSError():
            return "connection_lost"
    return type(error).__name__

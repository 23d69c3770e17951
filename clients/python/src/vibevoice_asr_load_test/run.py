"""Load test run: concurrent sessions on a target, session of one user, sweep, report."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from vibevoice_asr_load_test import statistics
from vibevoice_asr_load_test.speech import LIVE_RATE, SAMPLE_BYTES, LoadTestAudio, LoadTestScript
from vibevoice_asr_load_test.statistics import LoadTestSession, LoadTestUtterance
from vibevoice_asr_load_test.target import CpuShare, LoadTestTarget

SETTLE_S = 1.0
"""Seconds after each row, so that its sessions have ended before the next is measured."""


@dataclass(frozen=True, slots=True)
class LoadTestWork:
    """Work of a load test. ``course``: the script of session N. ``warm``: that of a warm-up
    session. ``opens``: opens the client of a target.

    ``spread_s``: sessions of a group start within that time.
    """

    course: Callable[[int], LoadTestScript]
    warm: LoadTestScript
    opens: Callable[[LoadTestTarget], AbstractAsyncContextManager[LoadClient]]
    spread_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadTestRow:
    """Result of a number of sessions on one target."""

    side: LoadTestTarget
    sessions: int
    visits: Sequence[statistics.LoadTestSession]
    figures: statistics.Figures


async def sweep(
    work: LoadTestWork,
    sides: Sequence[tuple[LoadTestTarget, LoadClient]],
    counts: Sequence[int],
    begin: Callable[[int], Sequence[float]],
    done: Callable[[LoadTestRow], None],
    warm_up: int = 1,
    settle_s: float = SETTLE_S,
) -> list[list[LoadTestRow]]:
    """Run each number of sessions on all ``sides`` in turn; return the rows of the targets by
    number.

    The first target alternates from one number to the next, so that other load of the machine
    affects both alike. ``begin``: start times for a number of sessions. ``done``: called with each
    row at once. ``settle_s``: as `SETTLE_S`.
    """
    for _, wire in sides:
        for number in range(warm_up):
            await wire.visit(f"warm-up-{number}", work.warm)
    await asyncio.sleep(settle_s)
    found = []
    for step, count in enumerate(counts):
        courses, rows = [work.course(number) for number in range(count)], dict[str, LoadTestRow]()
        for side, wire in sides if step % 2 == 0 else reversed(sides):
            rows[side.name] = await at_once(side, wire, courses, begin(count))
            done(rows[side.name])
            await asyncio.sleep(settle_s)
        found.append([rows[side.name] for side, _ in sides])
    return found


async def at_once(
    side: LoadTestTarget,
    wire: LoadClient,
    courses: Sequence[LoadTestScript],
    begin: Sequence[float] | None = None,
) -> LoadTestRow:
    """Run a session of each script, with start delays ``begin`` in seconds; `None`: all start
    now."""

    async def one(number: int) -> statistics.LoadTestSession:
        await asyncio.sleep(begin[number] if begin is not None else 0.0)
        return await wire.visit(str(number), courses[number])

    share, begun = CpuShare(side.process), time.monotonic()
    visits = await asyncio.gather(*map(one, range(len(courses))))
    cpu, lasted_s = share.so_far(), time.monotonic() - begun
    return LoadTestRow(side, len(courses), visits, statistics.figures_of(visits, lasted_s, cpu))


def render_results(found: Sequence[Sequence[LoadTestRow]], format: str) -> str:
    """Return the rows as text.

    ``markdown``: a line for each figure; of one target a column for each number of sessions, of two
    targets a table for each number. Other formats: a line for each target.
    """
    if format == "markdown":
        if len(found) > 1 and all(len(rows) == 1 for rows in found):
            return _table({str(rows[0].sessions): rows[0].figures for rows in found})
        return "\n".join(_compared_table(rows) for rows in found)
    lines: list[Mapping[str, statistics.Value]] = [
        {"side": row.side.name, **row.figures} for rows in found for row in rows
    ]
    return statistics.render(lines, format)


def render_session_logs(found: Sequence[Sequence[LoadTestRow]], most: int, format: str) -> str:
    """Return a line for each session, of at most ``most`` in each row (0: all)."""
    lines = [
        visit.row(row.side.name, row.sessions)
        for rows in found
        for row in rows
        for visit in row.visits[: most or None]
    ]
    return statistics.render(lines, format)


def broken_bounds(
    found: Sequence[Sequence[LoadTestRow]], bounds: Sequence[statistics.LoadTestBound]
) -> list[str]:
    """Return the bounds that the first target exceeds, with the number of sessions."""
    said = []
    for first, *others in found:
        other = others[0].figures if others else None
        for bound in bounds:
            how = bound.broken(first.figures, other)
            if how is not None:
                said.append(f"with {first.sessions} at once {how}")
    return said


def most_held(rows: Sequence[LoadTestRow], cores: int) -> str:
    """Return how many sessions the target of ``rows`` held at once at most, and what other programs
    took meanwhile of the machine's ``cores``, if the target is on it."""
    best = max(rows, key=lambda row: row.figures["held"] or 0)
    loads = [load for row in rows if (load := row.figures["other_cpu"]) is not None]
    where = "this machine" if loads else best.side.name
    said = f"{where} held {best.figures['held']:g} at once, of {best.sessions}"
    if not loads:
        return f"{said}."
    low, high = f"{min(loads):.1f}", f"{max(loads):.1f}"
    took = low if low == high else f"{low} to {high}"
    return f"{said}, while other programs took {took} of its {cores} cores."


def _compared_table(rows: Sequence[LoadTestRow]) -> str:
    compared = statistics.ratios(rows[0].figures, rows[1].figures) if len(rows) > 1 else None
    last = {} if compared is None else {"ratio": compared}
    return _table({row.side.name: row.figures for row in rows} | last)


def _table(columns: Mapping[str, statistics.Figures]) -> str:
    lines = [
        {"figure": name, **{head: figures[name] for head, figures in columns.items()}}
        for name in statistics.NAMES
    ]
    return statistics.render(lines, "markdown")


class SessionEndedEarly(Exception):
    """The service ended a session before its client did."""


class LoadTestRefusal(Exception):
    """The service refused a request; ``code``: its error code."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class LoadTestSender:
    """Sender of audio. Pauses end utterances, so they are sent, unless it is ``silent``. ``send``:
    sends a chunk of an utterance or of a pause."""

    silent = False

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self.send = send

    async def begin(self, turn: int) -> None:
        """Send the start of an utterance, if the protocol has a message for it."""

    async def end(self, turn: int) -> None:
        """Send the end of an utterance, if the protocol has a message for it."""


@dataclass(frozen=True, slots=True)
class LoadTestTempo:
    """Chunks of ``chunk_s`` seconds, sent at ``pace`` times real time; 0: as fast as possible."""

    chunk_s: float = 0.1
    pace: float = 1.0


LoadTestPlay = Callable[[LoadTestSender], Awaitable[None]]
"""Function that sends all audio of a session with a sender."""
LoadTestSessionRunner = Callable[[str, LoadTestPlay, LoadTestSession], Awaitable[None]]
"""Function that runs one named session, from start to end; it raises if the session fails."""


class LoadClient:
    """Client that runs sessions on one service, by one protocol."""

    def __init__(self, session: LoadTestSessionRunner, tempo: LoadTestTempo | None = None) -> None:
        self._session, self._tempo = session, tempo or LoadTestTempo()

    async def visit(self, name: str, course: LoadTestScript) -> LoadTestSession:
        """Run one session and return its record; never raise."""
        visit = LoadTestSession(name)
        with recorded_session(visit, course):
            await self._session(name, partial(send_script, course, self._tempo, visit), visit)
        return visit


async def send_script(
    course: LoadTestScript, tempo: LoadTestTempo, visit: LoadTestSession, carrier: LoadTestSender
) -> None:
    """Send all of ``course``; record in ``visit`` when each utterance began and ended."""
    begun, position = time.monotonic(), 0.0
    for part in course.parts:
        turn = LoadTestUtterance(position, time.monotonic())
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


async def _until(begun: float, position: float, pace: float, visit: LoadTestSession) -> None:
    """Wait until that position of the audio is due."""
    if not pace:
        return
    wait = begun + position / pace - time.monotonic()
    if wait > 0:
        await asyncio.sleep(wait)
    visit.late_s = max(visit.late_s, time.monotonic() - begun - position / pace)


def pieces(part: LoadTestAudio, chunk_s: float) -> list[bytes]:
    """Return an utterance or pause in chunks of ``chunk_s`` seconds; the last may be shorter."""
    size = max(1, round(chunk_s * LIVE_RATE)) * SAMPLE_BYTES
    return [part.sound[at : at + size] for at in range(0, len(part.sound), size)]


async def run_until_done(
    sending: Coroutine[Any, Any, None], reading: Coroutine[Any, Any, None], answer_s: float
) -> None:
    """Run both until the service has ended the session.

    Raises:
        SessionEndedEarly: it ended while there was more to send.
        TimeoutError: it did not end within ``answer_s`` after all was sent.
        Exception: any exception of either; that of ``reading`` if both raise.
    """
    sender, reader = asyncio.create_task(sending), asyncio.create_task(reading)
    try:
        await asyncio.wait({sender, reader}, return_when=asyncio.FIRST_COMPLETED)
        if sender.done():
            async with asyncio.timeout(answer_s):
                await asyncio.wait({reader})
        await reader
        if not sender.done():
            raise SessionEndedEarly
        await sender
    finally:
        sender.cancel()
        reader.cancel()
        await asyncio.gather(sender, reader, return_exceptions=True)


@contextlib.contextmanager
def recorded_session(visit: LoadTestSession, course: LoadTestScript) -> Iterator[None]:
    """Record when a session began and ended, and its error code if it failed."""
    visit.begun = time.monotonic()
    try:
        yield
    except Exception as error:  # a failed session must not stop the others
        visit.error_code = code_of(error)
    visit.ended = time.monotonic()
    if course.seconds and course.parts and not visit.error_code:
        visit.sound_s = course.seconds
        visit.pace.append((visit.ended - visit.begun) / course.seconds)


def code_of(error: Exception) -> str:
    """Return the error code of a failed session: that of the service if it sent one."""
    from vibevoice_asr_client import ServiceError, ServiceUnreachable

    match error:
        case LoadTestRefusal():
            return error.code
        case ServiceError():
            return error.code or f"status_{error.status}"
        case SessionEndedEarly():
            return "ended_early"
        case TimeoutError():
            return "timeout"
        case ServiceUnreachable() | OSError():
            return "connection_lost"
    return type(error).__name__

"""Load test run: sessions at once on a side, the session of one user, sweep, report."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.cli import bench_statistics
from sidecar.cli.bench_speech import SAMPLE_BYTES, LoadTestAudio, LoadTestScript
from sidecar.cli.bench_statistics import LoadTestSession, LoadTestUtterance
from sidecar.cli.bench_target import CpuShare, LoadTestTarget
from sidecar.concurrency import running
from sidecar.interfaces.live_options import LIVE_RATE

if TYPE_CHECKING:
    from sidecar.cli.bench_clients import LoadClient

SETTLE_S = 1.0
"""Pause after each row, so that its sessions have ended before the next is measured."""


@dataclass(frozen=True, slots=True)
class LoadTestWork:
    """Work of session N, of one that only warms a side up, and of opening a side.

    ``spread_s``: sessions that begin together do so within that.
    """

    course: Callable[[int], LoadTestScript]
    warm: LoadTestScript
    opens: Callable[[LoadTestTarget], AbstractAsyncContextManager[LoadClient]]
    spread_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadTestRow:
    """Result of so many sessions on one side."""

    side: LoadTestTarget
    sessions: int
    visits: Sequence[bench_statistics.LoadTestSession]
    figures: bench_statistics.Figures


async def sweep(
    work: LoadTestWork,
    sides: Sequence[tuple[LoadTestTarget, LoadClient]],
    counts: Sequence[int],
    begin: Callable[[int], Sequence[float]],
    done: Callable[[LoadTestRow], None],
    warm_up: int = 1,
) -> list[list[LoadTestRow]]:
    """Each number of sessions on all ``sides``, in turns; for each number the rows of the sides.

    Who is first changes from one number to the next, so that what a machine does meanwhile hits
    both alike. ``begin``: when each of so many begins. ``done`` is told of each row at once.
    """
    for _, wire in sides:
        for number in range(warm_up):
            await wire.visit(f"warm-up-{number}", work.warm)
    await asyncio.sleep(SETTLE_S)
    found = []
    for step, count in enumerate(counts):
        courses, rows = [work.course(number) for number in range(count)], dict[str, LoadTestRow]()
        for side, wire in sides if step % 2 == 0 else reversed(sides):
            rows[side.name] = await at_once(side, wire, courses, begin(count))
            done(rows[side.name])
            await asyncio.sleep(SETTLE_S)
        found.append([rows[side.name] for side, _ in sides])
    return found


async def at_once(
    side: LoadTestTarget,
    wire: LoadClient,
    courses: Sequence[LoadTestScript],
    begin: Sequence[float] | None = None,
) -> LoadTestRow:
    """A session of each course, which begins so many seconds from now; without ``begin`` now."""

    async def one(number: int) -> bench_statistics.LoadTestSession:
        await asyncio.sleep(begin[number] if begin is not None else 0.0)
        return await wire.visit(str(number), courses[number])

    share, begun = CpuShare(side.process), time.monotonic()
    visits = await asyncio.gather(*map(one, range(len(courses))))
    cpu, lasted_s = share.so_far(), time.monotonic() - begun
    return LoadTestRow(
        side, len(courses), visits, bench_statistics.figures_of(visits, lasted_s, cpu)
    )


def render_results(found: Sequence[Sequence[LoadTestRow]], format: str) -> str:
    """Of each number of sessions the rows of its sides.

    As ``markdown`` a table for each number, with a line for each figure; else a line for each side.
    """
    if format == "markdown":
        return "\n".join(_table(rows) for rows in found)
    lines: list[Mapping[str, bench_statistics.Value]] = [
        {"side": row.side.name, **row.figures} for rows in found for row in rows
    ]
    return bench_statistics.render(lines, format)


def render_session_logs(found: Sequence[Sequence[LoadTestRow]], most: int, format: str) -> str:
    """A line for each session, of at most ``most`` in each row (0: of all)."""
    lines = [
        visit.row(row.side.name, row.sessions)
        for rows in found
        for row in rows
        for visit in row.visits[: most or None]
    ]
    return bench_statistics.render(lines, format)


def broken_bounds(
    found: Sequence[Sequence[LoadTestRow]], bounds: Sequence[bench_statistics.LoadTestBound]
) -> list[str]:
    """Return the bounds that do not hold for the first side, and where."""
    said = []
    for first, *others in found:
        other = others[0].figures if others else None
        for bound in bounds:
            how = bound.broken(first.figures, other)
            if how is not None:
                said.append(f"with {first.sessions} at once {how}")
    return said


def _table(rows: Sequence[LoadTestRow]) -> str:
    lines: list[dict[str, bench_statistics.Value]] = []
    compared = bench_statistics.ratios(rows[0].figures, rows[1].figures) if len(rows) > 1 else {}
    for name in bench_statistics.NAMES:
        line: dict[str, bench_statistics.Value] = {"figure": name}
        for row in rows:
            line[row.side.name] = row.figures[name]
        if compared:
            line["ratio"] = compared[name]
        lines.append(line)
    return bench_statistics.render(lines, "markdown")


ANSWER_TIMEOUT_S = 60.0
"""For the end of a session, once all was sent."""


class SessionEndedEarly(Exception):
    """The service ended a session that its client had not."""


class LoadTestRefusal(Exception):
    """The service said no; ``code`` is its word for why."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class LoadTestSender:
    """Client that sends audio. Pauses end utterances, so they are sent, unless it is ``silent``.
    ``send``: sends a piece of an utterance, or of a pause."""

    silent = False

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self.send = send

    async def begin(self, turn: int) -> None:
        """Send the start of an utterance, if the wire has a message for it."""

    async def end(self, turn: int) -> None:
        """Send the end of an utterance, if the wire has a message for it."""


@dataclass(frozen=True, slots=True)
class LoadTestTempo:
    """Chunks of ``chunk_s``, ``pace`` seconds of audio in a second; 0: as fast as they go."""

    chunk_s: float = 0.1
    pace: float = 1.0


async def send_script(
    course: LoadTestScript, tempo: LoadTestTempo, visit: LoadTestSession, carrier: LoadTestSender
) -> None:
    """Send all of ``course``, and keep in ``visit`` when which utterance began and ended."""
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
    """Wait until that place of the sound has been spoken."""
    if not pace:
        return
    wait = begun + position / pace - time.monotonic()
    if wait > 0:
        await asyncio.sleep(wait)
    visit.late_s = max(visit.late_s, time.monotonic() - begun - position / pace)


def pieces(part: LoadTestAudio, chunk_s: float) -> list[bytes]:
    """A part in pieces of ``chunk_s``, the last as long as it is."""
    size = max(1, round(chunk_s * LIVE_RATE)) * SAMPLE_BYTES
    return [part.sound[at : at + size] for at in range(0, len(part.sound), size)]


async def run_until_done(
    sending: Coroutine[Any, Any, None], reading: Coroutine[Any, Any, None]
) -> None:
    """Both, until the service has told the end.

    Raises:
        EndedEarly: it did while there was more to be sent.
        TimeoutError: it did not, for `ANSWER_TIMEOUT_S`.
        Exception: whatever either raises; that of ``reading`` where both do.
    """
    async with running(sending, reading) as (sender, reader):
        await asyncio.wait({sender, reader}, return_when=asyncio.FIRST_COMPLETED)
        if sender.done():
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await asyncio.wait({reader})
        await reader
        if not sender.done():
            raise SessionEndedEarly
        await sender


@contextlib.contextmanager
def recorded_session(visit: LoadTestSession, course: LoadTestScript) -> Iterator[None]:
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
    """Return the error of a session, in a word: the service's own code if it sent one."""
    from vibevoice_asr_client import ServiceError, ServiceUnreachable

    match error:
        case LoadTestRefusal() | errors.SidecarError():
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

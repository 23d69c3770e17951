"""Load test run: sweep, exit code, report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from sidecar import errors
from sidecar.cli import load_statistics
from sidecar.cli.audio_input import write
from sidecar.cli.backends import Where
from sidecar.cli.load_statistics import (
    NAMES,
    Bound,
    Figures,
    Value,
    Visit,
    bound_of,
    figures_of,
    ratios,
    render,
)
from sidecar.cli.load_target import (
    Course,
    FileWire,
    LiveWire,
    Mode,
    Share,
    Side,
    Tempo,
    course_of,
    look,
    starts,
)
from sidecar.cli.output import INTERRUPTED, complain, say

SETTLE_S = 1.0
"""Behind each row: whoever was there is gone, and nothing of it is measured with the next."""


class Wire(Protocol):
    """Whatever makes visits on a side."""

    async def visit(self, name: str, course: Course) -> Visit:
        """One session from its beginning to its end; never an exception."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a measurement goes. ``spread_s``: sessions of a step begin within that."""

    sessions: Sequence[int]
    course: Callable[[int], Course]
    warm: Course
    warm_up: int = 1
    ramp_steps: int = 5
    ramp_interval_s: float = 0.5
    spread_s: float = 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """What came of so many sessions on one side."""

    side: Side
    sessions: int
    visits: Sequence[Visit]
    figures: Figures


async def sweep(
    plan: Plan, sides: Sequence[tuple[Side, Wire]], done: Callable[[Row], None]
) -> list[list[Row]]:
    """Each number of sessions on all ``sides``, in turns; for each number the rows of the sides.

    Who is first changes from one number to the next, so that what a machine does meanwhile hits
    both alike. ``done`` is told of each row at once.
    """
    for _, wire in sides:
        for number in range(plan.warm_up):
            await wire.visit(f"warm-up-{number}", plan.warm)
    await asyncio.sleep(SETTLE_S)
    found = []
    for step, count in enumerate(plan.sessions):
        rows: dict[str, Row] = {}
        for side, wire in sides if step % 2 == 0 else reversed(sides):
            rows[side.name] = await _row(plan, side, wire, count)
            done(rows[side.name])
            await asyncio.sleep(SETTLE_S)
        found.append([rows[side.name] for side, _ in sides])
    return found


async def _row(plan: Plan, side: Side, wire: Wire, count: int) -> Row:
    courses = [plan.course(number) for number in range(count)]
    when = starts(count, plan.ramp_steps, plan.ramp_interval_s, plan.spread_s)

    async def one(number: int) -> Visit:
        await asyncio.sleep(when[number])
        return await wire.visit(str(number), courses[number])

    share, begun = Share(side.process), time.monotonic()
    visits = await asyncio.gather(*(one(number) for number in range(count)))
    cpu, lasted_s = share.so_far(), time.monotonic() - begun
    return Row(side, count, visits, figures_of(visits, lasted_s, cpu))


Opens = Callable[[Side], AbstractAsyncContextManager[Wire]]
"""Makes ready to visit a side."""


@dataclass(frozen=True, slots=True)
class Ready:
    """All that is needed: what session N does, and what one does that only warms a side up.

    ``spread_s``: sessions that begin together do so within that.
    """

    course: Callable[[int], Course]
    warm: Course
    opens: Opens
    spread_s: float = 0.0


class Work(Protocol):
    """What is to be done on each side."""

    def ready(self) -> Ready:
        """Look at the recordings.

        Raises:
            errors.SidecarError: one cannot be used.
        """

    def wire_named(self, name: str) -> LiveWire | FileWire | None:
        """A wire by which it can be done; None where that is no name of one."""


@dataclass(frozen=True, slots=True)
class LiveWork:
    """Sessions of some ``seconds``, with utterances of ``talk_s`` out of ``audio``."""

    audio: Path | None = None
    mode: Mode = Mode.TALK
    seconds: float = 20.0
    talk_s: float = 3.0
    pause_s: float = 4.0
    tempo: Tempo = field(default_factory=Tempo)

    def ready(self) -> Ready:
        """Cut the utterances."""
        from sidecar.cli.demo import sample
        from sidecar.cli.load_target import clips_of

        idle = self.mode is Mode.IDLE
        clips = [] if idle else clips_of(self.audio or sample(), self.talk_s)

        def course(number: int) -> Course:
            return course_of(self.mode, clips, self.seconds, self.pause_s, number)

        warm = course_of(self.mode, clips, 0.0, self.pause_s, 0)
        return Ready(course, warm, self._opened, self.tempo.chunk_s)

    def wire_named(self, name: str) -> LiveWire | None:
        """Of those for live audio."""
        return LiveWire(name) if name in tuple(LiveWire) else None

    def _opened(self, side: Side) -> AbstractAsyncContextManager[Wire]:
        from sidecar.cli import load_clients

        match side.wire:
            case LiveWire.STREAMING:
                return load_clients.open_yap_client(side, self.tempo)
            case LiveWire.GRPC:
                return load_clients.open_grpc_client(side, self.tempo)
        return load_clients.open_live_client(side, self.tempo)


@dataclass(frozen=True, slots=True)
class FileWork:
    """Clients that each send ``repeat`` recordings one after another."""

    files: Sequence[Path] = ()
    repeat: int = 2

    def ready(self) -> Ready:
        """Look at the recordings."""
        from sidecar.cli import load_clients
        from sidecar.cli.audio_input import spread
        from sidecar.cli.demo import sample
        from sidecar.cli.load_target import recordings_of

        recordings = recordings_of(spread(self.files) or [sample()])

        def opened(side: Side) -> AbstractAsyncContextManager[Wire]:
            return load_clients.open_file_client(side, recordings, self.repeat)

        return Ready(lambda _: Course(), Course(), opened)

    def wire_named(self, name: str) -> FileWire | None:
        """Of those for recordings."""
        return FileWire(name) if name in tuple(FileWire) else None


def results(found: Sequence[Sequence[Row]], format: str) -> str:
    """Of each number of sessions the rows of its sides.

    As ``markdown`` a table for each number, with a line for each figure; else a line for each side.
    """
    if format == "markdown":
        return "\n".join(_table(rows) for rows in found)
    lines: list[Mapping[str, Value]] = [
        {"side": row.side.name, **row.figures} for rows in found for row in rows
    ]
    return render(lines, format)


def logs(found: Sequence[Sequence[Row]], most: int, format: str) -> str:
    """A line for each session, of at most ``most`` in each row (0: of all)."""
    lines = [
        visit.row(row.side.name, row.sessions)
        for rows in found
        for row in rows
        for visit in row.visits[: most or None]
    ]
    return render(lines, format)


def broken(found: Sequence[Sequence[Row]], bounds: Sequence[Bound]) -> list[str]:
    """Which bounds do not hold for the first side, and where."""
    said = []
    for first, *others in found:
        other = others[0].figures if others else None
        for bound in bounds:
            how = bound.broken(first.figures, other)
            if how is not None:
                said.append(f"with {first.sessions} at once {how}")
    return said


def summed_up(row: Row) -> str:
    """A row in a line, for who waits for the rest."""
    figures = row.figures
    spread = ", ".join(
        f"{name} {figures[f'{name}_p50']:.3f}/{figures[f'{name}_p95']:.3f} s"
        for name in ("first", "final")
        if figures[f"{name}_p50"] is not None
    )
    codes = sorted({one.error_code for one in row.visits if one.error_code})
    wrong = f"; {figures['errors']:g} failed ({', '.join(codes)})" if codes else ""
    said = f"{spread} (p50/p95)" if spread else f"{figures['held']:g} held"
    return f"{row.sessions} x {row.side.name}: {said}{wrong}"


def _table(rows: Sequence[Row]) -> str:
    lines: list[dict[str, Value]] = []
    compared = ratios(rows[0].figures, rows[1].figures) if len(rows) > 1 else {}
    for name in NAMES:
        line: dict[str, Value] = {"figure": name}
        for row in rows:
            line[row.side.name] = row.figures[name]
        if compared:
            line["ratio"] = compared[name]
        lines.append(line)
    return render(lines, "markdown")


BROKEN = 1
"""Exit code where a bound does not hold, or nothing went well."""
STANDARD_OUTPUT = Path("-")


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line asked for. ``against``: a wire, or the address of another service."""

    work: Work
    where: Where
    wire: LiveWire | FileWire
    sessions: Sequence[int]
    start: bool = False
    against: str | None = None
    warm_up: int = 1
    ramp_steps: int = 5
    ramp_interval_s: float = 0.5
    format: str = "markdown"
    log: Path | None = None
    log_format: str | None = None
    most_logs: int = 0
    fail_if: Sequence[str] = ()

    @property
    def bounds(self) -> list[Bound]:
        """What must not be."""
        return [bound_of(text, compared=self.against is not None) for text in self.fail_if]


def run(order: Order) -> int:
    """Measure, print, and judge; the exit code. Every failure is one line on stderr."""
    try:
        bounds, ready = order.bounds, order.work.ready()
        format = load_statistics.format_of(order.format, None)
        log_format = load_statistics.format_of(order.log_format, order.log)
        with _service(order) as where:
            if where is None:
                return BROKEN
            found = asyncio.run(_measure(order, where, ready))
        print(results(found, format), end="")
        if order.log is not None:
            _log(order.log, logs(found, order.most_logs, log_format))
        return _judged(found, bounds)
    except errors.SidecarError as error:
        return complain(error)
    except OSError as error:
        say(f"{error.filename or order.log}: cannot be written: {error.strerror}.")
        return BROKEN
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED


def _judged(found: Sequence[Sequence[Row]], bounds: Sequence[Bound]) -> int:
    said = broken(found, bounds)
    for line in said:
        say(f"failed: {line}")
    nothing = not any(row.figures["held"] for rows in found for row in rows[:1])
    if nothing:
        say("failed: no session went well.")
    return BROKEN if said or nothing else 0


def _log(path: Path, text: str) -> None:
    if path == STANDARD_OUTPUT:
        print(text, end="")
    else:
        write(path, text)


@contextmanager
def _service(order: Order) -> Generator[Where | None, None, None]:
    """Where the service is; one of our own where that is asked for, None if it does not start."""
    if order.start:
        from vibevoice_asr_client import Trust

        from sidecar.cli.backends import started

        with started(_settings(order)) as (service, ready):
            if ready is None:
                service.wait()
                yield None
                return
            pinned = Trust(fingerprint=ready["fingerprint"]) if "fingerprint" in ready else None
            yield replace(order.where, server=ready["url"], token=ready.get("token"), trust=pinned)
        return
    where = order.where
    if where.server is None:
        from sidecar.cli.status import configured_service

        server, own = configured_service()
        trust = where.trust if where.trust is not None and where.trust.given else own
        where = replace(where, server=server, trust=trust)
    yield where


def _settings(order: Order) -> dict[str, object]:
    """Of a service of our own: on free ports, with room for all."""
    given: dict[str, object] = {"port": 0, "live_sessions": max(*order.sessions, 100)}
    if LiveWire.GRPC in (order.wire, order.against):
        given["grpc_port"] = 0
    return given


async def _measure(order: Order, where: Where, ready: Ready) -> list[list[Row]]:
    from sidecar.auth.startup_token import for_clients
    from sidecar.cli.remote_service import warn_of
    from sidecar.config.settings import load_settings

    warn_of(where.trust)
    where = replace(where, token=where.token or for_clients(load_settings()))
    plan = Plan(
        order.sessions,
        ready.course,
        ready.warm,
        order.warm_up,
        order.ramp_steps,
        order.ramp_interval_s,
        ready.spread_s,
    )
    async with AsyncExitStack() as stack:
        sides = []
        for side in await _sides(order, where):
            sides.append((side, await stack.enter_async_context(ready.opens(side))))
        return await sweep(plan, sides, lambda row: say(summed_up(row)))


async def _sides(order: Order, where: Where) -> list[Side]:
    sides = [await look(where, order.wire)]
    if order.against is not None:
        wire = order.work.wire_named(order.against)
        if wire is None:
            # What was said of a certificate is of no use where nothing is encrypted.
            plain = order.against.startswith(("http://", "grpc://"))
            other = replace(where, server=order.against, trust=None if plain else where.trust)
            sides.append(await look(other, order.wire))
        else:
            sides.append(await look(where, wire))
        if sides[0].name == sides[1].name:  # the same twice: what is measured of it is noise
            sides[1] = replace(sides[1], name=f"{sides[1].name} (again)")
    return sides

"""Load test run: sessions at once on a side, sweep, report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.cli import load_statistics
from sidecar.cli.load_target import CpuShare, LoadTestScript, LoadTestTarget

if TYPE_CHECKING:
    from sidecar.cli.load_clients import LoadClient

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
    visits: Sequence[load_statistics.LoadTestSession]
    figures: load_statistics.Figures


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

    async def one(number: int) -> load_statistics.LoadTestSession:
        await asyncio.sleep(begin[number] if begin is not None else 0.0)
        return await wire.visit(str(number), courses[number])

    share, begun = CpuShare(side.process), time.monotonic()
    visits = await asyncio.gather(*map(one, range(len(courses))))
    cpu, lasted_s = share.so_far(), time.monotonic() - begun
    return LoadTestRow(
        side, len(courses), visits, load_statistics.figures_of(visits, lasted_s, cpu)
    )


def render_results(found: Sequence[Sequence[LoadTestRow]], format: str) -> str:
    """Of each number of sessions the rows of its sides.

    As ``markdown`` a table for each number, with a line for each figure; else a line for each side.
    """
    if format == "markdown":
        return "\n".join(_table(rows) for rows in found)
    lines: list[Mapping[str, load_statistics.Value]] = [
        {"side": row.side.name, **row.figures} for rows in found for row in rows
    ]
    return load_statistics.render(lines, format)


def render_session_logs(found: Sequence[Sequence[LoadTestRow]], most: int, format: str) -> str:
    """A line for each session, of at most ``most`` in each row (0: of all)."""
    lines = [
        visit.row(row.side.name, row.sessions)
        for rows in found
        for row in rows
        for visit in row.visits[: most or None]
    ]
    return load_statistics.render(lines, format)


def broken_bounds(
    found: Sequence[Sequence[LoadTestRow]], bounds: Sequence[load_statistics.LoadTestBound]
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


def row_summary(row: LoadTestRow) -> str:
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


def _table(rows: Sequence[LoadTestRow]) -> str:
    lines: list[dict[str, load_statistics.Value]] = []
    compared = load_statistics.ratios(rows[0].figures, rows[1].figures) if len(rows) > 1 else {}
    for name in load_statistics.NAMES:
        line: dict[str, load_statistics.Value] = {"figure": name}
        for row in rows:
            line[row.side.name] = row.figures[name]
        if compared:
            line["ratio"] = compared[name]
        lines.append(line)
    return load_statistics.render(lines, "markdown")

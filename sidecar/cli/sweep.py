"""Rows of a measurement: so many sessions at once on each side, in turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecar.cli.course import Course, starts
from sidecar.cli.figures import Figures, figures_of
from sidecar.cli.processor import Share
from sidecar.cli.side import Side
from sidecar.cli.visit import Visit

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

"""A measurement from the order to its exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sidecar import errors
from sidecar.cli import load_report, rendering
from sidecar.cli.backends import Where
from sidecar.cli.bounds import Bound, bound_of
from sidecar.cli.recordings import write
from sidecar.cli.said import INTERRUPTED, complain, say
from sidecar.cli.side import FileWire, LiveWire, Side, look
from sidecar.cli.sweep import Plan, Row, sweep
from sidecar.cli.work import Ready, Work

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
        format = rendering.format_of(order.format, None)
        log_format = rendering.format_of(order.log_format, order.log)
        with _service(order) as where:
            if where is None:
                return BROKEN
            found = asyncio.run(_measure(order, where, ready))
        print(load_report.results(found, format), end="")
        if order.log is not None:
            _log(order.log, load_report.logs(found, order.most_logs, log_format))
        return _judged(found, bounds)
    except errors.SidecarError as error:
        return complain(error)
    except OSError as error:
        say(f"{error.filename or order.log}: cannot be written: {error.strerror}.")
        return BROKEN
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED


def _judged(found: Sequence[Sequence[Row]], bounds: Sequence[Bound]) -> int:
    said = load_report.broken(found, bounds)
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

        from sidecar.cli.started import started

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
    from sidecar.auth.credentials import for_clients
    from sidecar.cli.remote import warn_of
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
        return await sweep(plan, sides, lambda row: say(load_report.summed_up(row)))


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

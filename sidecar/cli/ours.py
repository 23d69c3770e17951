"""Live audio over `/v1/live`, by the client that everybody has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from sidecar.cli import talking
from sidecar.cli.course import Course
from sidecar.cli.side import Side
from sidecar.cli.talking import Tempo, play, together, visiting
from sidecar.cli.visit import Visit

if TYPE_CHECKING:
    from vibevoice_asr_client import AsyncClient, AsyncLive


class Ours:
    """Sessions of one service."""

    def __init__(self, client: AsyncClient, tempo: Tempo) -> None:
        self._client, self._tempo = client, tempo

    async def visit(self, name: str, course: Course) -> Visit:
        """One of them, from its beginning to its summary."""
        visit = Visit(name)
        with visiting(visit, course):
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(talking.PATIENCE_S):
                    live = await stack.enter_async_context(self._client.live(diarize=False))
                await together(self._send(live, course, visit), _read(live, visit))
        return visit

    async def _send(self, live: AsyncLive, course: Course, visit: Visit) -> None:
        await play(course, self._tempo, _Carrier(live), visit)
        await live.finish()


class _Carrier:
    """Pauses end utterances, so they are sent."""

    silent = False

    def __init__(self, live: AsyncLive) -> None:
        self._live = live

    async def begin(self, turn: int) -> None:
        """The service hears that by itself."""

    async def send(self, sound: bytes) -> None:
        """To the service."""
        await self._live.send(sound)

    async def end(self, turn: int) -> None:
        """The service hears that by itself."""


async def _read(live: AsyncLive, visit: Visit) -> None:
    from vibevoice_asr_client import Final, Partial, Summary

    decode = visit.decode
    async for event in live:
        now = time.monotonic()
        match event:
            case Partial() if event.text:  # what is worth showing: other wires tell no more
                middle = (event.start + event.end) / 2
                visit.heard(visit.turn_at(middle), now, final=False)
            case Final():
                middle = (event.segment.start + event.segment.end) / 2
                visit.heard(visit.turn_at(middle), now, final=True)
                decode["queue_wait"] = decode.get("queue_wait", 0.0) + event.wait_s
                decode["inference"] = decode.get("inference", 0.0) + event.work_s
            case Summary():
                return


@asynccontextmanager
async def opened(side: Side, tempo: Tempo) -> AsyncGenerator[Ours, None]:
    """Sessions of ``side``, each of one attempt."""
    from vibevoice_asr_client import NEVER, AsyncClient

    async with AsyncClient(side.url, side.token, trust=side.trust, retry=NEVER) as client:
        yield Ours(client, tempo)

"""Recordings over HTTP: one client sends one after another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from sidecar.cli.course import Course
from sidecar.cli.sample import Recording
from sidecar.cli.side import FileWire, Side
from sidecar.cli.talking import Refusal, visiting
from sidecar.cli.visit import Turn, Visit

if TYPE_CHECKING:
    import httpx
    from vibevoice_asr_client import AsyncClient

LONGEST_S = 3600.0
"""For an answer."""


class _Asks(Protocol):
    async def __call__(self, recording: Recording, visit: Visit, turn: Turn) -> None:
        """Send a recording, and wait until all of it is told; an exception where it is not."""


class Files:
    """Clients of one service, each with ``recordings`` from another one on."""

    def __init__(self, asks: _Asks, recordings: list[Recording], repeat: int) -> None:
        self._asks, self._recordings, self._repeat = asks, recordings, repeat

    async def visit(self, name: str, course: Course) -> Visit:
        """One of them, with so many recordings one behind the other."""
        visit = Visit(name)
        shift = int(name) if name.isdecimal() else 0
        with visiting(visit, course):
            for number in range(self._repeat):
                recording = self._recordings[(shift + number) % len(self._recordings)]
                turn = Turn(0.0, time.monotonic(), recording.seconds)
                turn.ended = turn.began  # it is sent as a whole
                visit.turns.append(turn)
                await self._asks(recording, visit, turn)
                turn.final = time.monotonic()
                visit.pace.append((turn.final - turn.began) / max(recording.seconds, 1e-3))
                visit.sound_s += recording.seconds
                visit.sent = turn.final
        return visit


class _Posts:
    """An answer to each request."""

    def __init__(self, http: httpx.AsyncClient, path: str, part: str, fields: Mapping[str, str]):
        self._http, self._path, self._part, self._fields = http, path, part, fields

    async def __call__(self, recording: Recording, visit: Visit, turn: Turn) -> None:
        import httpx

        with recording.path.open("rb") as file:
            try:
                answer = await self._http.post(
                    self._path, data=dict(self._fields), files={self._part: ("recording", file)}
                )
            except httpx.TimeoutException:
                raise TimeoutError from None
            except httpx.TransportError as error:
                raise ConnectionError(type(error).__name__) from None
        visit.responses += 1
        if not answer.is_success:
            raise Refusal(_code_of(answer))


class _Jobs:
    """A job that is followed by its events."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def __call__(self, recording: Recording, visit: Visit, turn: Turn) -> None:
        job = await self._client.submit(recording.path, name="recording")
        try:
            async for event in self._client.events(job.id):
                if event.kind == "segment":
                    visit.heard(turn, time.monotonic(), final=False)
            ended = await self._client.job(job.id)
            if ended.error is not None:
                raise ended.error
            await self._client.transcript(job.id)
        finally:
            await self._client.cancel(job.id)


def _code_of(answer: httpx.Response) -> str:
    """The code of a problem, or of an error in OpenAI's words; else the status."""
    try:
        body = answer.json()
        said = body.get("error", body)
        return str(said["code"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"status_{answer.status_code}"


@asynccontextmanager
async def opened(
    side: Side, recordings: list[Recording], repeat: int
) -> AsyncGenerator[Files, None]:
    """Clients of ``side``; each sends ``repeat`` recordings."""
    from vibevoice_asr_client import NEVER, AsyncClient

    async with AsyncExitStack() as stack:
        asks: _Asks
        if side.wire is FileWire.JOBS:
            client = AsyncClient(side.url, side.token, trust=side.trust, retry=NEVER)
            asks = _Jobs(await stack.enter_async_context(client))
        else:
            http = await stack.enter_async_context(await _http(side))
            openai = side.wire is FileWire.OPENAI
            asks = (
                _Posts(http, "/v1/audio/transcriptions", "file", {"model": "whisper-1"})
                if openai
                else _Posts(http, "/transcribe", "audio", {})
            )
        yield Files(asks, recordings, repeat)


async def _http(side: Side) -> httpx.AsyncClient:
    import httpx

    context = None
    if side.trust is not None:
        context = await asyncio.to_thread(side.trust.context, side.url)
    return httpx.AsyncClient(
        base_url=side.url,
        headers={"Authorization": f"Bearer {side.token}"} if side.token else {},
        timeout=httpx.Timeout(LONGEST_S, connect=10.0),
        limits=httpx.Limits(max_connections=None),
        trust_env=False,
        verify=True if context is None else context,
    )

"""Live audio over `/api/asr-streaming`: an envelope of JSON, a request for each utterance."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sidecar.cli import talking
from sidecar.cli.course import Course
from sidecar.cli.side import Side
from sidecar.cli.talking import Refusal, Tempo, play, together, visiting
from sidecar.cli.visit import Visit

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

PATH = "/api/asr-streaming"
READY_S = 10.0
READY = frozenset({"session.created", "session.updated"})
WORDS = "transcription.delta"
"""Another vocabulary says the same again; one is counted."""
DONE = "transcription.done"
KEY = "X-API-Key"
LONGEST_MESSAGE = 32 << 20


class Streaming:
    """Connections of one service."""

    def __init__(self, side: Side, tempo: Tempo, context: ssl.SSLContext | None) -> None:
        self._side, self._tempo, self._context = side, tempo, context

    async def visit(self, name: str, course: Course) -> Visit:
        """One of them, from the handshake to its farewell."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed, InvalidStatus

        visit = Visit(name)
        key = {KEY: self._side.token} if self._side.token else {}
        tls: dict[str, Any] = {} if self._context is None else {"ssl": self._context}
        with visiting(visit, course):
            try:
                async with connect(
                    f"ws{self._side.url.removeprefix('http')}{PATH}",
                    additional_headers=key,
                    proxy=None,
                    compression=None,
                    max_size=LONGEST_MESSAGE,
                    ping_interval=None,  # as clients of that wire do
                    **tls,
                ) as socket:
                    talk = _Talk(socket, name, visit)
                    await talk.ready()
                    await together(talk.all_of(course, self._tempo), talk.read())
            except InvalidStatus as error:
                raise Refusal(f"status_{error.response.status_code}") from None
            except ConnectionClosed as error:
                raise Refusal(f"closed_{error.rcvd.code if error.rcvd else 1006}") from None
        return visit


class _Talk:
    """One connection. A commit ends an utterance, so nothing is sent in pauses."""

    silent = True

    def __init__(self, socket: ClientConnection, name: str, visit: Visit) -> None:
        self._socket, self._name, self._visit = socket, name, visit
        self._request = 0
        self._told = asyncio.Event()

    async def ready(self) -> None:
        """Clients wait for that before they send anything, but not for ever: some servers say it
        only when they were told something."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while (await self._frame())["type"] not in READY:
                    pass

    async def all_of(self, course: Course, tempo: Tempo) -> None:
        """All of it, until everything is told; then the farewell."""
        await play(course, tempo, self, self._visit)
        async with asyncio.timeout(talking.PATIENCE_S):
            while self._visit.lost:
                self._told.clear()
                await self._told.wait()
        await self._say("end")

    async def begin(self, turn: int) -> None:
        """A request of its own."""
        self._request = turn
        await self._say("input_audio_buffer.commit", final=False)

    async def send(self, sound: bytes) -> None:
        """A piece of it."""
        await self._say("input_audio_buffer.append", audio=base64.b64encode(sound).decode())

    async def end(self, turn: int) -> None:
        """It is over, and all of it is wanted."""
        await self._say("input_audio_buffer.commit", final=True)

    async def read(self) -> None:
        """What comes back, to the farewell."""
        while (frame := await self._frame())["type"] != "session_end":
            kind, now = frame["type"], time.monotonic()
            if kind in (WORDS, DONE):
                turns, request = self._visit.turns, str(frame["request_id"])
                known = request.isdecimal() and int(request) < len(turns)
                self._visit.heard(turns[int(request)] if known else None, now, final=kind == DONE)
                self._told.set()

    async def _frame(self) -> dict[str, Any]:
        try:
            frame: dict[str, Any] = json.loads(await self._socket.recv())
            kind, payload = frame["type"], frame["payload"]
        except (ValueError, KeyError, TypeError):
            raise Refusal("answer_not_understood") from None
        if kind == "error":
            raise Refusal(str((payload or {}).get("code") or kind))
        return frame

    async def _say(self, kind: str, **payload: object) -> None:
        ids = {"session_id": self._name, "request_id": str(self._request)}
        await self._socket.send(json.dumps({"type": kind, **ids, "payload": payload}))


@asynccontextmanager
async def opened(side: Side, tempo: Tempo) -> AsyncGenerator[Streaming, None]:
    """Connections of ``side``."""
    context = None
    if side.trust is not None:
        context = await asyncio.to_thread(side.trust.context, side.url)
    yield Streaming(side, tempo, context)

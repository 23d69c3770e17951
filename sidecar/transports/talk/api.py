"""A spoken conversation: `/stream`, `/status`, `/config`.

Binary messages are sound, 16-bit mono at the rates of the greeting; text messages are JSON, and
what is unknown is passed over, on both sides.
"""

from __future__ import annotations

import json

from fastapi import APIRouter, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from sidecar import errors
from sidecar.service import Service
from sidecar.speech.voice import SayOptions
from sidecar.talk.events import Cancelled, Reset, Typed
from sidecar.talk.talk import Talk
from sidecar.transports.http import sockets
from sidecar.transports.http.bodies import json_response
from sidecar.transports.http.sockets import Gone, Message, Socket
from sidecar.transports.talk import dialect, models
from sidecar.transports.talk.dialect import Dialect

PATH = "/stream"


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()

    @router.websocket(PATH)
    async def stream(websocket: WebSocket) -> None:
        socket = await Socket.accept(websocket, service.settings)
        try:
            await _converse(service, socket)
        except Gone:
            pass
        except errors.SidecarError as error:
            await socket.say(_said(error))
            await socket.close(sockets.close_code(error), error.code)

    @router.get("/status", summary="How conversations are going", response_model=models.State)
    async def status() -> Response:
        talks = service.conversations
        body = {
            "state": talks.phase.value,
            "initialized": service.live.spec is not None,
            "total_requests": talks.replies,
            "last_metrics": dialect.metrics_of(talks.last),
        }
        return json_response(body)

    @router.get(
        "/config", summary="Who hears, thinks and speaks", response_model=models.Configuration
    )
    async def config() -> Response:
        hears, speaks = service.live.spec, service.fleet.voice_spec
        body = {
            "asr_model": hears.name if hears is not None else "none",
            "llm_model": service.conversations.llm,
            "tts_model": speaks.name if speaks is not None else "none",
            "input_sample_rate": dialect.IN_RATE,
            "output_sample_rate": dialect.OUT_RATE,
        }
        return json_response(body)

    return router


async def refuse(error: errors.SidecarError, scope: Scope, receive: Receive, send: Send) -> None:
    """Says no to who was not let in: in a message, and by closing."""
    websocket = WebSocket(scope, receive, send)
    await sockets.turn_away(websocket, _said(error), sockets.close_code(error), error.code)


async def _converse(service: Service, socket: Socket) -> None:
    settings, options = service.settings, service.conversations.options()
    manner = SayOptions(settings.talk_voice, settings.language, rate=dialect.OUT_RATE)
    async with service.conversations.open(socket.caller, options, manner) as talk:
        wire = _Wire(socket, talk)
        await socket.send(dialect.greeting(talk.greeting))
        await socket.side_by_side(socket.read(wire.at_once), wire.hear(), talk.run(), wire.tell())


def _said(error: errors.SidecarError) -> str:
    return dialect.message("error", message=f"{error.detail} ({error.code})")


class _Wire:
    """One connection: what is read, heard and told, each in a task of its own."""

    def __init__(self, socket: Socket, talk: Talk) -> None:
        self._socket, self._talk = socket, talk

    async def at_once(self, message: Message) -> bool:
        """What is typed goes ahead of sound that waits."""
        self._socket.count()
        if isinstance(message, bytes):
            return False
        try:
            given = json.loads(message)
        except (ValueError, RecursionError):
            await self._socket.send(_said(errors.RequestInvalid("This is no JSON.")))
            return True
        match given:
            case {"type": "reset"}:
                self._socket.inbound.clear()
                self._talk.wish(Reset)
            case {"type": "text", "text": str(text)}:
                self._talk.wish(Typed, text)
            case {"type": "interrupt"}:
                self._talk.wish(Cancelled)
        return True

    async def hear(self) -> None:
        """Sound, in its turn."""
        async for raw in self._socket.inbound:
            try:
                await self._talk.hear(raw, rate=dialect.IN_RATE)
            except (errors.SoundInvalid, errors.ChunkTooLong) as error:
                await self._socket.send(_said(error))

    async def tell(self) -> None:
        """What comes of it."""
        words = Dialect()
        async for out in self._talk.outgoing():
            await self._socket.send(*words.of(out))

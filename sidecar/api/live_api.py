"""The address of live audio: `GET /v1/live`, a WebSocket."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from sidecar import errors
from sidecar.api import live_dialect
from sidecar.api.connection import converse
from sidecar.api.http import sockets
from sidecar.api.http.sockets import Gone, Socket
from sidecar.service import Service

PATH = "/v1/live"
SPOKEN = ("vibevoice-live",)
"""The subprotocol that is answered where a client offers it, beside its key."""


def build_router(service: Service) -> APIRouter:
    """The one route."""
    router = APIRouter()

    @router.websocket(PATH)
    async def live(websocket: WebSocket) -> None:
        socket = await Socket.accept(websocket, service.settings, SPOKEN)
        try:
            await converse(socket, service)
            await socket.close()
        except Gone:
            pass
        except errors.SidecarError as error:
            await socket.say(live_dialect.error_message(error))
            await socket.close(sockets.close_code(error, live_dialect.CODES), error.code)

    return router


async def refuse(error: errors.SidecarError, scope: Scope, receive: Receive, send: Send) -> None:
    """Say no to somebody who was not let in, where a browser hears it too: in a frame."""
    websocket = WebSocket(scope, receive, send)
    await websocket.receive()
    await sockets.greet(websocket, SPOKEN)
    await websocket.send_text(live_dialect.error_message(error))
    await sockets.close(websocket, sockets.close_code(error, live_dialect.CODES), error.code)

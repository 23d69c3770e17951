"""A spoken conversation: `/stream`, `/status`, `/config`, `/v1/talk`.

Binary messages are sound, 16-bit mono at the rates of the greeting; text messages are JSON, and
what is unknown is passed over, on both sides.
"""

from __future__ import annotations

from fastapi import APIRouter, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from sidecar import errors
from sidecar.api.http import sockets
from sidecar.api.http.bodies import json_response
from sidecar.api.http.schemas import PROBLEMS
from sidecar.api.http.sockets import Gone, Socket
from sidecar.protocols.s2s import dialect, models, session
from sidecar.service import Service
from sidecar.tts.voice_selection import PULL

PATH = "/stream"
SPOKEN = ("vibevoice-talk",)
"""The subprotocol of pages that bring a token beside it; who offers none is welcome, too."""
NO_VOICE = f"One comes by: {PULL}. Then start the service again."


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()

    @router.websocket(PATH)
    async def stream(websocket: WebSocket) -> None:
        socket = await Socket.accept(websocket, service.settings, SPOKEN)
        try:
            await session.converse(service, socket)
        except Gone:
            pass
        except errors.SidecarError as error:
            await socket.say(dialect.trouble(error))
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

    @router.get(
        "/v1/talk",
        summary="Who takes part in conversations, and who else may",
        response_model=models.Parts,
        responses=PROBLEMS,
    )
    async def parts() -> Response:
        hears, speaks = service.live.spec, service.fleet.voice_spec
        talks = service.conversations
        models_there, voices = await talks.models(), await talks.voices()
        body = {
            "hears": hears and {"name": hears.name, "title": hears.title},
            "thinks": {"name": talks.llm, "models": models_there},
            "speaks": speaks
            and {
                "name": speaks.name,
                "title": speaks.title,
                "voices": voices,
                "voice": service.settings.talk_voice or next(iter(voices), ""),
            },
            "remedy": "" if speaks else NO_VOICE,
        }
        return json_response(body)

    return router


async def refuse(error: errors.SidecarError, scope: Scope, receive: Receive, send: Send) -> None:
    """Says no to who was not let in: in a message, and by closing."""
    websocket = WebSocket(scope, receive, send)
    await sockets.turn_away(
        websocket, dialect.trouble(error), sockets.close_code(error), error.code, SPOKEN
    )

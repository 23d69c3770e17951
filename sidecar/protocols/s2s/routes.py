"""Routes /stream, /status, /config, /v1/talk.

Binary messages are sound, 16-bit mono at the rates of the greeting; text messages are JSON, and
what is unknown is passed over, on both sides.

Beside `/stream`, `/status` and `/config`. At ours these addresses have more to say.
"""

from __future__ import annotations

from fastapi import APIRouter, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from sidecar import errors
from sidecar.api.http import websocket_connections
from sidecar.api.http.responses import json_response
from sidecar.api.http.schemas import PROBLEMS
from sidecar.api.http.websocket_connections import WebSocketConnection, WebSocketGone
from sidecar.protocols.s2s import messages, session
from sidecar.service.facade import Service
from sidecar.tts.voice_selection import PULL_COMMAND

PATH = "/stream"
SUBPROTOCOLS = ("vibevoice-talk",)
"""The subprotocol of pages that bring a token beside it; who offers none is welcome, too."""
NO_VOICE = f"One comes by: {PULL_COMMAND}. Then start the service again."


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()

    @router.websocket(PATH)
    async def stream(websocket: WebSocket) -> None:
        socket = await WebSocketConnection.accept(websocket, SUBPROTOCOLS)
        try:
            await session.serve_conversation(service, socket)
        except WebSocketGone:
            pass
        except errors.SidecarError as error:
            await socket.say(messages.s2s_error_message(error))
            await socket.close(websocket_connections.close_code(error), error.code)

    @router.get("/status", summary="How conversations are going", response_model=messages.S2SStatus)
    async def status() -> Response:
        talks = service.conversations
        body = {
            "state": talks.phase.value,
            "initialized": service.live.spec is not None,
            "total_requests": talks.replies,
            "last_metrics": messages.metrics_of(talks.last),
        }
        return json_response(body)

    @router.get(
        "/config", summary="Who hears, thinks and speaks", response_model=messages.S2SConfiguration
    )
    async def config() -> Response:
        hears, speaks = service.live.spec, service.fleet.tts_spec
        body = {
            "asr_model": hears.name if hears is not None else "none",
            "llm_model": service.conversations.llm,
            "tts_model": speaks.name if speaks is not None else "none",
            "input_sample_rate": messages.IN_RATE,
            "output_sample_rate": messages.OUT_RATE,
        }
        return json_response(body)

    @router.get(
        "/v1/talk",
        summary="Who takes part in conversations, and who else may",
        response_model=messages.S2SEngines,
        responses=PROBLEMS,
    )
    async def parts() -> Response:
        hears, speaks = service.live.spec, service.fleet.tts_spec
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


async def send_refusal(
    error: errors.SidecarError, scope: Scope, receive: Receive, send: Send
) -> None:
    """Says no to who was not let in: in a message, and by closing."""
    websocket = WebSocket(scope, receive, send)
    await websocket_connections.refuse_connection(
        websocket,
        messages.s2s_error_message(error),
        websocket_connections.close_code(error),
        error.code,
        SUBPROTOCOLS,
    )


def page_origins(page: int) -> frozenset[str]:
    """Where its page comes from, if it is served on this machine at port ``page``."""
    return frozenset(f"http://{name}:{page}" for name in ("localhost", "127.0.0.1", "[::1]"))


def build_secondary_port_router(service: Service) -> APIRouter:
    """The routes that it has besides."""
    router = APIRouter()

    @router.get("/")
    async def root() -> Response:
        return json_response({"message": "S2S Pipeline API", "status": "running"})

    @router.get("/health")
    async def health() -> Response:
        body = {
            "status": "ok",
            "pipeline_state": service.conversations.phase.value,
            "initialized": service.live.spec is not None,
        }
        return json_response(body)

    return router

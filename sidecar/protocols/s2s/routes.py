"""Routes /stream, /status, /config, /v1/talk.

Binary messages are sound, 16-bit mono at the rates of the greeting; text messages are JSON, and
what is unknown is passed over, on both sides.

Beside `/stream`, `/status` and `/config`. At ours these addresses have more to say.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Response
from starlette.websockets import WebSocket

from sidecar import errors
from sidecar.api.http.responses import json_response
from sidecar.api.http.schemas import PROBLEMS
from sidecar.api.http.websocket_connections import ConnectionEnding, WebSocketDialect, close_code
from sidecar.protocols.s2s import messages, session
from sidecar.service.facade import Service
from sidecar.tts.tts_engine_selection import PULL_COMMAND

PATH = "/stream"
NO_VOICE = f"One comes by: {PULL_COMMAND}. Then start the service again."


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()

    @router.websocket(PATH)
    async def stream(websocket: WebSocket) -> None:
        await DIALECT.serve(websocket, partial(session.serve_conversation, service))

    @router.get("/status", summary="How conversations are going", response_model=messages.S2SStatus)
    async def status() -> Response:
        talks = service.conversations
        body = messages.S2SStatus(
            state=talks.phase.value,
            initialized=service.live.spec is not None,
            total_requests=talks.replies,
            last_metrics=messages.S2SMetrics.of(talks.last),
        )
        return json_response(body.model_dump())

    @router.get(
        "/config", summary="Who hears, thinks and speaks", response_model=messages.S2SConfiguration
    )
    async def config() -> Response:
        asr, tts = service.live.spec, service.fleet.tts_spec
        body = messages.S2SConfiguration(
            asr_model=asr.name if asr is not None else "none",
            llm_model=service.conversations.llm,
            tts_model=tts.name if tts is not None else "none",
            input_sample_rate=messages.IN_RATE,
            output_sample_rate=messages.OUT_RATE,
        )
        return json_response(body.model_dump())

    @router.get(
        "/v1/talk",
        summary="Who takes part in conversations, and who else may",
        response_model=messages.S2SEngines,
        responses=PROBLEMS,
    )
    async def parts() -> Response:
        asr, tts, talks = service.live.spec, service.fleet.tts_spec, service.conversations
        models, voices = list(await talks.models()), list(await talks.voices())
        voice = service.settings.talk_voice or next(iter(voices), "")
        body = messages.S2SEngines(
            hears=messages.S2SEngine(name=asr.name, title=asr.title) if asr else None,
            thinks=messages.S2SLlm(name=talks.llm, models=models),
            speaks=messages.S2STts(name=tts.name, title=tts.title, voices=voices, voice=voice)
            if tts
            else None,
            remedy="" if tts else NO_VOICE,
        )
        return json_response(body.model_dump())

    return router


def ending_of(error: errors.SidecarError) -> ConnectionEnding:
    """Return how ``error`` ends a connection."""
    return ConnectionEnding(close_code(error), error.code, messages.s2s_error_message(error))


DIALECT = WebSocketDialect(("vibevoice-talk",), ending_of)
"""The subprotocol of pages that bring a token beside it; who offers none is welcome, too."""


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

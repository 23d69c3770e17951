"""WebSocket /v1/realtime and client secrets.

For clients that are made for it, unchanged, and keys for those in browsers. A session lasts as long
as its connection. It is a conversation where a model is named that answers, or a session of the
type ``realtime`` is agreed on; with ``intent=transcription`` it never is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from sidecar import clock, errors
from sidecar.api.http import request_headers
from sidecar.api.http.request_headers import EPHEMERAL, NOBODY, Grant, caller_of
from sidecar.api.http.responses import json_response
from sidecar.api.http.upload import read_json
from sidecar.api.http.websocket_connections import Gone, Socket, close, close_code, greet
from sidecar.auth.startup_token import LASTS_S, Handover
from sidecar.errors import Kind
from sidecar.interfaces.engine_interface import EngineSpec
from sidecar.interfaces.live_engine import LiveOptions
from sidecar.protocols.openai_common import ERRORS, LIVE_ALIASES
from sidecar.protocols.openai_realtime.dialogue_config import CONVERSING
from sidecar.protocols.openai_realtime.dialogue_session import (
    begun,
    converse,
    is_meant,
    live_spec,
)
from sidecar.protocols.openai_realtime.server_events import error_event
from sidecar.protocols.openai_realtime.session_config import (
    Configuration,
    check_model,
    talks,
    updated,
)
from sidecar.protocols.openai_realtime.transcription_session import (
    Converses,
    TranscriptionConnection,
)
from sidecar.service.facade import Service

NO_SESSION = "sess_none"
"""The id of a session that nobody has opened yet."""


class Key(BaseModel):
    """A key for a client that should not have a token."""

    value: str = Field(examples=["ek_…"], description="Opens one connection.")
    expires_at: int = Field(description="In seconds since 1970.")


class Secret(Key):
    """It, and how the session will be heard."""

    session: dict[str, Any]


class BetaSession(BaseModel):
    """How the session will be heard, in the shape of the beta."""

    id: str
    client_secret: Key


def form(fields: dict[str, Any]) -> dict[str, Any]:
    """The body of a request with these fields."""
    schema = {"type": "object", "properties": fields}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_SESSION = {
    "type": "object",
    "properties": {
        "type": {"enum": ["transcription", "realtime"]},
        "model": {"type": "string"},
        "instructions": {"type": "string"},
        "audio": {
            "type": "object",
            "properties": {"input": {"type": "object"}, "output": {"type": "object"}},
        },
    },
    "description": "As in session.update (docs/openai.md, docs/talk.md).",
}
ASK = form({"session": _SESSION})
ASK_BETA = form(
    {
        "input_audio_format": {"type": "string", "enum": ["pcm16", "g711_ulaw", "g711_alaw"]},
        "input_audio_transcription": {"type": "object"},
        "turn_detection": {"type": ["object", "null"]},
    }
)


REALTIME = "/v1/realtime"
PATHS = (f"{REALTIME}/",)
"""What is said in OpenAI's way, errors included."""
SPOKEN = ("realtime",)
"""The subprotocol of its clients in browsers."""
CLOSES: Mapping[Kind | str, int] = {Kind.UNAUTHORIZED: 3000}
"""Close codes of its own."""
BETA = "realtime=v1"
"""In the header `OpenAI-Beta`, or as a subprotocol: the vocabulary of the beta."""


def build_router(
    service: Service, tickets: Handover[Grant], now: clock.Clock = clock.wall
) -> APIRouter:
    """The routes of this wire; ``tickets`` are those that the gate takes."""
    router = APIRouter()

    def key_for(request: Request, session: Mapping[str, Any]) -> str:
        """Return a key that opens this wire once, with ``session`` and no scopes."""
        grant = Grant(_token(request) or NOBODY, REALTIME, json.dumps(session))
        return EPHEMERAL + tickets.give(grant, caller_of(request).owner)

    @router.websocket(REALTIME)
    async def realtime(websocket: WebSocket) -> None:
        await _serve(websocket, service, int(now() + service.settings.live_longest))

    @router.post(
        f"{REALTIME}/client_secrets",
        summary="A key that opens one live transcription or conversation (OpenAI's API)",
        response_model=Secret,
        responses=ERRORS,
        openapi_extra=ASK,
    )
    async def client_secret(request: Request) -> Response:
        session = (await read_json(request, service.settings)).get("session") or {}
        expires_at = int(now() + LASTS_S)
        if talks(session):
            manners, _ = await begun(service, session)
            view = manners.view(NO_SESSION, expires_at)
        else:
            configuration = updated(Configuration(), session, live_spec(service))
            view = configuration.view(NO_SESSION, expires_at)
        return _unread(
            {"value": key_for(request, session), "expires_at": expires_at, "session": view}
        )

    @router.post(
        f"{REALTIME}/transcription_sessions",
        summary="A key that opens one live transcription (OpenAI's API, beta)",
        response_model=BetaSession,
        responses=ERRORS,
        openapi_extra=ASK_BETA,
    )
    async def transcription_session(request: Request) -> Response:
        session = await read_json(request, service.settings)
        configuration = updated(Configuration(), session, live_spec(service))
        expires_at = int(now() + LASTS_S)
        view = configuration.beta_view(NO_SESSION, expires_at)
        secret = {"value": key_for(request, session), "expires_at": expires_at}
        return _unread({**view, "client_secret": secret})

    return router


async def refuse(error: errors.SidecarError, scope: Scope, receive: Receive, send: Send) -> None:
    """Say no to who was not let in, in a way that browsers let their pages read."""
    websocket = WebSocket(scope, receive, send)
    await greet(websocket, SPOKEN)
    with suppress(RuntimeError, WebSocketDisconnect, OSError):
        await websocket.send_text(_last_word(error))
    await close(websocket, close_code(error, CLOSES), error.code)


def asked_for(
    query: Mapping[str, str], agreed: Mapping[str, Any], spec: EngineSpec
) -> Configuration:
    """How a session is heard at first, by its address and by what was agreed before. Pure.

    Raises:
        errors.ModelNotFound: nobody here has this model, or answers.
        errors.BadRequest: it means nothing.
    """
    model = query.get("model", "")
    if query.get("intent") == "transcription" and model not in LIVE_ALIASES:
        model = "" if model.startswith(CONVERSING) else model
    return updated(Configuration(model=check_model(model, spec)), agreed, spec)


async def _serve(websocket: WebSocket, service: Service, expires_at: int) -> None:
    socket = await Socket.accept(websocket, service.settings, SPOKEN)
    query: Mapping[str, str] = websocket.query_params
    session, open = None, not {"intent", "model"} & set(query)
    if (agreed := request_headers.agreed(websocket.scope)) is not None:
        session, query, open = json.loads(agreed), {}, False  # the address changes nothing of it
    try:
        if talks(session) or (session is None and await is_meant(service, query)):
            named = {"model": query["model"]} if "model" in query else {}
            await converse(socket, service, session or named, expires_at)
        else:
            configuration = asked_for(query, session or {}, live_spec(service))
            await _transcribe(socket, service, configuration, expires_at, open=open)
        raise errors.ShuttingDown()  # nothing else ends a session that has no error
    except Gone:
        pass
    except errors.SidecarError as error:
        await socket.say(_last_word(error))
        await socket.close(close_code(error, CLOSES), error.code)


async def _transcribe(
    socket: Socket,
    service: Service,
    configuration: Configuration,
    expires_at: int,
    *,
    open: bool,
) -> None:
    """``open``: the client may still make a conversation of it."""
    session = service.live.open(
        socket.caller, configuration.options(LiveOptions()), wire="realtime"
    )
    try:
        connection = TranscriptionConnection(
            *(socket, session, configuration, live_spec(service)),
            expires_at=expires_at,
            beta=_is_beta(socket.websocket),
            open=open,
        )
        await connection.greet()
        await socket.side_by_side(connection.hear(), connection.tell())
        return
    except Converses as wish:
        wanted = wish.session
    finally:
        service.live.end(session)
    await converse(socket, service, wanted, expires_at, again=True)


def _is_beta(websocket: WebSocket) -> bool:
    offered = websocket.scope.get("subprotocols", ())
    return BETA in websocket.headers.get("openai-beta", "") or "openai-beta.realtime-v1" in offered


def _last_word(error: errors.SidecarError) -> str:
    return json.dumps({"event_id": "event_0", **error_event(error)})


def _token(request: Request) -> str:
    _, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip()


def _unread(body: Mapping[str, Any]) -> Response:
    return json_response(body, headers={"Cache-Control": "no-store"})

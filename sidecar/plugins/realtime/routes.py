"""WebSocket /v1/realtime, client secrets, and the list of what a conversation can use.

OpenAI's clients can use them unchanged; the secrets are for clients in browsers. A session lasts as
long as its connection. It is a conversation if the client names a conversation model, or sets the
session type ``realtime``; with ``intent=transcription`` it never is.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.websockets import WebSocket

from sidecar import clock, errors
from sidecar.api.http import auth_gate, openapi, websocket_connections
from sidecar.api.http.auth_gate import ANONYMOUS, EPHEMERAL_KEY_PREFIX, TicketGrant, sent_token
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.responses import NO_STORE, json_response
from sidecar.api.http.upload import read_json
from sidecar.auth.authentication import CODE_LIFETIME_S, OneTimeCodes
from sidecar.installation import voice_hint
from sidecar.interfaces.engine_interface import EngineSpec
from sidecar.interfaces.live_options import LiveOptions
from sidecar.interfaces.request_options import unknown_fields
from sidecar.observability.logs import ONCE_A_MINUTE
from sidecar.plugins.conversation.conversation_registry import ConversationRegistry
from sidecar.plugins.conversation.settings import ConversationSettings
from sidecar.plugins.openai import common as openai_common
from sidecar.plugins.realtime import dialogue_session, transcription_session
from sidecar.plugins.realtime.dialogue_config import DIALOGUE_MODELS
from sidecar.plugins.realtime.server_events import error_event
from sidecar.plugins.realtime.session_config import (
    BETA_AUDIO_FORMATS,
    RealtimeTranscriptionConfig,
    check_model,
    is_conversation,
    unknown_session_fields,
    updated_transcription,
)
from sidecar.service.facade import Service

log = logging.getLogger(__name__)
ADDRESS_PARAMETERS = ("model", "intent", "api_key", auth_gate.TICKET_PARAMETER)
"""Parameters of the address; the last two are for authentication."""
NO_SESSION = "sess_none"
"""Id of a session that is not open yet."""

_SOUNDS = openapi.object_schema({"input": {"type": "object"}, "output": {"type": "object"}})
_SESSION = openapi.object_schema(
    {
        "type": {"enum": ["transcription", "realtime"]},
        "model": openapi.text(),
        "instructions": openapi.text(),
        "audio": _SOUNDS,
    },
    description="As in session.update (docs/openai-wire.md, docs/talk-wire.md).",
)
_BETA_SESSION = openapi.object_schema(
    {
        "input_audio_format": openapi.choice(BETA_AUDIO_FORMATS),
        "input_audio_transcription": {"type": "object"},
        "turn_detection": {"type": ["object", "null"]},
    }
)
ASK = openapi.request_body(openapi.object_schema({"session": _SESSION}))
ASK_BETA = openapi.request_body(_BETA_SESSION)

REALTIME = "/v1/realtime"
PATHS = (f"{REALTIME}/",)
"""Paths whose errors have OpenAI's format."""
REALTIME_CLOSE_CODES: Mapping[errors.ErrorKind | str, int] = {errors.ErrorKind.UNAUTHORIZED: 3000}
"""Close codes that only this protocol has."""
HANDSHAKE_STATUSES = (401, 429, 503)
"""HTTP statuses that refuse a handshake, except for web pages."""
BETA = "realtime=v1"
"""Value in the header `OpenAI-Beta`, or as a subprotocol: the client uses the beta format."""

NO_BETA = (
    "Leave out 'OpenAI-Beta: realtime=v1' (as a subprotocol: openai-beta.realtime-v1). Names of "
    "today: response.output_audio.delta, response.output_audio_transcript.delta, "
    "response.output_text.delta, conversation.item.added; in session.update 'type', "
    "'output_modalities' and 'audio'."
)
"""Hint for a client that requests the beta."""


class TalkEngine(openapi.RenderedBody):
    """Engine of a stage."""

    name: str
    title: str


class TalkLlm(BaseModel):
    """Language model."""

    name: str = Field(examples=["repeat"])
    models: list[str] = Field(
        description="Available models, the default first; 'repeat' is built in."
    )


class TalkTts(TalkEngine):
    """TTS engine; its speech is synthetic."""

    voices: list[str]
    voice: str = Field(description="Default voice.")


class TalkEngines(BaseModel):
    """Engines of conversations, and those to choose from."""

    hears: TalkEngine | None
    thinks: TalkLlm
    speaks: TalkTts | None = Field(description="None if answers are text only.")
    remedy: str = Field(description="Command that installs a TTS voice, if there is none.")


class RealtimeClientKey(BaseModel):
    """Client secret, for a client that should not have a token."""

    value: str = Field(examples=["ek_…"], description="Secret for one connection.")
    expires_at: int = Field(description="In seconds since 1970.")


class RealtimeClientSecret(RealtimeClientKey):
    """Client secret, and the configuration of its session."""

    session: dict[str, Any]


class RealtimeBetaSession(BaseModel):
    """Configuration of the session in the beta format."""

    id: str
    client_secret: RealtimeClientKey


def build_router(service: Service, tickets: OneTimeCodes[TicketGrant]) -> APIRouter:
    """Build the routes of this protocol; the auth gate accepts ``tickets``."""
    router = openapi.Routes(responses=openai_common.ERRORS)

    def key_for(request: Request, session: Mapping[str, Any]) -> str:
        """Return a key for one connection of this protocol, with ``session`` and no scopes."""
        grant = TicketGrant(sent_token(request) or ANONYMOUS, REALTIME, json.dumps(session))
        return EPHEMERAL_KEY_PREFIX + tickets.give(grant, identity_of(request).owner)

    @router.websocket(REALTIME)
    async def realtime(websocket: WebSocket) -> None:
        settings = service.settings
        expires_at = int(clock.wall_time() + settings.live_longest)
        serve = partial(_serve, service=service, expires_at=expires_at)
        await DIALECT.serve(websocket, serve)

    @router.post(
        f"{REALTIME}/client_secrets", response_model=RealtimeClientSecret, openapi_extra=ASK
    )
    async def client_secret(request: Request) -> Response:
        """Create a client secret for one live transcription or conversation (OpenAI's API)."""
        session = (await read_json(request)).get("session") or {}
        expires_at = int(clock.wall_time() + CODE_LIFETIME_S)
        if is_conversation(session):
            config, _ = await dialogue_session.start_dialogue(service, session)
            await dialogue_session.check_voice(service, config)
            view = config.view(NO_SESSION, expires_at)
        else:
            view = updated_transcription(
                RealtimeTranscriptionConfig(), session, service.live.engine
            ).view(NO_SESSION, expires_at)
        body = {"value": key_for(request, session), "expires_at": expires_at, "session": view}
        return _unread(body, session)

    @router.post(
        f"{REALTIME}/transcription_sessions",
        response_model=RealtimeBetaSession,
        openapi_extra=ASK_BETA,
    )
    async def transcription_session(request: Request) -> Response:
        """Create a client secret for one live transcription (OpenAI's API, beta)."""
        session = await read_json(request)
        config = updated_transcription(RealtimeTranscriptionConfig(), session, service.live.engine)
        expires_at = int(clock.wall_time() + CODE_LIFETIME_S)
        view = config.beta_view(NO_SESSION, expires_at)
        secret = {"value": key_for(request, session), "expires_at": expires_at}
        return _unread({**view, "client_secret": secret}, session)

    return router


def build_talk_router(service: Service) -> APIRouter:
    """Build the route that lists what a conversation can use."""
    router = openapi.Routes(dependencies=openapi.CHECKS)

    @router.get("/v1/talk", response_model=TalkEngines, responses=openapi.PROBLEMS)
    async def parts() -> Response:
        """Engines of conversations, and those to choose from."""
        asr, tts, registry = service.live.spec, service.tts, ConversationRegistry.of(service)
        models, voices = list(await registry.models()), list(await registry.voices())
        voice = ConversationSettings.of(service.settings).talk_voice or next(iter(voices), "")
        body = TalkEngines(
            hears=TalkEngine.model_validate(asr) if asr else None,
            thinks=TalkLlm(name=registry.llm_name, models=models),
            speaks=TalkTts(name=tts.spec.name, title=tts.spec.title, voices=voices, voice=voice)
            if tts
            else None,
            remedy="" if tts else voice_hint(),
        )
        return json_response(body.model_dump())

    return router


def ending_of(error: errors.SidecarError) -> websocket_connections.ConnectionEnding:
    """Return how ``error`` ends a connection. A shutdown sends only the close code: clients treat
    an error as final, and reconnect after a lost connection."""
    code = websocket_connections.close_code(error, REALTIME_CLOSE_CODES)
    if isinstance(error, errors.ShuttingDown):
        return websocket_connections.ConnectionEnding(code, error.code)
    last = json.dumps({"event_id": "event_0", **error_event(error)})
    return websocket_connections.ConnectionEnding(code, error.code, last)


async def refused_by_status(error: errors.SidecarError, websocket: WebSocket) -> bool:
    """Refuse a handshake by an HTTP status, after which clients wait; return whether it was
    refused.

    A web page cannot read the status, so it gets an event. Errors in the request itself are also
    sent as an event.
    """
    if "origin" in websocket.headers or openai_common.status_of(error) not in HANDSHAKE_STATUSES:
        return False
    with suppress(RuntimeError, OSError):  # otherwise the error is sent as an event
        await websocket.send_denial_response(openai_common.error_response(error))
        return True
    return False


DIALECT = websocket_connections.WebSocketDialect(("realtime",), ending_of, refused_by_status)
"""Its subprotocol is the one of browser clients."""


def initial_config(
    query: Mapping[str, str], agreed: Mapping[str, Any], spec: EngineSpec
) -> RealtimeTranscriptionConfig:
    """Return the initial configuration of a session, from its URL and from the client secret's
    session. Pure.

    Raises:
        errors.ModelNotFound: the model does not exist, or is for conversations.
        errors.BadRequest: a field is invalid.
    """
    model = query.get("model", "")
    if query.get("intent") == "transcription" and model not in openai_common.LIVE_ALIASES:
        model = "" if model.startswith(DIALOGUE_MODELS) else model
    return updated_transcription(
        RealtimeTranscriptionConfig(model=check_model(model, spec)), agreed, spec
    )


async def _serve(
    socket: websocket_connections.WebSocketConnection, service: Service, expires_at: int
) -> None:
    query: Mapping[str, str] = socket.websocket.query_params
    session, open = None, not {"intent", "model"} & set(query)
    if unknown := unknown_fields(query, ADDRESS_PARAMETERS):
        log.warning("Address of Realtime: %s", " ".join(unknown), extra=ONCE_A_MINUTE)
    agreed = socket.websocket.scope.get("state", {}).get(auth_gate.AGREED_SESSION_KEY)
    if agreed is not None:
        session, query, open = json.loads(agreed), {}, False  # the URL has no effect on it
    is_dialogue = is_conversation(session)
    if is_dialogue or (session is None and await dialogue_session.wants_dialogue(service, query)):
        if _is_beta(socket.websocket):
            raise errors.FieldInvalid(
                "Conversations are not supported with the beta API.", hint=NO_BETA
            )
        named = {"model": query["model"]} if "model" in query else {}
        await dialogue_session.serve_dialogue(
            socket, service, session or named, expires_at, agreed=agreed is not None
        )
    else:
        config = initial_config(query, session or {}, service.live.engine)
        await _transcribe(socket, service, config, expires_at, open=open)


async def _transcribe(
    socket: websocket_connections.WebSocketConnection,
    service: Service,
    config: RealtimeTranscriptionConfig,
    expires_at: int,
    *,
    open: bool,
) -> None:
    """Serve a transcription; ``open``: the client may still change it to a conversation."""
    session = service.live.open(socket.identity, config.options(LiveOptions()), wire="realtime")
    wanted = None
    try:
        connection = transcription_session.RealtimeTranscriptionConnection(
            *(socket, session, config, service.live.engine),
            expires_at=expires_at,
            beta=_is_beta(socket.websocket),
            open=open,
        )
        await connection.greet()
        await socket.run_until_first_ends(
            connection.receive_commands(),
            connection.send_events(),
            conclude=partial(service.live.conclude, session),
        )
    except transcription_session.RealtimeDialogueRequested as requested:
        wanted = requested.session
    finally:
        service.live.end(session)
    if wanted is not None:
        await dialogue_session.serve_dialogue(socket, service, wanted, expires_at, again=True)


def _is_beta(websocket: WebSocket) -> bool:
    offered = websocket.scope.get("subprotocols", ())
    return BETA in websocket.headers.get("openai-beta", "") or "openai-beta.realtime-v1" in offered


def _unread(body: Mapping[str, Any], session: object) -> Response:
    """Return a response with a secret; its header warns of unknown fields of ``session``."""
    warnings = openai_common.warning_headers(unknown_session_fields(session))
    return json_response(body, headers={**NO_STORE, **warnings})

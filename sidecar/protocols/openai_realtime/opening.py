"""Whether a connection is a conversation, who answers there, and how it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar import errors
from sidecar.api.http.sockets import Socket
from sidecar.conversation.llm.thinker import Thinker
from sidecar.conversation.pacing import Client
from sidecar.interfaces.engine import EngineSpec
from sidecar.interfaces.voice import SayOptions
from sidecar.protocols.aliases import ALIASES, LIVE_ALIASES
from sidecar.protocols.openai_realtime.configuration import TALKS, Configuration
from sidecar.protocols.openai_realtime.connection import Connection
from sidecar.protocols.openai_realtime.dialogue_configuration import (
    Manners,
    stands_for_any,
    updated,
)
from sidecar.service import Service


def talks(session: object) -> bool:
    """Whether a session is a conversation."""
    return isinstance(session, Mapping) and session.get("type") == TALKS


async def is_meant(service: Service, query: Mapping[str, str]) -> bool:
    """Whether a connection is one, by its address."""
    model = query.get("model", "")
    if query.get("intent") == "transcription":
        return False
    if stands_for_any(model):
        return True
    transcribes = (_spec(service).name, *ALIASES, *LIVE_ALIASES)
    if not model or model in transcribes:
        return False
    return model in await service.conversations.models()


async def begun(service: Service, session: Mapping[str, Any]) -> tuple[Manners, Thinker]:
    """How a conversation is held that begins as ``session`` says, and who answers.

    Raises:
        errors.ModelNotFound: nobody does by that name.
        errors.ToolsUnavailable: who does calls no tools.
        errors.BadRequest, errors.NotFound: it means nothing, or nothing that is to be had here.
    """
    conversations, spec = service.conversations, _spec(service)
    model = session.get("model") or ""
    if not isinstance(model, str):
        raise errors.ModelNotFound()
    thinker = await conversations.thinker("" if stands_for_any(model) else model)
    usual = conversations.options()
    heard = Configuration(model=spec.name)
    speaks = service.fleet.voice_spec
    manners = Manners(
        model or thinker.name,
        usual.instructions,
        heard,
        speaks=usual.voiced,
        any_voice=speaks is not None and not speaks.lists_voices,
    )
    found = updated(manners, session, spec)
    if found.tools.all and not thinker.calls:
        raise errors.ToolsUnavailable()
    return found, thinker


async def converse(
    socket: Socket,
    service: Service,
    session: Mapping[str, Any],
    expires_at: int,
    *,
    again: bool = False,
) -> None:
    """Hold one until it ends; ``again``: the connection was a transcription before.

    Raises:
        sockets.Gone: the client went.
        errors.SidecarError: what ended it.
    """
    manners, thinker = await begun(service, {"model": session.get("model")})
    conversations, settings = service.conversations, service.settings
    options = manners.options(conversations.options())
    usual = SayOptions(settings.talk_voice, settings.language)
    client = Client(clears=True)
    async with conversations.open(
        socket.caller, options, manners.manner(usual), client=client
    ) as talk:
        talk.thinks(thinker)
        connection = Connection(
            *(socket, service, talk, manners, usual, _spec(service)), expires_at=expires_at
        )
        await connection.change(session)
        await connection.greet(again=again)
        await socket.side_by_side(connection.hear(), talk.run(), connection.tell())


def _spec(service: Service) -> EngineSpec:
    if service.live.spec is None:
        raise errors.LiveUnavailable()
    return service.live.spec

"""Conversation session.

The next event is read when there is room for it, and behind a commit when all before it was heard:
so an answer that is asked for never misses what was said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sidecar import errors
from sidecar.api.http.websocket_connections import Socket
from sidecar.conversation.conversation_events import (
    Asked,
    Cancelled,
    Configured,
    Dropped,
    Noted,
    Returned,
    TalkOptions,
    Truncated,
)
from sidecar.conversation.conversation_loop import Talk
from sidecar.conversation.llm.chat_completions import Role, Thinker, Tools
from sidecar.conversation.output_queue import Client
from sidecar.interfaces.engine_interface import EngineSpec, SayOptions
from sidecar.protocols.openai_common import ALIASES, LIVE_ALIASES
from sidecar.protocols.openai_realtime import client_events, server_events
from sidecar.protocols.openai_realtime.client_events import (
    Append,
    Clear,
    Commit,
    Order,
    Update,
)
from sidecar.protocols.openai_realtime.dialogue_config import (
    HEARD,
    Manners,
    aloud_of,
    instructions_of,
    stands_for_any,
    tools_of,
    updated,
)
from sidecar.protocols.openai_realtime.dialogue_events import Telling
from sidecar.protocols.openai_realtime.server_events import EventBody, Item
from sidecar.protocols.openai_realtime.session_config import SessionType
from sidecar.protocols.openai_realtime.transcription_session import PIECE_S, Connection
from sidecar.service.facade import Service

SLACK_S = 0.1
"""A player's clock may be so far ahead of what it has."""
NOT_HERE = ("input", "prompt")
"""What a client may say of an answer and is not to be had."""


class ConversationConnection(Connection):
    """One that answers. ``usual``: how the service speaks unless a client says otherwise."""

    kind = SessionType.CONVERSATION

    def __init__(
        self,
        socket: Socket,
        service: Service,
        talk: Talk,
        manners: Manners,
        usual: SayOptions,
        spec: EngineSpec,
        *,
        expires_at: int,
    ) -> None:
        super().__init__(socket, talk, expires_at)
        self._service, self._talk = service, talk
        self._usual, self._spec = usual, spec
        self._telling = Telling(self.name, talk.options.most_messages, talk.span)
        self._use(manners)

    async def greet(self, *, again: bool = False) -> None:
        """Say what this is; ``again``: the session was something else before."""
        await self._say(lambda: [self._view("updated" if again else "created")])
        await self._say(lambda: [server_events.began(self._telling.conversation)])

    async def tell(self) -> None:
        """Say what comes of it.

        Raises:
            sockets.Gone: the client went.
        """
        async for out in self._talk.outgoing():
            await self._say(lambda out=out: self._telling.of(out))  # type: ignore[misc]

    async def change(self, session: object) -> None:
        """Go on as the client wishes.

        Raises:
            errors.SidecarError: it means nothing, or is not to be had here.
        """
        after = updated(self._manners, session, self._spec)
        self._check(after.tools)
        if after.own_voice and after.own_voice != self._manners.own_voice and after.speaks:
            voices = await self._service.conversations.voices()
            if voices and after.own_voice not in voices:
                raise errors.VoiceUnknown(
                    f"There is no voice '{after.own_voice[:80]}' here.",
                    hint=f"There are: {', '.join(voices)}.",
                )
        self._use(after)

    async def _do(self, order: Order) -> None:
        match order:
            case Append(raw):
                await self._append(raw, self._manners.heard, PIECE_S, self._talk.hear)
            case Commit():
                await self._commit()
            case Clear():
                self._telling.person.clear(self._talk.received_s)
                await self._talk.forget()
            case Update(session):
                await self.change(session)
                await self._say(lambda: [self._view("updated")])
            case client_events.Respond():
                self._respond(order)
            case client_events.Cancel():
                self._cancel(order)
            case client_events.Hush():
                self._hush()
            case _:
                await self._about_items(order)

    async def _about_items(self, order: Order) -> None:
        match order:
            case client_events.Create():
                self._create(order)
            case client_events.Return():
                self._return(order)
            case client_events.Retrieve(name):
                item = self._telling.items.find(name)
                await self._say(lambda: [server_events.retrieved(item)])
            case client_events.Truncate():
                self._truncate(order)
            case client_events.Delete(name):
                await self._delete(self._telling.items.find(name))

    async def _commit(self) -> None:
        await self._say(lambda: self._telling.person.commit(self._talk.received_s))
        if self._manners.heard.detection is None:
            self._talk.heard_out()
        await self._talk.commit()

    def _respond(self, order: client_events.Respond) -> None:
        options = self._wished(order)
        if self._talk.sending:
            raise errors.ResponseActive()
        self._talk.heard_out()
        self._talk.wish(Asked, options)
        self._telling.replies.wished(self._talk.turn, order.wish)

    def _wished(self, order: client_events.Respond) -> TalkOptions | None:
        """The manner of one answer, where its client says anything of that."""
        wish, now = order.wish, self._manners
        for name in NOT_HERE:
            if wish.get(name) is not None:
                raise errors.FieldInvalid(f"'response.{name}' is not to be had here.")
        if wish.get("conversation") not in (None, "auto"):
            raise errors.FieldInvalid("'response.conversation' is not 'auto'.")
        if not isinstance(wish.get("metadata"), dict | None):
            raise errors.FieldInvalid("'response.metadata' is no object.")
        options = self._talk.options
        instructions = instructions_of(wish, "response.instructions", now.instructions)
        aloud = aloud_of(wish, "response.output_modalities", now.aloud)
        tools = tools_of(wish, "response", now.tools)
        self._check(tools)
        if (instructions, aloud, tools) == (now.instructions, now.aloud, now.tools):
            return None
        voiced = now.speaks and aloud
        return replace(options, instructions=instructions, voiced=voiced, tools=tools)

    def _check(self, tools: Tools) -> None:
        """Say no to tools where nobody calls any."""
        if tools.all and not self._talk.thinker.calls:
            raise errors.ToolsUnavailable()

    def _cancel(self, order: client_events.Cancel) -> None:
        if not self._talk.sending or order.response not in ("", self._telling.replies.current):
            raise errors.ResponseNotActive()
        self._talk.wish(Cancelled)

    def _hush(self) -> None:
        if not self._talk.replying:
            raise errors.ResponseNotActive("There is nothing to be heard.")
        self._talk.wish(Cancelled)

    def _create(self, order: client_events.Create) -> None:
        item = Item(self._name(order), order.role)
        self._telling.create(item)
        self._talk.wish(Noted, order.role, order.text, item.id)

    def _return(self, order: client_events.Return) -> None:
        name = self._name(order)
        if not self._talk.awaits(order.call):
            raise errors.CallUnknown(f"No call '{order.call}' waits for an output.")
        item = Item(name, Role.TOOL, call=order.call, returned=True)
        self._telling.create(item)
        self._talk.wish(Returned, order.call, order.output, item.id)

    def _name(self, order: client_events.Create | client_events.Return) -> str:
        """What an item is called that is to stand behind all others."""
        items = self._telling.items
        if order.after and order.after != items.last:
            items.find(order.after)
            raise errors.FieldInvalid(
                "'previous_item_id' is not the last item.", hint="Leave it out."
            )
        return order.item or items.new_id()

    def _truncate(self, order: client_events.Truncate) -> None:
        item, seconds = self._telling.items.find(order.item), order.end_ms / 1000
        if not (item.turn and item.aloud):
            raise errors.FieldInvalid("'item_id' is no answer that is heard.")
        if seconds > item.sent_s + SLACK_S:
            raise errors.FieldInvalid(
                f"'audio_end_ms' is more than there is: {round(item.sent_s * 1000)}."
            )
        self._talk.wish(Truncated, item.turn, min(seconds, item.sent_s))

    async def _delete(self, item: Item) -> None:
        if item.call and item.status == "in_progress":
            raise errors.ResponseActive()
        if item.turn and item.turn == self._talk.replying:
            if self._talk.sending:
                raise errors.ResponseActive()
            self._talk.heard_out()
        self._talk.wish(Dropped, item.entry)
        self._telling.items.drop(item)
        await self._say(lambda: [server_events.deleted(item)])

    def _use(self, manners: Manners) -> None:
        self._manners = manners
        self._telling.use(manners)
        self._talk.wish(Configured, manners.options(self._talk.options))
        self._talk.hears(manners.hearing(self._talk.hearing))
        self._talk.speaks(manners.manner(self._usual))

    def _view(self, what: str) -> EventBody:
        return self._described(f"session.{what}", self._manners.view)


async def is_meant(service: Service, query: Mapping[str, str]) -> bool:
    """Whether a connection is one, by its address."""
    model = query.get("model", "")
    if query.get("intent") == "transcription":
        return False
    if stands_for_any(model):
        return True
    transcribes = (live_spec(service).name, *ALIASES, *LIVE_ALIASES)
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
    conversations, spec = service.conversations, live_spec(service)
    model = session.get("model") or ""
    if not isinstance(model, str):
        raise errors.ModelNotFound()
    thinker = await conversations.thinker("" if stands_for_any(model) else model)
    usual = conversations.options()
    speaks = service.fleet.voice_spec
    manners = Manners(
        model or thinker.name,
        usual.instructions,
        replace(HEARD, model=spec.name),
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
        connection = ConversationConnection(
            *(socket, service, talk, manners, usual, live_spec(service)), expires_at=expires_at
        )
        await connection.change(session)
        await connection.greet(again=again)
        await socket.side_by_side(connection.hear(), talk.run(), connection.tell())


def live_spec(service: Service) -> EngineSpec:
    """Return what the live engine is.

    Raises:
        errors.LiveUnavailable: there is none.
    """
    if service.live.spec is None:
        raise errors.LiveUnavailable()
    return service.live.spec

"""Realtime conversation session.

The next event is read when there is capacity for it, and after a commit when all audio before it
was recognized. So a requested response never misses what the user said.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sidecar import errors
from sidecar.api.http.websocket_connections import WebSocketConnection
from sidecar.interfaces.engine_interface import SynthesisOptions
from sidecar.plugins.conversation import conversation_events
from sidecar.plugins.conversation.chat_completions import ChatRole, Llm, ToolSet
from sidecar.plugins.conversation.conversation_loop import ConversationLoop
from sidecar.plugins.conversation.conversation_registry import ConversationRegistry
from sidecar.plugins.conversation.errors import CallUnknown, ResponseNotActive, ToolsUnavailable
from sidecar.plugins.conversation.settings import ConversationSettings
from sidecar.plugins.openai.common import ALIASES, LIVE_ALIASES
from sidecar.plugins.realtime import client_events, dialogue_config, server_events
from sidecar.plugins.realtime.dialogue_events import (
    ConversationTranscript,
    RealtimeDialogueEvents,
)
from sidecar.plugins.realtime.errors import ResponseActive
from sidecar.plugins.realtime.server_events import EventBody, RealtimeDialogueItem
from sidecar.plugins.realtime.session_config import RealtimeSessionType
from sidecar.plugins.realtime.transcription_session import RealtimeConnection
from sidecar.service.facade import Service
from sidecar.transcripts.transcript_formats import render_transcript, transcript_body

PLAYER_CLOCK_SLACK_S = 0.1
"""Seconds by which a player's report may exceed the audio that it was sent."""
UNSUPPORTED_RESPONSE_FIELDS = ("input", "prompt")


class RealtimeDialogueConnection(RealtimeConnection):
    """Connection of a conversation. ``usual``: default synthesis options of the service.
    ``agreed``: the client has a client secret, which opens one session as it was agreed."""

    kind = RealtimeSessionType.CONVERSATION

    def __init__(
        self,
        socket: WebSocketConnection,
        service: Service,
        talk: ConversationLoop,
        manners: dialogue_config.RealtimeDialogueConfig,
        usual: SynthesisOptions,
        *,
        expires_at: int,
        agreed: bool,
    ) -> None:
        super().__init__(socket, talk.session, expires_at)
        self._service, self._talk, self._agreed = service, talk, agreed
        self._usual, self._spec = usual, service.live.engine
        self._telling = RealtimeDialogueEvents(
            self.name, talk.machine.options.most_messages, talk.input.span
        )
        self._recorded = asyncio.Event()
        self._transcript = ConversationTranscript(time.monotonic())
        self._keep = self.over = False
        self._use(manners, talk.stages.thinker)

    async def greet(self, *, again: bool = False) -> None:
        """Send the first events; ``again``: the session was a transcription before."""
        await self._socket.open()
        await self._say(self._view("updated" if again else "created"))
        body = {"id": self._telling.conversation, "object": "realtime.conversation"}
        await self._say({"type": "conversation.created", "conversation": body})

    async def tell(self) -> None:
        """Send the events of the conversation until the client ends it.

        Raises:
            WebSocketGone: the client disconnected.
        """
        async for out in self._talk.outgoing():
            if isinstance(out, conversation_events.ConversationEnded):
                await self._end()
                return
            self._transcript.take(out, time.monotonic())
            await self._say(*self._telling.of(out))
            self._recorded.set()

    async def change(self, session: object) -> None:
        """Apply a client's changes of the session.

        Raises:
            errors.SidecarError: a field is invalid or not available here.
        """
        after = dialogue_config.updated_dialogue(self._manners, session, self._spec)
        thinker = self._talk.stages.thinker
        if after.model != self._manners.model:
            self._refuse_agreed("session.model")
            thinker = await find_llm(self._service, after.model)
        check_tools(after.tools, thinker)
        if after.own_voice != self._manners.own_voice:
            await check_voice(self._service, after)
        self._use(after, thinker)

    async def _do(self, order: client_events.RealtimeCommand, event_id: str | None) -> None:
        match order:
            case client_events.AUDIO_APPEND, raw:
                await self._append(raw, self._manners.heard, self._talk.hear)
            case client_events.AUDIO_COMMIT, _:
                await self._commit()
            case client_events.AUDIO_CLEAR, _:
                self._telling.person.clear(self._talk.session.received_s)
                await self._talk.forget()
            case client_events.SESSION_UPDATE, session:
                await self.change(session)
                await self._say(self._view("updated"))
            case "response.create", options:
                await self._check_output(options)
                self._respond(options, event_id or "")
            case "response.cancel", response:  # '' means the current one
                if not self._talk.sending or response not in ("", self._telling.replies.current):
                    raise ResponseNotActive()
                self._talk.wish(conversation_events.ResponseCancelled)
            case "output_audio_buffer.clear", _:
                if not self._talk.machine.replying:
                    raise ResponseNotActive("No audio is being played.")
                self._talk.wish(conversation_events.ResponseCancelled)
            case "conversation.item.create", client_events.RealtimeItemCreate() as item:
                await self._create(item)
            case "conversation.item.create", output:
                await self._return(output)
            case "conversation.item.retrieve", name:
                found = self._telling.items.find(name)
                view = {"type": "conversation.item.retrieved", "item": found.view()}
                await self._say(view)
            case "conversation.item.truncate", (name, end_ms):
                self._truncate(name, end_ms)
            case "conversation.item.delete", name:
                await self._delete(self._telling.items.find(name))
            case "session.end", keep:
                if keep:
                    self._refuse_agreed("keep")
                self._keep = keep
                self._talk.end()

    def _refuse_agreed(self, name: str) -> None:
        """Refuse a field that would go beyond what was agreed."""
        if self._agreed:
            raise errors.FieldInvalid(f"'{name}' is not for clients with a client secret.")

    async def _commit(self) -> None:
        await self._say(*self._telling.person.commit(self._talk.session.received_s))
        if self._manners.heard.detection is None:
            self._talk.playback_completed()
        await self._talk.commit()

    def _respond(self, given: Mapping[str, Any], name: str) -> None:
        options = self._response_options(given)
        if self._talk.sending:
            raise ResponseActive()
        self._talk.playback_completed()
        self._talk.wish(conversation_events.ResponseRequested, options, name)
        self._telling.replies.requested(self._talk.machine.turn, given)

    async def _check_output(self, given: Mapping[str, Any]) -> None:
        """Refuse an answer in another voice or format than the session's."""
        now = self._manners
        after = dialogue_config.with_output(now, given.get("audio"), "response.audio")
        if (after.own_voice, after.sound) != (now.own_voice, now.sound):
            await check_voice(self._service, after)
            raise errors.FieldInvalid(
                "'response.audio.output' is not as the session has it.",
                hint="Change 'session.audio.output' by session.update before the answer.",
            )

    def _response_options(
        self, given: Mapping[str, Any]
    ) -> conversation_events.ConversationOptions | None:
        """Return the options of one response; `None` if it has those of the session."""
        now = self._manners
        for name in UNSUPPORTED_RESPONSE_FIELDS:
            if given.get(name) is not None:
                raise errors.FieldInvalid(f"'response.{name}' is not supported here.")
        if given.get("conversation") not in (None, "auto"):
            raise errors.FieldInvalid("'response.conversation' is not 'auto'.")
        if not isinstance(given.get("metadata"), dict | None):
            raise errors.FieldInvalid("'response.metadata' is not an object.")
        dialogue_config.refuse_beta_fields(given, "response")
        options = self._talk.machine.options
        instructions = dialogue_config.parse_instructions(
            given, "response.instructions", now.instructions
        )
        aloud = dialogue_config.parse_modalities(given, "response.output_modalities", now.aloud)
        tools = dialogue_config.parse_tools(given, "response", now.tools)
        check_tools(tools, self._talk.stages.thinker)
        if (instructions, aloud, tools) == (now.instructions, now.aloud, now.tools):
            return None
        voiced = now.speaks and aloud
        return replace(options, instructions=instructions, voiced=voiced, tools=tools)

    async def _create(self, order: client_events.RealtimeItemCreate) -> None:
        name, after = self._place(order)
        item = RealtimeDialogueItem(name, order.role)
        if (call := order.call) is not None:
            if self._talk.machine.history.knows(call.id):
                raise errors.FieldInvalid(f"'item.call_id' is in use: there is a call '{call.id}'.")
            item.call, item.name, item.text = call.id, call.name, call.arguments
        wish = order.role, order.text, name, after, call
        await self._record(item, order.after, conversation_events.HistoryEntryAdded, *wish)

    async def _return(self, order: client_events.RealtimeToolOutput) -> None:
        name, after = self._place(order)
        if not self._talk.machine.history.awaits(order.call):
            raise CallUnknown(f"No pending tool call has the id '{order.call}'.")
        item = RealtimeDialogueItem(name, ChatRole.TOOL, call=order.call, returned=True)
        wish = order.call, order.output, name, after
        await self._record(item, order.after, conversation_events.ToolResultAdded, *wish)

    def _place(
        self, order: client_events.RealtimeItemCreate | client_events.RealtimeToolOutput
    ) -> tuple[str, int | None]:
        """Return the id of an item, and the entry of the history after which it is added."""
        items = self._telling.items
        if order.after == server_events.FIRST:
            after: int | None = 0
        else:
            after = items.find(order.after).entry or None if order.after else None
        return order.item or items.new_id(), after

    async def _record(
        self,
        item: RealtimeDialogueItem,
        after: str,
        what: Callable[..., conversation_events.ConversationEvent],
        *values: object,
    ) -> None:
        """Add an item to the history. The next client event, which may name it, is read after the
        item's events were sent."""
        self._telling.create(item, after)
        self._talk.wish(what, *values)
        while not (self._telling.told(item) or self._talk.session.over):
            self._recorded.clear()
            await self._recorded.wait()

    def _truncate(self, name: str, end_ms: int) -> None:
        item, seconds = self._telling.items.find(name), end_ms / 1000
        if not (item.turn and item.aloud):
            raise errors.FieldInvalid("'item_id' is not the id of an answer that is being played.")
        if seconds > item.sent_s + PLAYER_CLOCK_SLACK_S:
            raise errors.FieldInvalid(
                f"'audio_end_ms' is beyond the end of the audio: {round(item.sent_s * 1000)}."
            )
        self._talk.wish(conversation_events.PlaybackTruncated, item.turn, min(seconds, item.sent_s))

    async def _delete(self, item: RealtimeDialogueItem) -> None:
        if item.call and item.status == "in_progress":
            raise ResponseActive()
        if item.turn and item.turn == self._talk.machine.replying:
            if self._talk.sending:
                raise ResponseActive()
            self._talk.playback_completed()
        self._talk.wish(conversation_events.HistoryEntryDeleted, item.entry)
        self._telling.items.drop(item)
        await self._say({"type": "conversation.item.deleted", "item_id": item.id})

    async def _end(self) -> None:
        """Send the transcript of the conversation; store it as a job first if the client wants
        that."""
        transcript = self._transcript.transcript(
            time.monotonic(),
            engine=self._spec.name,
            precision=self._spec.precisions[0].value,
            language=self._service.settings.language,
            machine=f"Machine ({self._talk.stages.thinker.name})",
        )
        job = None
        if self._keep and transcript.segments:
            try:
                archive = self._service.live_archive
                job = await archive.conversation(self._socket.caller, transcript)
            except errors.SidecarError as error:
                await self._refuse(error, None)
        written = {form: render_transcript(transcript, form) for form in ("text", "srt")}
        body = transcript_body(transcript)
        ended = {"type": "session.ended", "job": job, "transcript": body, "written": written}
        await self._say(ended)
        self.over = True

    def _use(self, manners: dialogue_config.RealtimeDialogueConfig, thinker: Llm) -> None:
        self._manners = manners
        self._telling.use(manners)
        self._talk.wish(
            conversation_events.OptionsChanged, manners.options(self._talk.machine.options)
        )
        self._talk.input.use(manners.hearing(self._talk.input.options))
        self._talk.stages.thinker = thinker
        self._talk.stages.manner = manners.manner(self._usual)

    def _view(self, what: str) -> EventBody:
        return self._described(f"session.{what}", self._manners.view)


async def wants_dialogue(service: Service, query: Mapping[str, str]) -> bool:
    """Return whether a connection is a conversation, by its URL."""
    model = query.get("model", "")
    if query.get("intent") == "transcription":
        return False
    if model.startswith(dialogue_config.DIALOGUE_MODELS):
        return True
    transcribes = (service.live.engine.name, *ALIASES, *LIVE_ALIASES)
    if not model or model in transcribes:
        return False
    return model in await ConversationRegistry.of(service).models()


async def start_dialogue(
    service: Service, session: Mapping[str, Any]
) -> tuple[dialogue_config.RealtimeDialogueConfig, Llm]:
    """Return the initial configuration of a conversation by ``session``, and its LLM.

    Raises:
        errors.ModelNotFound: there is no model of that name.
        ToolsUnavailable: the model cannot call tools.
        errors.BadRequest, errors.NotFound: a field is invalid or not available here.
    """
    spec, model = service.live.engine, session.get("model") or ""
    if not isinstance(model, str):
        raise errors.ModelNotFound()
    thinker = await find_llm(service, model)
    usual = ConversationRegistry.of(service).options()
    manners = dialogue_config.RealtimeDialogueConfig(
        model or thinker.name,
        usual.instructions,
        replace(dialogue_config.HEARD, model=spec.name),
        speaks=usual.voiced,
        any_voice=service.tts is not None and not service.tts.spec.lists_voices,
    )
    found = dialogue_config.updated_dialogue(manners, session, spec)
    check_tools(found.tools, thinker)
    return found, thinker


async def find_llm(service: Service, model: str) -> Llm:
    """Return the LLM of a name; OpenAI's names stand for the default one.

    Raises:
        errors.ModelNotFound: there is no model of that name.
    """
    own = "" if model.startswith(dialogue_config.DIALOGUE_MODELS) else model
    return await ConversationRegistry.of(service).thinker(own)


def check_tools(tools: ToolSet, thinker: Llm) -> None:
    """Reject tools if the LLM cannot call any.

    Raises:
        ToolsUnavailable: it cannot.
    """
    if tools.all and not thinker.calls:
        raise ToolsUnavailable()


async def check_voice(service: Service, manners: dialogue_config.RealtimeDialogueConfig) -> None:
    """Refuse a voice of the answers that does not exist; this loads the TTS engine.

    Raises:
        errors.VoiceUnknown: the voice does not exist.
        errors.SidecarError: the TTS engine does not load.
    """
    if not (manners.own_voice and manners.speaks):
        return
    await ConversationRegistry.of(service).voices()
    ConversationRegistry.of(service).check_voice(manners.own_voice)


async def serve_dialogue(
    socket: WebSocketConnection,
    service: Service,
    session: Mapping[str, Any],
    expires_at: int,
    *,
    again: bool = False,
    agreed: bool = False,
) -> None:
    """Serve a conversation until the client ends it; ``again``: the connection was a transcription
    before; ``agreed``: as in `RealtimeDialogueConnection`.

    Raises:
        WebSocketGone: the client disconnected.
        errors.SidecarError: the conversation failed.
    """
    manners, thinker = await start_dialogue(service, {"model": session.get("model")})
    conversations, settings = ConversationRegistry.of(service), service.settings
    options = manners.options(conversations.options())
    usual = SynthesisOptions(ConversationSettings.of(settings).talk_voice, settings.language)
    async with conversations.open(
        socket.caller, options, manners.manner(usual), clears=True
    ) as talk:
        talk.stages.thinker = thinker
        connection = RealtimeDialogueConnection(
            socket, service, talk, manners, usual, expires_at=expires_at, agreed=agreed
        )
        await connection.change(session)
        await connection.greet(again=again)
        await socket.run_until_first_ends(connection.hear(), talk.run(), connection.tell())
    if not connection.over:
        raise errors.ShuttingDown()  # nothing else ends a conversation without an error

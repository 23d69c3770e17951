"""Realtime conversation session.

The next event is read when there is capacity for it, and after a commit when all audio before it
was recognized. So a requested response never misses what the user said.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
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
    """Connection of a conversation. ``default_synthesis``: synthesis options of the service.
    ``agreed``: the client has a client secret, which opens one session as it was agreed."""

    session_type = RealtimeSessionType.CONVERSATION

    def __init__(
        self,
        socket: WebSocketConnection,
        service: Service,
        conversation: ConversationLoop,
        config: dialogue_config.RealtimeDialogueConfig,
        default_synthesis: SynthesisOptions,
        *,
        expires_at: int,
        agreed: bool,
    ) -> None:
        super().__init__(socket, conversation.session, expires_at)
        self._service, self._conversation, self._agreed = service, conversation, agreed
        self._default_synthesis, self._spec = default_synthesis, service.live.engine
        self._events = RealtimeDialogueEvents(
            self.name, conversation.machine.options.most_messages, conversation.input.span
        )
        self._recorded = asyncio.Event()
        self._transcript = ConversationTranscript(time.monotonic())
        self._keep = False
        self._use(config, conversation.stages.llm)

    async def greet(self, *, again: bool = False) -> None:
        """Send the first events; ``again``: the session was a transcription before."""
        await self._socket.open()
        await self._send(self._view("updated" if again else "created"))
        body = {"id": self._events.conversation, "object": "realtime.conversation"}
        await self._send({"type": "conversation.created", "conversation": body})

    async def send_events(self) -> None:
        """Send the events of the conversation until the client ends it.

        Raises:
            WebSocketGone: the client disconnected.
        """
        async for output in self._conversation.outgoing():
            if isinstance(output, conversation_events.ConversationEnded):
                await self._end()
                return
            self._transcript.take(output, time.monotonic())
            await self._send(*self._events.of(output))
            self._recorded.set()

    async def change(self, session: object) -> None:
        """Apply a client's changes of the session.

        Raises:
            errors.SidecarError: a field is invalid or not available here.
        """
        config = dialogue_config.updated_dialogue(self._config, session, self._spec)
        llm = self._conversation.stages.llm
        if config.model != self._config.model:
            self._refuse_agreed("session.model")
            llm = await find_llm(self._service, config.model)
        check_tools(config.tools, llm)
        if config.own_voice != self._config.own_voice:
            await check_voice(self._service, config)
        self._use(config, llm)

    async def _execute(self, command: client_events.RealtimeCommand, event_id: str | None) -> None:
        match command:
            case client_events.AUDIO_APPEND, audio:
                await self._append(audio, self._config.transcription, self._conversation.hear)
            case client_events.AUDIO_COMMIT, _:
                await self._commit()
            case client_events.AUDIO_CLEAR, _:
                self._events.user_turns.clear(self._conversation.session.received_s)
                await self._conversation.discard()
            case client_events.SESSION_UPDATE, session:
                await self.change(session)
                await self._send(self._view("updated"))
            case "response.create", options:
                await self._check_output(options)
                self._respond(options, event_id or "")
            case "response.cancel", response:  # '' means the current one
                if not self._conversation.sending or response not in (
                    "",
                    self._events.responses.current,
                ):
                    raise ResponseNotActive()
                self._conversation.request(conversation_events.ResponseCancelled)
            case "output_audio_buffer.clear", _:
                if not self._conversation.machine.replying:
                    raise ResponseNotActive("No audio is being played.")
                self._conversation.request(conversation_events.ResponseCancelled)
            case "conversation.item.create", client_events.RealtimeItemCreate() as item:
                await self._add_item(item)
            case "conversation.item.create", tool_output:
                await self._add_tool_output(tool_output)
            case "conversation.item.retrieve", name:
                found = self._events.items.find(name)
                view = {"type": "conversation.item.retrieved", "item": found.view()}
                await self._send(view)
            case "conversation.item.truncate", (name, end_ms):
                self._truncate(name, end_ms)
            case "conversation.item.delete", name:
                await self._delete(self._events.items.find(name))
            case "session.end", keep:
                if keep:
                    self._refuse_agreed("keep")
                self._keep = keep
                self._conversation.end()

    def _refuse_agreed(self, name: str) -> None:
        """Refuse a field that would go beyond what was agreed."""
        if self._agreed:
            raise errors.FieldInvalid(f"'{name}' is not for clients with a client secret.")

    async def _commit(self) -> None:
        await self._send(*self._events.user_turns.commit(self._conversation.session.received_s))
        if self._config.transcription.detection is None:
            self._conversation.playback_completed()
        await self._conversation.commit()

    def _respond(self, given: Mapping[str, Any], name: str) -> None:
        options = self._response_options(given)
        if self._conversation.sending:
            raise ResponseActive()
        self._conversation.playback_completed()
        self._conversation.request(conversation_events.ResponseRequested, options, name)
        self._events.responses.requested(self._conversation.machine.turn, given)

    async def _check_output(self, given: Mapping[str, Any]) -> None:
        """Refuse an answer in another voice or format than the session's."""
        config = self._config
        requested = dialogue_config.with_output(config, given.get("audio"), "response.audio")
        if (requested.own_voice, requested.audio_format) != (config.own_voice, config.audio_format):
            await check_voice(self._service, requested)
            raise errors.FieldInvalid(
                "'response.audio.output' is not as the session has it.",
                hint="Change 'session.audio.output' by session.update before the answer.",
            )

    def _response_options(
        self, given: Mapping[str, Any]
    ) -> conversation_events.ConversationOptions | None:
        """Return the options of one response; `None` if it has those of the session."""
        config = self._config
        for name in UNSUPPORTED_RESPONSE_FIELDS:
            if given.get(name) is not None:
                raise errors.FieldInvalid(f"'response.{name}' is not supported here.")
        if given.get("conversation") not in (None, "auto"):
            raise errors.FieldInvalid("'response.conversation' is not 'auto'.")
        if not isinstance(given.get("metadata"), dict | None):
            raise errors.FieldInvalid("'response.metadata' is not an object.")
        dialogue_config.refuse_beta_fields(given, "response")
        options = self._conversation.machine.options
        instructions = dialogue_config.parse_instructions(
            given, "response.instructions", config.instructions
        )
        aloud = dialogue_config.parse_modalities(given, "response.output_modalities", config.aloud)
        tools = dialogue_config.parse_tools(given, "response", config.tools)
        check_tools(tools, self._conversation.stages.llm)
        if (instructions, aloud, tools) == (config.instructions, config.aloud, config.tools):
            return None
        voiced = config.speaks and aloud
        return replace(options, instructions=instructions, voiced=voiced, tools=tools)

    async def _add_item(self, new_item: client_events.RealtimeItemCreate) -> None:
        name, after = self._place(new_item)
        item = RealtimeDialogueItem(name, new_item.role)
        if (call := new_item.call) is not None:
            if self._conversation.machine.history.knows(call.id):
                raise errors.FieldInvalid(f"'item.call_id' is in use: there is a call '{call.id}'.")
            item.call, item.name, item.text = call.id, call.name, call.arguments
        values = new_item.role, new_item.text, name, after, call
        await self._record(item, new_item.after, conversation_events.HistoryEntryAdded, *values)

    async def _add_tool_output(self, tool_output: client_events.RealtimeToolOutput) -> None:
        name, after = self._place(tool_output)
        if not self._conversation.machine.history.awaits(tool_output.call):
            raise CallUnknown(f"No pending tool call has the id '{tool_output.call}'.")
        item = RealtimeDialogueItem(name, ChatRole.TOOL, call=tool_output.call, returned=True)
        values = tool_output.call, tool_output.output, name, after
        await self._record(item, tool_output.after, conversation_events.ToolResultAdded, *values)

    def _place(
        self, new_item: client_events.RealtimeItemCreate | client_events.RealtimeToolOutput
    ) -> tuple[str, int | None]:
        """Return the id of an item, and the entry of the history after which it is added."""
        items = self._events.items
        if new_item.after == server_events.FIRST:
            after: int | None = 0
        else:
            after = items.find(new_item.after).entry or None if new_item.after else None
        return new_item.item or items.new_id(), after

    async def _record(
        self,
        item: RealtimeDialogueItem,
        after: str,
        event: Callable[..., conversation_events.ConversationEvent],
        *values: object,
    ) -> None:
        """Add an item to the history. The next client event, which may name it, is read after the
        item's events were sent."""
        self._events.create(item, after)
        self._conversation.request(event, *values)
        while not (self._events.is_sent(item) or self._conversation.session.over):
            self._recorded.clear()
            await self._recorded.wait()

    def _truncate(self, name: str, end_ms: int) -> None:
        item, seconds = self._events.items.find(name), end_ms / 1000
        if not (item.turn and item.aloud):
            raise errors.FieldInvalid("'item_id' is not the id of an answer that is being played.")
        if seconds > item.sent_s + PLAYER_CLOCK_SLACK_S:
            raise errors.FieldInvalid(
                f"'audio_end_ms' is beyond the end of the audio: {round(item.sent_s * 1000)}."
            )
        self._conversation.request(
            conversation_events.PlaybackTruncated, item.turn, min(seconds, item.sent_s)
        )

    async def _delete(self, item: RealtimeDialogueItem) -> None:
        if item.call and item.status == "in_progress":
            raise ResponseActive()
        if item.turn and item.turn == self._conversation.machine.replying:
            if self._conversation.sending:
                raise ResponseActive()
            self._conversation.playback_completed()
        self._conversation.request(conversation_events.HistoryEntryDeleted, item.entry)
        self._events.items.drop(item)
        await self._send({"type": "conversation.item.deleted", "item_id": item.id})

    async def _end(self) -> None:
        """Send the transcript of the conversation; store it as a job first if the client wants
        that."""
        transcript = self._transcript.transcript(
            time.monotonic(),
            engine=self._spec.name,
            precision=self._spec.precisions[0].value,
            language=self._service.settings.language,
            assistant=f"Machine ({self._conversation.stages.llm.name})",
        ).with_notice(*self._conversation.input.missing)
        job = None
        if self._keep and transcript.segments:
            try:
                archive = self._service.live_archive
                job = await archive.save_conversation(self._socket.identity, transcript)
            except errors.SidecarError as error:
                await self._refuse(error, None)
        written = {form: render_transcript(transcript, form) for form in ("text", "srt")}
        body = transcript_body(transcript)
        ended = {"type": "session.ended", "job": job, "transcript": body, "written": written}
        await self._send(ended)

    def _use(self, config: dialogue_config.RealtimeDialogueConfig, llm: Llm) -> None:
        self._config = config
        self._events.use(config)
        self._conversation.request(
            conversation_events.OptionsChanged, config.options(self._conversation.machine.options)
        )
        self._conversation.input.use(config.live_options(self._conversation.input.options))
        self._conversation.stages.llm = llm
        self._conversation.stages.synthesis = config.synthesis(self._default_synthesis)

    def _view(self, what: str) -> EventBody:
        return self._session_event(f"session.{what}", self._config.view)


async def wants_dialogue(service: Service, query: Mapping[str, str]) -> bool:
    """Return whether a connection is a conversation, by its URL.

    Raises:
        LlmError: only the LLM's server could tell, and it does not answer now.
    """
    model = query.get("model", "")
    if query.get("intent") == "transcription":
        return False
    if model.startswith(dialogue_config.DIALOGUE_MODELS):
        return True
    transcribes = (service.live.engine.name, *ALIASES, *LIVE_ALIASES)
    if not model or model in transcribes:
        return False
    return await ConversationRegistry.of(service).has_model(model)


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
    llm = await find_llm(service, model)
    default_options = ConversationRegistry.of(service).options()
    config = dialogue_config.RealtimeDialogueConfig(
        model or llm.name,
        default_options.instructions,
        replace(dialogue_config.DEFAULT_TRANSCRIPTION, model=spec.name),
        speaks=default_options.voiced,
        any_voice=service.tts is not None and not service.tts.spec.lists_voices,
    )
    updated = dialogue_config.updated_dialogue(config, session, spec)
    check_tools(updated.tools, llm)
    return updated, llm


async def find_llm(service: Service, model: str) -> Llm:
    """Return the LLM of a name; OpenAI's names stand for the default one.

    Raises:
        errors.ModelNotFound: there is no model of that name.
    """
    own = "" if model.startswith(dialogue_config.DIALOGUE_MODELS) else model
    return await ConversationRegistry.of(service).find_llm(own)


def check_tools(tools: ToolSet, llm: Llm) -> None:
    """Reject tools if the LLM cannot call any.

    Raises:
        ToolsUnavailable: it cannot.
    """
    if tools.all and not llm.calls:
        raise ToolsUnavailable()


async def check_voice(service: Service, config: dialogue_config.RealtimeDialogueConfig) -> None:
    """Refuse a voice of the answers that does not exist; this loads the TTS engine.

    Raises:
        errors.VoiceUnknown: the voice does not exist.
        errors.SidecarError: the TTS engine does not load.
    """
    if not (config.own_voice and config.speaks):
        return
    await ConversationRegistry.of(service).voices()
    ConversationRegistry.of(service).check_voice(config.own_voice)


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
    config, llm = await start_dialogue(service, {"model": session.get("model")})
    registry, settings = ConversationRegistry.of(service), service.settings
    options = config.options(registry.options())
    default_synthesis = SynthesisOptions(
        ConversationSettings.of(settings).talk_voice, settings.language
    )
    async with registry.open(
        socket.identity, options, config.synthesis(default_synthesis), clears=True
    ) as conversation:
        conversation.stages.llm = llm
        connection = RealtimeDialogueConnection(
            socket,
            service,
            conversation,
            config,
            default_synthesis,
            expires_at=expires_at,
            agreed=agreed,
        )
        await connection.change(session)
        await connection.greet(again=again)
        await socket.run_until_first_ends(
            connection.receive_commands(),
            connection.send_events(),
            conversation.run(),
            conclude=partial(service.live.conclude, conversation.session),
        )

"""Responses and other events of a conversation as server events, and its transcript. Pure.

A response is done when all of it was sent. How much of it was played is known later, from the
client or from a clock.
"""

import base64
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar import errors
from sidecar.audio.codecs import G711_RATE, encode_a_law, encode_mu_law
from sidecar.bounded_dict import BoundedDict
from sidecar.plugins.conversation import audio_pacing, conversation_events
from sidecar.plugins.conversation.chat_completions import ChatRole
from sidecar.plugins.conversation.errors import ReplyEmpty
from sidecar.plugins.openai.common import error_body
from sidecar.plugins.realtime import server_events
from sidecar.plugins.realtime.dialogue_config import RealtimeDialogueConfig
from sidecar.plugins.realtime.server_events import (
    EventBody,
    RealtimeConversationTurns,
    RealtimeDialogueItem,
    RealtimeDialogueItems,
)
from sidecar.plugins.realtime.session_config import RealtimeAudioFormat
from sidecar.transcripts.transcript import Segment, SpeakerProfile, Transcript

MAX_PENDING_REQUESTS = 8
"""Maximum options of requested responses that are stored until the responses start."""

STATUSES = {
    conversation_events.ReplyEnding.COMPLETED: "completed",
    conversation_events.ReplyEnding.INTERRUPTED: "cancelled",
    conversation_events.ReplyEnding.CANCELLED: "cancelled",
    conversation_events.ReplyEnding.LIMITED: "incomplete",
    conversation_events.ReplyEnding.FAILED: "failed",
}
_REASONS = {
    conversation_events.ReplyEnding.INTERRUPTED: "turn_detected",
    conversation_events.ReplyEnding.CANCELLED: "client_cancelled",
    conversation_events.ReplyEnding.LIMITED: "max_output_tokens",
}

USER, ASSISTANT = 0, 1
"""Speaker numbers of the user and the assistant."""
MAX_ENTRIES = 5_000
"""Maximum number of entries; the oldest are dropped."""
MAX_CHARACTERS = 1_000_000
"""Maximum number of characters in all entries; a conversation of a day has fewer."""
NEVER = float("-inf")


@dataclass(eq=False, slots=True)
class RealtimeResponse:
    """Response. ``options``: from the client's request; ``written``: all its text so far;
    ``calls``: its tool calls by id."""

    turn: int
    id: str
    item: RealtimeDialogueItem
    options: Mapping[str, Any]
    output: EventBody
    begun: bool = False
    done: bool = False
    written: str = ""
    calls: dict[str, RealtimeDialogueItem] = field(default_factory=dict)
    error: errors.SidecarError | None = None

    @property
    def items(self) -> list[RealtimeDialogueItem]:
        """Return its items so far, in order."""
        message = [self.item] if self.begun else []
        return sorted([*message, *self.calls.values()], key=lambda one: one.index)

    def item_event(
        self, what: str, item: RealtimeDialogueItem, *, empty: bool = False
    ) -> EventBody:
        """Return the event that an item of it is ``added`` or ``done``."""
        return {
            "type": f"response.output_item.{what}",
            "response_id": self.id,
            "output_index": item.index,
            "item": item.view(empty=empty),
        }

    def part(self, what: str, item: RealtimeDialogueItem, **fields: Any) -> EventBody:
        """Return an event of an item in it: its text, its audio, or a call's arguments."""
        ids = {"response_id": self.id, "item_id": item.id, "output_index": item.index}
        part = {"call_id": item.call} if item.call else {"content_index": 0}
        return {"type": f"response.{what}", **ids, **part, **fields}

    def content_part(self, what: str, text: str) -> EventBody:
        """Return the event that the content of its message is ``added`` or ``done``."""
        name, kind = ("transcript", "audio") if self.item.aloud else ("text", "text")
        return self.part(f"content_part.{what}", self.item, part={"type": kind, name: text})


class RealtimeResponses:
    """Responses of one conversation. ``output``: the audio output configuration, as clients read
    it."""

    def __init__(self, items: RealtimeDialogueItems, prefix: str, conversation: str) -> None:
        self.output: EventBody = {}
        self.law = RealtimeAudioFormat.MU_LAW
        """Format of telephone audio (mu-law or A-law)."""
        self._items, self._prefix, self._conversation = items, prefix, conversation
        self._requested = BoundedDict[int, Mapping[str, Any]](MAX_PENDING_REQUESTS)
        self._now: RealtimeResponse | None = None

    @property
    def current(self) -> str:
        """Return the id of the last response that was sent, or ''."""
        return self._now.id if self._now is not None else ""

    def requested(self, turn: int, options: Mapping[str, Any]) -> None:
        """Record the options of the response that a client requested for a turn."""
        self._requested[turn] = options

    def refused(self) -> None:
        """Forget the options: there is nothing to respond to."""
        self._requested.clear()

    def events_of(self, output: conversation_events.ConversationOutput) -> Iterator[EventBody]:
        """Yield the server events of an output of the conversation."""
        match output:
            case conversation_events.ReplyStarted():
                yield from self._started(output)
            case conversation_events.ReplyTruncated():
                yield from self._truncated(output)
            case conversation_events.DropReplyAudio() if (
                self._now is not None and self._now.turn == output.turn
            ):
                yield {"type": "output_audio_buffer.cleared", "response_id": self._now.id}
            case _ if self._now is not None and getattr(output, "turn", 0) == self._now.turn:
                yield from self._of(self._now, output)

    def _started(self, reply: conversation_events.ReplyStarted) -> Iterator[EventBody]:
        item = RealtimeDialogueItem(
            self._items.new_id(),
            ChatRole.ASSISTANT,
            aloud=reply.voiced,
            status="in_progress",
            entry=reply.entry,
            turn=reply.turn,
        )
        name = f"resp_{self._prefix}_{reply.turn}"
        options = self._requested.pop(reply.turn, {})
        self._now = RealtimeResponse(reply.turn, name, item, options, self.output)
        yield {"type": "response.created", "response": self._view(self._now, None)}

    def _of(
        self, response: RealtimeResponse, output: conversation_events.ConversationOutput
    ) -> Iterator[EventBody]:
        item = response.item
        match output:
            case conversation_events.ReplyTextDelta():
                yield from self._begin(response)
                response.written += output.text
                item.text = response.written
                yield response.part(f"{item.text_output}.delta", item, delta=output.text)
            case audio_pacing.ReplyAudioFrame():
                yield from self._begin(response)
                item.sent_s += output.seconds
                delta = base64.b64encode(self._encoded(output)).decode()
                yield response.part("output_audio.delta", item, delta=delta)
            case conversation_events.ToolCallStarted():
                call = response.calls[output.call] = RealtimeDialogueItem(
                    self._items.new_id(),
                    ChatRole.ASSISTANT,
                    status="in_progress",
                    index=len(response.items),
                    call=output.call,
                    name=output.name,
                )
                yield from self._added(response, call)
            case conversation_events.ToolCallArgumentsDelta():
                call = response.calls[output.call]
                call.text += output.text
                yield response.part("function_call_arguments.delta", call, delta=output.text)
            case conversation_events.ToolCallEnded():
                call = response.calls[output.call.id]
                call.status, call.entry = "completed", output.entry
                fields = {"name": call.name, "arguments": call.text}
                yield response.part("function_call_arguments.done", call, **fields)
                yield from self._done(response, call)
            case conversation_events.ConversationError():
                response.error = output.error
            case conversation_events.TurnAudioSent():
                yield from self._finish(response, output.ending)
            case conversation_events.ReplyEnded():
                yield from self._finish(response, output.ending)
                item.text = output.text

    def _begin(self, response: RealtimeResponse) -> Iterator[EventBody]:
        """Yield the first events of a response's output."""
        if response.begun:
            return
        response.item.index = len(response.items)
        response.begun, item = True, response.item
        yield from self._added(response, item)
        yield response.content_part("added", "")

    def _added(self, response: RealtimeResponse, item: RealtimeDialogueItem) -> Iterator[EventBody]:
        self._items.add(item)
        yield response.item_event("added", item, empty=True)
        yield server_events.item_event("added", item, empty=True)

    @staticmethod
    def _done(response: RealtimeResponse, item: RealtimeDialogueItem) -> Iterator[EventBody]:
        yield server_events.item_event("done", item)
        yield response.item_event("done", item)

    def _finish(
        self, response: RealtimeResponse, ending: conversation_events.ReplyEnding
    ) -> Iterator[EventBody]:
        """Yield the last events of a response's output."""
        if response.done:
            return
        response.done, item = True, response.item
        item.text = response.written
        item.status = (
            "completed" if ending is conversation_events.ReplyEnding.COMPLETED else "incomplete"
        )
        if response.begun:
            if item.aloud:
                yield response.part("output_audio.done", item)
            fields = {"transcript" if item.aloud else "text": response.written}
            yield response.part(f"{item.text_output}.done", item, **fields)
            yield response.content_part("done", response.written)
            yield from self._done(response, item)
        for call in response.calls.values():
            if call.status == "in_progress":  # it will not be executed
                call.status = "incomplete"
                yield from self._done(response, call)
        yield {"type": "response.done", "response": self._view(response, ending)}

    def _truncated(self, truncated: conversation_events.ReplyTruncated) -> Iterator[EventBody]:
        item = self._items.reply(truncated.turn)
        if item is not None:
            item.text, item.sent_s = truncated.text, min(item.sent_s, truncated.seconds)
            yield {
                "type": "conversation.item.truncated",
                "item_id": item.id,
                "content_index": 0,
                "audio_end_ms": round(truncated.seconds * 1000),
            }

    def _encoded(self, frame: audio_pacing.ReplyAudioFrame) -> bytes:
        """Return the frame's audio, encoded for the output format at its synthesis: its rate shows
        that format."""
        if frame.rate != G711_RATE:
            return frame.pcm
        encode = encode_a_law if self.law is RealtimeAudioFormat.A_LAW else encode_mu_law
        return encode(frame.pcm)

    def _view(
        self, response: RealtimeResponse, ending: conversation_events.ReplyEnding | None
    ) -> EventBody:
        return {
            "id": response.id,
            "object": "realtime.response",
            "status": "in_progress" if ending is None else STATUSES[ending],
            "status_details": None if ending is None else status_details(ending, response.error),
            "output": [item.view() for item in response.items],
            "conversation_id": self._conversation,
            "output_modalities": ["audio" if response.item.aloud else "text"],
            "max_output_tokens": "inf",
            "metadata": response.options.get("metadata"),
            "audio": {"output": response.output},
            "usage": None,
        }


class RealtimeDialogueEvents:
    """State of one conversation as the client knows it.

    ``prefix``: start of the ids; ``most``: maximum known items; ``span``: as in
    `RealtimeConversationTurns`.
    """

    def __init__(self, prefix: str, most: int, span: Callable[[int], tuple[float, float]]) -> None:
        self.conversation = f"conv_{prefix}"
        self.items = RealtimeDialogueItems(prefix, most)
        self.user_turns = RealtimeConversationTurns(self.items, span)
        self.responses = RealtimeResponses(self.items, prefix, self.conversation)
        self._created: dict[str, tuple[RealtimeDialogueItem, str]] = {}

    def use(self, config: RealtimeDialogueConfig) -> None:
        """Apply a configuration from now on."""
        self.user_turns.detects = config.transcription.detection is not None
        self.user_turns.transcribes = config.transcription.transcribes
        self.responses.output, self.responses.law = config.output_view, config.audio_format

    def create(self, item: RealtimeDialogueItem, after: str = "") -> None:
        """Register an item of a client, to be added after ``after`` as in
        `RealtimeDialogueItems.add`. Its events are sent once it is in the history.

        Raises:
            errors.FieldInvalid: its id is in use.
        """
        if item.id in self.items or item.id in self._created:
            raise errors.FieldInvalid(f"'item.id' is in use: there is an item '{item.id}'.")
        self._created[item.id] = item, after

    def is_sent(self, item: RealtimeDialogueItem) -> bool:
        """Return whether the events of a client's item were sent."""
        return item.id not in self._created

    def of(self, output: conversation_events.ConversationOutput) -> Iterator[EventBody]:
        """Yield the server events of an output of the conversation."""
        match output:
            case conversation_events.HistoryEntryRecorded():
                yield from self._recorded(output)
            case conversation_events.ConversationError(turn=0):
                if isinstance(output.error, ReplyEmpty):
                    self.responses.refused()
                yield server_events.error_event(output.error, output.name or None)
            case conversation_events.CommitAcknowledged():
                yield from self.user_turns.commit_recognized()
            case conversation_events.DiscardAcknowledged():
                yield server_events.input_event("cleared")
            case _:
                yield from self.user_turns.events_of(output)
                yield from self.responses.events_of(output)

    def _recorded(self, recorded: conversation_events.HistoryEntryRecorded) -> Iterator[EventBody]:
        item, after = self._created.pop(recorded.name)
        item.entry = recorded.entry
        if not item.call or item.returned:
            item.text = recorded.text
        self.items.add(item, after)
        for what in ("added", "done"):
            yield server_events.item_event(what, item)


def status_details(
    ending: conversation_events.ReplyEnding, error: errors.SidecarError | None
) -> EventBody:
    """Return the reason for the end of a response, in the format of its status."""
    details: EventBody = {"type": STATUSES[ending]}
    if ending in _REASONS:
        details["reason"] = _REASONS[ending]
    if ending is conversation_events.ReplyEnding.FAILED and error is not None:
        body = error_body(error)["error"]
        details["error"] = {name: body[name] for name in ("type", "code", "message")}
    return details


@dataclass(slots=True)
class _TranscriptEntry:
    """Utterance or reply, by the transcript's clock; ``turn`` is a reply's number."""

    speaker: int
    began: float
    ended: float
    text: str
    turn: int = 0


class ConversationTranscript:
    """Transcript of one conversation since ``began``, made from its outputs in order."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._entries: deque[_TranscriptEntry] = deque(maxlen=MAX_ENTRIES)
        self._user: _TranscriptEntry | None = None
        self._reply: _TranscriptEntry | None = None

    def take(self, output: conversation_events.ConversationOutput, at: float) -> None:
        """Add an output, sent at ``at``."""
        match output:
            case conversation_events.UserTurnStarted(began=began):
                self._user = _TranscriptEntry(USER, began, NEVER, "")
            case conversation_events.UserTurnPartial(text) if self._user is not None:
                self._user.text = text
            case conversation_events.UserTurnStopped(ended) if self._user is not None:
                self._user.ended = ended
            case conversation_events.UserTurnDropped():
                self._user = None
            case conversation_events.UserTurnFinal(text, backchannel=(began, ended)):
                self._add(_TranscriptEntry(USER, began, ended, text))
            case conversation_events.UserTurnFinal(text):
                entry, self._user = self._user or _TranscriptEntry(USER, at, at, ""), None
                ended = max(entry.began, entry.ended)
                self._add(_TranscriptEntry(USER, entry.began, ended, text))
            case conversation_events.HistoryEntryRecorded(role=ChatRole.USER, text=text):
                self._add(_TranscriptEntry(USER, at, at, text))
            case conversation_events.ReplyStarted(turn):
                self._reply = _TranscriptEntry(ASSISTANT, at, at, "", turn)
            case audio_pacing.ReplyAudioFrame(turn=turn, start=0.0):
                if self._reply is not None and self._reply.turn == turn:
                    self._reply.began = at
            case conversation_events.ReplyEnded(turn=turn, text=text):
                if (reply := self._reply) is not None and reply.turn == turn:
                    self._reply = None
                    if text:
                        self._add(_TranscriptEntry(ASSISTANT, reply.began, at, text, turn))
            case conversation_events.ReplyTruncated(turn=turn, text=text):
                for entry in self._entries:
                    if entry.speaker == ASSISTANT and entry.turn == turn:
                        entry.text = text

    def transcript(
        self, at: float, *, engine: str, precision: str, language: str, assistant: str
    ) -> Transcript:
        """Return the transcript up to ``at``, with the words that the user is saying at its end.
        ``engine`` and ``precision`` are the recognizer's; ``assistant`` is the assistant's name."""
        entries = [one for one in (*self._entries, self._user) if one is not None and one.text]
        segments = list[Segment]()
        for entry in entries:
            ended = at if entry.ended == NEVER else entry.ended
            start, end = self._since(entry.began), self._since(max(entry.began, ended))
            segments.append(Segment(start, end, entry.text, entry.speaker))
        segments.sort(key=lambda one: (one.start, one.end))
        spoke = {one.speaker for one in entries}
        names = (SpeakerProfile(ASSISTANT, 0.0, name=assistant),) if ASSISTANT in spoke else ()
        about = language, self._since(at), engine, precision
        return Transcript(tuple(segments), *about, diarized=True, voices=names)

    def _add(self, entry: _TranscriptEntry) -> None:
        """Add an entry; drop the oldest if there are too many characters."""
        self._entries.append(entry)
        while (
            len(self._entries) > 1 and sum(len(one.text) for one in self._entries) > MAX_CHARACTERS
        ):
            self._entries.popleft()

    def _since(self, at: float) -> float:
        return round(max(0.0, at - self._began), 3)

"""Client events of both kinds of Realtime session. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sidecar.api.http import request_headers
from sidecar.errors import FieldInvalid, FieldMissing, JsonInvalid, SoundInvalid
from sidecar.interfaces.request_options import decode_base64, parse_flag, parse_integer, parse_text
from sidecar.plugins.conversation.chat_completions import ChatRole, ToolCall
from sidecar.plugins.conversation.conversation_events import MAX_PLAYBACK_REPORT_S
from sidecar.plugins.realtime import server_events
from sidecar.plugins.realtime.errors import EventUnsupported
from sidecar.plugins.realtime.session_config import RealtimeSessionType, require_object

LONGEST_ID = 64
"""Maximum characters of an id or a name."""
LONGEST_TEXT = 65_536
"""Maximum characters of an item."""
MAX_TOOL_OUTPUT_CHARACTERS = 32_768
"""Maximum characters of a tool call's output, and of its arguments."""
LONGEST_REPLY_MS = 1000 * MAX_PLAYBACK_REPORT_S
_TEXTS = {
    ChatRole.USER: "input_text",
    ChatRole.SYSTEM: "input_text",
    ChatRole.ASSISTANT: "output_text",
}
"""Content type of a message, by role."""


AUDIO_APPEND = "input_audio_buffer.append"
AUDIO_COMMIT = "input_audio_buffer.commit"
AUDIO_CLEAR = "input_audio_buffer.clear"
SESSION_UPDATE = "session.update"
BETA_SESSION_UPDATE = "transcription_session.update"


class RealtimeCommand(NamedTuple):
    """Command of a client: the type of its event, and what `read_command` read from the event."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class RealtimeItemCreate:
    """Item to add to the conversation.

    ``after``: the item before it, or the start (`server_events.FIRST`), or '' for the end.
    ``item``: the id that the client chose, or ''. With a ``call`` it is a tool call.
    """

    role: ChatRole
    text: str
    item: str = ""
    after: str = ""
    call: ToolCall | None = None


@dataclass(frozen=True, slots=True)
class RealtimeToolOutput:
    """Output of a tool call, by the call's id; the rest as `RealtimeItemCreate`."""

    call: str
    output: str
    item: str = ""
    after: str = ""


def parse_event(message: str | bytes) -> tuple[Mapping[str, Any], str | None]:
    """Return the event in a message, and the client's id of it.

    Raises:
        errors.JsonInvalid: it is no JSON object.
    """
    event = request_headers.parse_json_object(message)
    if event is None:
        hint = 'Send an event such as {"type": "input_audio_buffer.commit"}.'
        raise JsonInvalid("The message is not a JSON object.", hint=hint)
    event_id = event.get("event_id")
    return event, event_id if isinstance(event_id, str) else None


def read_command(event: Mapping[str, Any], session_type: RealtimeSessionType) -> RealtimeCommand:
    """Return the command of an event to a session of this kind.

    Raises:
        errors.SidecarError: the event is invalid or not supported.
    """
    name, known = event.get("type"), _KNOWN[session_type]
    hint = f"{_CALLED[session_type]} knows: {', '.join(known)}."
    if not isinstance(name, str):
        raise FieldMissing("The field 'type' is missing.", hint=hint)
    if name not in known:
        raise EventUnsupported(f"The event '{name[:80]}' is not supported here.", hint=hint)
    return RealtimeCommand(name, _READERS[name](event))


def _sound(audio: object) -> bytes:
    if not isinstance(audio, str):
        raise FieldMissing("The field 'audio' is missing.", hint="Send base64 text.")
    try:
        return decode_base64(audio)
    except ValueError:
        raise SoundInvalid("The field 'audio' is not base64.") from None


def _created(event: Mapping[str, Any]) -> RealtimeItemCreate | RealtimeToolOutput:
    item = require_object("item", event.get("item"))
    name, after = _word(item, "id", "item.id"), _word(event, "previous_item_id")
    if name == server_events.FIRST:
        raise FieldInvalid(f"'item.id' cannot be '{name}', which stands for the beginning.")
    match item.get("type"):
        case "message":
            role = next((one for one in _TEXTS if one.value == item.get("role")), None)
            if role is None:
                raise FieldInvalid(
                    "'item.role' has an invalid value.", hint=f"Use one of: {', '.join(_TEXTS)}."
                )
            return RealtimeItemCreate(role, _text(item.get("content"), _TEXTS[role]), name, after)
        case "function_call":
            call = ToolCall(
                _id(item, "call_id", "item.call_id"),
                _id(item, "name", "item.name"),
                _long(item, "arguments"),
            )
            return RealtimeItemCreate(ChatRole.TOOL, "", name, after, call)
        case "function_call_output":
            return RealtimeToolOutput(
                _id(item, "call_id", "item.call_id"), _long(item, "output"), name, after
            )
    raise FieldInvalid(
        "'item.type' has an invalid value.",
        hint="Use one of: message, function_call, function_call_output.",
    )


def _long(item: Mapping[str, Any], key: str) -> str:
    """Return the arguments or the output of a call."""
    value = item.get(key)
    if value is None:
        raise FieldMissing(f"The field 'item.{key}' is missing.")
    return parse_text(f"item.{key}", value, MAX_TOOL_OUTPUT_CHARACTERS)


def _text(content: object, kind: str) -> str:
    if not isinstance(content, list) or not content:
        raise FieldInvalid("'item.content' is not a list with at least one part.")
    texts = []
    for part in content:
        fields = require_object("item.content", part)
        if fields.get("type") != kind:
            raise FieldInvalid(
                f"'item.content' has a part that is not '{kind}'.",
                hint="Send audio by input_audio_buffer.append; images are not supported.",
            )
        texts.append(parse_text("item.content.text", fields.get("text")))
    text = " ".join(texts).strip()
    if not text or len(text) > LONGEST_TEXT:
        raise FieldInvalid(f"'item.content' has no text, or more than {LONGEST_TEXT} characters.")
    return text


def _truncated(event: Mapping[str, Any]) -> tuple[str, int]:
    """Return the item, and how many milliseconds of it the client played."""
    end_ms = parse_integer("audio_end_ms", event.get("audio_end_ms"), 0, LONGEST_REPLY_MS)
    if end_ms is None:
        raise FieldMissing("The field 'audio_end_ms' is missing.")
    parse_integer("content_index", event.get("content_index"), 0, 0)
    return _id(event, "item_id"), end_ms


def _id(fields: Mapping[str, Any], key: str, name: str = "") -> str:
    found = _word(fields, key, name)
    if not found:
        raise FieldMissing(f"The field '{name or key}' is missing.")
    return found


def _word(fields: Mapping[str, Any], key: str, name: str = "") -> str:
    return parse_text(name or key, fields.get(key), LONGEST_ID)


_READERS: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    SESSION_UPDATE: lambda event: event.get("session"),
    BETA_SESSION_UPDATE: lambda event: event.get("session"),
    AUDIO_APPEND: lambda event: _sound(event.get("audio")),
    AUDIO_COMMIT: lambda _: None,
    AUDIO_CLEAR: lambda _: None,
    "conversation.item.create": _created,
    "conversation.item.retrieve": lambda event: _id(event, "item_id"),
    "conversation.item.truncate": _truncated,
    "conversation.item.delete": lambda event: _id(event, "item_id"),
    "response.create": lambda event: require_object("response", event.get("response") or {}),
    "response.cancel": lambda event: _word(event, "response_id"),
    "output_audio_buffer.clear": lambda _: None,
    "session.end": lambda event: parse_flag("keep", event.get("keep"), default=False),
}
"""What a session reads from an event, by the event's type."""
_KNOWN = {
    RealtimeSessionType.TRANSCRIPTION: tuple(
        name
        for name in _READERS
        if name.startswith(("session.update", "transcription_session.", "input_audio_buffer."))
    ),
    RealtimeSessionType.CONVERSATION: tuple(
        name for name in _READERS if "transcription" not in name
    ),
}
_CALLED = {
    RealtimeSessionType.TRANSCRIPTION: "A session that transcribes",
    RealtimeSessionType.CONVERSATION: "A conversation",
}

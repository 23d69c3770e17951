"""Client events. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from sidecar import errors
from sidecar.api.http import request_headers
from sidecar.conversation.conversation_events import LONGEST_REPORT_S
from sidecar.conversation.llm.chat_completions import Role
from sidecar.interfaces.request_options import parse_whole, parse_word
from sidecar.protocols.openai_realtime.session_config import object_of

UPDATE, BETA_UPDATE = "session.update", "transcription_session.update"
APPEND = "input_audio_buffer.append"
COMMIT, CLEAR = "input_audio_buffer.commit", "input_audio_buffer.clear"
Asked = TypeVar("Asked")
TRANSCRIPTION_TYPES = (UPDATE, BETA_UPDATE, APPEND, COMMIT, CLEAR)


@dataclass(frozen=True, slots=True)
class Update:
    """Hear in another way; ``session`` is what was said of that, in the shape of the ``beta``."""

    session: object
    beta: bool = False


@dataclass(frozen=True, slots=True)
class Append:
    """More sound, in the form that was agreed."""

    raw: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """The turn ends here."""


@dataclass(frozen=True, slots=True)
class Clear:
    """What came since the last turn was no turn."""


TranscriptionOrder: TypeAlias = Update | Append | Commit | Clear


class OrderInvalid(Exception):
    """An event that means nothing; ``event_id`` is the one that the client gave it."""

    def __init__(self, error: errors.SidecarError, event_id: str | None) -> None:
        super().__init__(error.code)
        self.error, self.event_id = error, event_id


@dataclass(frozen=True, slots=True)
class Numbered(Generic[Asked]):
    """An order, and what its client calls it."""

    order: Asked
    event_id: str | None


def read_transcription_event(message: str | bytes) -> Numbered[TranscriptionOrder]:
    """The order in a message.

    Raises:
        OrderInvalid: there is none.
    """
    return read_as(message, _transcription_order)


def read_as(
    message: str | bytes, order_of: Callable[[Mapping[str, Any]], Asked]
) -> Numbered[Asked]:
    """The order in a message, by what ``order_of`` makes of an event.

    Raises:
        OrderInvalid: there is none.
    """
    try:
        event = request_headers.read(message)
    except ValueError:
        raise OrderInvalid(_no_event(), None) from None
    if not isinstance(event, dict):
        raise OrderInvalid(_no_event(), None)
    said = event.get("event_id")
    event_id = said if isinstance(said, str) else None
    try:
        return Numbered(order_of(event), event_id)
    except errors.SidecarError as error:
        raise OrderInvalid(error, event_id) from None


def _transcription_order(event: Mapping[str, Any]) -> TranscriptionOrder:
    match event.get("type"):
        case "session.update":
            return Update(event.get("session"))
        case "transcription_session.update":
            return Update(event.get("session"), beta=True)
        case "input_audio_buffer.append":
            return Append(sound_of(event.get("audio")))
        case "input_audio_buffer.commit":
            return Commit()
        case "input_audio_buffer.clear":
            return Clear()
        case str(other):
            raise errors.EventUnsupported(
                f"The event '{other[:80]}' is not known here.", hint=_TRANSCRIPTION_HINT
            )
        case _:
            raise errors.FieldMissing("The field 'type' is missing.", hint=_TRANSCRIPTION_HINT)


def sound_of(audio: object) -> bytes:
    """The bytes of some sound.

    Raises:
        errors.FieldMissing, errors.SoundInvalid: there are none.
    """
    if not isinstance(audio, str):
        raise errors.FieldMissing("The field 'audio' is missing.", hint="Send base64 text.")
    try:
        return base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError):
        raise errors.SoundInvalid("The field 'audio' is no base64.") from None


def _no_event() -> errors.JsonInvalid:
    return errors.JsonInvalid(
        "The message is no JSON object.", hint=f'Send an event such as {{"type": "{COMMIT}"}}.'
    )


_TRANSCRIPTION_HINT = f"A session that transcribes knows: {', '.join(TRANSCRIPTION_TYPES)}."


CREATE, DELETE = "conversation.item.create", "conversation.item.delete"
RETRIEVE, TRUNCATE = "conversation.item.retrieve", "conversation.item.truncate"
RESPOND, CANCEL = "response.create", "response.cancel"
HUSH = "output_audio_buffer.clear"
DIALOGUE_TYPES = (
    *(UPDATE, APPEND, COMMIT, CLEAR, CREATE, RETRIEVE, TRUNCATE, DELETE),
    *(RESPOND, CANCEL, HUSH),
)
LONGEST_ID = 64
"""Characters that a client may call something."""
LONGEST_TEXT = 65_536
"""Characters of an item."""
LONGEST_OUTPUT = 32_768
"""Characters of what came of a call."""
LONGEST_REPLY_MS = 1000 * LONGEST_REPORT_S
_TEXTS = {Role.USER: "input_text", Role.SYSTEM: "input_text", Role.ASSISTANT: "output_text"}
"""What the content of a message is, by who wrote it."""


@dataclass(frozen=True, slots=True)
class Create:
    """Something that belongs into the conversation, behind the item ``after`` if that is said;
    ``item`` is what the client calls it, or ''."""

    role: Role
    text: str
    item: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Return:
    """What came of a call of a tool, by its id; the rest as `Create`."""

    call: str
    output: str
    item: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    """It does not belong there."""

    item: str


@dataclass(frozen=True, slots=True)
class Retrieve:
    """How does it stand there?"""

    item: str


@dataclass(frozen=True, slots=True)
class Truncate:
    """Of an answer so many milliseconds were heard."""

    item: str
    end_ms: int


@dataclass(frozen=True, slots=True)
class Respond:
    """An answer is wanted, in the manner of ``wish``."""

    wish: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """No more of that answer, or if it is '' of whichever is given."""

    response: str


@dataclass(frozen=True, slots=True)
class Hush:
    """The client plays no more of what it has."""


DialogueOrder: TypeAlias = (
    Update
    | Append
    | Commit
    | Clear
    | Create
    | Return
    | Delete
    | Retrieve
    | Truncate
    | Respond
    | Cancel
    | Hush
)


def read_dialogue_event(message: str | bytes) -> Numbered[DialogueOrder]:
    """The order in a message.

    Raises:
        OrderInvalid: there is none.
    """
    return read_as(message, _dialogue_order)


def _dialogue_order(event: Mapping[str, Any]) -> DialogueOrder:
    match event.get("type"):
        case "session.update":
            return Update(event.get("session"))
        case "input_audio_buffer.append":
            return Append(sound_of(event.get("audio")))
        case "input_audio_buffer.commit":
            return Commit()
        case "input_audio_buffer.clear":
            return Clear()
        case "conversation.item.create":
            return _created(event)
        case "conversation.item.delete":
            return Delete(_item(event))
        case "conversation.item.retrieve":
            return Retrieve(_item(event))
        case "conversation.item.truncate":
            return _truncated(event)
        case "response.create":
            return Respond(object_of("response", event.get("response") or {}))
        case "response.cancel":
            return Cancel(_word(event, "response_id"))
        case "output_audio_buffer.clear":
            return Hush()
        case str(other):
            raise errors.EventUnsupported(
                f"The event '{other[:80]}' is not known here.", hint=_DIALOGUE_HINT
            )
        case _:
            raise errors.FieldMissing("The field 'type' is missing.", hint=_DIALOGUE_HINT)


def _created(event: Mapping[str, Any]) -> Create | Return:
    item = object_of("item", event.get("item"))
    name, after = _word(item, "id", "item.id"), _word(event, "previous_item_id")
    match item.get("type"):
        case "message":
            role = next((one for one in _TEXTS if one.value == item.get("role")), None)
            if role is None:
                raise errors.FieldInvalid(
                    "'item.role' has a value that is not possible.",
                    hint=f"Use one of: {', '.join(_TEXTS)}.",
                )
            return Create(role, _text(item.get("content"), _TEXTS[role]), name, after)
        case "function_call_output":
            return Return(_call(item), _output(item), name, after)
    raise errors.FieldInvalid(
        "'item.type' is neither 'message' nor 'function_call_output'.",
        hint="Calls come from the model alone.",
    )


def _call(item: Mapping[str, Any]) -> str:
    call = _word(item, "call_id", "item.call_id")
    if not call:
        raise errors.FieldMissing("The field 'item.call_id' is missing.")
    return call


def _output(item: Mapping[str, Any]) -> str:
    output = item.get("output")
    if output is None:
        raise errors.FieldMissing("The field 'item.output' is missing.")
    found = parse_word("item.output", output)
    if len(found) > LONGEST_OUTPUT:
        raise errors.FieldInvalid(f"'item.output' has more than {LONGEST_OUTPUT} characters.")
    return found


def _text(content: object, kind: str) -> str:
    if not isinstance(content, list) or not content:
        raise errors.FieldInvalid("'item.content' is no list with something in it.")
    texts = []
    for part in content:
        fields = object_of("item.content", part)
        if fields.get("type") != kind:
            raise errors.FieldInvalid(
                f"'item.content' has a part that is no '{kind}'.",
                hint="Sound comes by input_audio_buffer.append; images are not looked at.",
            )
        texts.append(parse_word("item.content.text", fields.get("text")))
    text = " ".join(texts).strip()
    if not text or len(text) > LONGEST_TEXT:
        raise errors.FieldInvalid(
            f"'item.content' has no text, or more than {LONGEST_TEXT} characters."
        )
    return text


def _truncated(event: Mapping[str, Any]) -> Truncate:
    end_ms = parse_whole("audio_end_ms", event.get("audio_end_ms"), 0, LONGEST_REPLY_MS)
    if end_ms is None:
        raise errors.FieldMissing("The field 'audio_end_ms' is missing.")
    parse_whole("content_index", event.get("content_index"), 0, 0)
    return Truncate(_item(event), end_ms)


def _item(event: Mapping[str, Any]) -> str:
    found = _word(event, "item_id")
    if not found:
        raise errors.FieldMissing("The field 'item_id' is missing.")
    return found


def _word(fields: Mapping[str, Any], key: str, name: str = "") -> str:
    found = parse_word(name or key, fields.get(key))
    if len(found) > LONGEST_ID:
        raise errors.FieldInvalid(f"'{name or key}' has more than {LONGEST_ID} characters.")
    return found


_DIALOGUE_HINT = f"A conversation knows: {', '.join(DIALOGUE_TYPES)}."

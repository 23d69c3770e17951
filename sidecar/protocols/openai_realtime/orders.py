"""What a client of a conversation says over its WebSocket: one event a message, JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sidecar import errors
from sidecar.conversation.llm.dialogue import Role
from sidecar.conversation.options import LONGEST_REPORT_S
from sidecar.interfaces.options import parse_whole, parse_word
from sidecar.protocols.openai_realtime.realtime_orders import (
    APPEND,
    CLEAR,
    COMMIT,
    UPDATE,
    Append,
    Clear,
    Commit,
    Numbered,
    Update,
    read_as,
    sound_of,
)
from sidecar.protocols.openai_realtime.updates import object_of

CREATE, DELETE = "conversation.item.create", "conversation.item.delete"
RETRIEVE, TRUNCATE = "conversation.item.retrieve", "conversation.item.truncate"
RESPOND, CANCEL = "response.create", "response.cancel"
HUSH = "output_audio_buffer.clear"
TYPES = (
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


Order: TypeAlias = (
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


def read(message: str | bytes) -> Numbered[Order]:
    """The order in a message.

    Raises:
        OrderInvalid: there is none.
    """
    return read_as(message, _order)


def _order(event: Mapping[str, Any]) -> Order:
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
                f"The event '{other[:80]}' is not known here.", hint=_HINT
            )
        case _:
            raise errors.FieldMissing("The field 'type' is missing.", hint=_HINT)


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


_HINT = f"A conversation knows: {', '.join(TYPES)}."

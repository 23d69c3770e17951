"""What a client says over its WebSocket: one event a message, JSON. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from sidecar import errors
from sidecar.api.http import from_clients

UPDATE, BETA_UPDATE = "session.update", "transcription_session.update"
APPEND = "input_audio_buffer.append"
COMMIT, CLEAR = "input_audio_buffer.commit", "input_audio_buffer.clear"
Asked = TypeVar("Asked")
TYPES = (UPDATE, BETA_UPDATE, APPEND, COMMIT, CLEAR)


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


Order: TypeAlias = Update | Append | Commit | Clear


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


def read(message: str | bytes) -> Numbered[Order]:
    """The order in a message.

    Raises:
        OrderInvalid: there is none.
    """
    return read_as(message, _order)


def read_as(
    message: str | bytes, order_of: Callable[[Mapping[str, Any]], Asked]
) -> Numbered[Asked]:
    """The order in a message, by what ``order_of`` makes of an event.

    Raises:
        OrderInvalid: there is none.
    """
    try:
        event = from_clients.read(message)
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


def _order(event: Mapping[str, Any]) -> Order:
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
                f"The event '{other[:80]}' is not known here.", hint=_HINT
            )
        case _:
            raise errors.FieldMissing("The field 'type' is missing.", hint=_HINT)


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


_HINT = f"A session that transcribes knows: {', '.join(TYPES)}."

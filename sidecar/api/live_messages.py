"""Messages of /v1/live: requests, events, schemas. Pure.

Pydantic reads them: strictly, and no name that is not known is taken for a wish fulfilled.

Nothing here is used while it speaks (`dialect` does that): it says what clients may count on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from sidecar import errors
from sidecar.audio import codecs
from sidecar.errors import Kind
from sidecar.interfaces import live_events
from sidecar.interfaces.live_engine import (
    LIVE_RATE,
    Encoding,
    Endpointing,
    LiveOptions,
    Number,
    Seconds,
    Turns,
)
from sidecar.interfaces.live_events import (
    ContextKnown,
    Heard,
    LiveEvent,
    SpeechStarted,
    SpeechStopped,
    TurnDropped,
    VoicesKnown,
)
from sidecar.interfaces.request_options import LONGEST_PROMPT
from sidecar.live.sessions.event_log import Numbered
from sidecar.live.sessions.session import RATES
from sidecar.transcripts.transcript_formats import segment_body, speaker_label, transcript_body

CODES: Mapping[Kind | str, int] = {
    Kind.UNAUTHORIZED: 4401,
    Kind.FORBIDDEN: 4403,
    Kind.NOT_FOUND: 4404,
    Kind.TIMEOUT: 4408,
    Kind.CONFLICT: 4409,
    Kind.LIMITED: 4429,
    errors.SessionHandedOver.code: 1012,
}
"""Close codes of this wire, as HTTP's with 4000 added; all others are those of every wire."""
TYPES: Mapping[type[LiveEvent], str] = {
    SpeechStarted: "speech_started",
    SpeechStopped: "speech_stopped",
    live_events.Partial: "partial",
    live_events.Final: "final",
    live_events.TurnEnded: "turn_ended",
    TurnDropped: "turn_dropped",
    live_events.SpeakersRevised: "speakers_revised",
    live_events.Noticed: "notice",
    live_events.Summary: "summary",
}
"""`Heard` is no message of its own: `received` has it."""


def event_message(numbered: Numbered) -> str:
    """One event, but for `Heard`."""
    event = numbered.event
    kind = TYPES[type(event)]
    return _text({"type": kind, "number": numbered.number, **_body(event)})


def received(samples: int, seconds: float, orders: int, heard_s: float) -> dict[str, Any]:
    """How much the service has, of what a client need not send again; and heard."""
    return {
        "received_samples": samples,
        "received_s": round(seconds, 3),
        "received_orders": orders,
        "heard_s": round(heard_s, 3),
    }


def message(kind: str, **body: Any) -> str:
    """A message that is no event."""
    return _text({"type": kind, **body})


def error_message(error: errors.SidecarError) -> str:
    """What was wrong, and what to do; the last message of a connection."""
    body: dict[str, Any] = {"code": error.code, "message": error.detail, "hint": error.hint}
    if error.retry_after is not None:
        body["retry_after"] = error.retry_after
    return message("error", **body)


def _body(event: LiveEvent) -> dict[str, Any]:
    match event:
        case live_events.Final():
            return {
                "turn": event.turn,
                "piece": event.piece,
                "segment": segment_body(event.segment, event.name),
                "diarized": event.segment.speaker is not None,
                "language": event.language,
                "wait_s": round(event.wait_s, 3),
                "work_s": round(event.work_s, 3),
            }
        case live_events.SpeakersRevised(speakers, names):
            body = {"speakers": {str(piece): speaker_label(who) for piece, who in speakers.items()}}
            called = {speaker_label(who): name for who, name in names.items()}
            return {**body, "names": called} if called else body
        case live_events.Noticed(notice, turn):
            body = dataclasses.asdict(notice)
            return body if turn is None else {**body, "turn": turn}
        case live_events.Summary(transcript, job):
            body = {"transcript": transcript_body(transcript)}
            return body if job is None else {**body, "job": job}
        case Heard() | VoicesKnown() | ContextKnown():
            raise AssertionError("told in `received`, or to no client")
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(event).items()
    }


def _text(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


OPUS = "opus"
"""The encoding that is no samples."""

_STRICT = ConfigDict(extra="forbid", strict=True)


_HINTS: dict[str, Any] = get_type_hints(Endpointing, include_extras=True)
_ENDS: dict[str, Any] = {name: (_HINTS[name] | None, None) for name in _HINTS}
Ends: type[BaseModel] = create_model(
    "Ends",
    __config__=_STRICT,
    __doc__="What counts as speech, and where an utterance ends: `Endpointing`, in part.",
    **_ENDS,
)


class Wishes(BaseModel):
    """Options of a session; what is left out is as it was, at first as the service has it."""

    model_config = _STRICT

    language: str | None = None
    turns: Turns | None = None
    endpointing: Ends | None = None  # type: ignore[valid-type]
    partials: bool | None = None
    diarize: bool | None = None
    words: bool | None = None
    translate: bool | None = None
    accurate: bool | None = None
    prompt: str | None = Field(None, max_length=LONGEST_PROMPT)
    delay_s: Seconds | None = None
    recognise: bool | None = None
    keep: bool | None = None

    def upon(self, options: LiveOptions) -> LiveOptions:
        """The options with these wishes.

        Raises:
            errors.FieldInvalid: no such utterances can be.
        """
        given: dict[str, Any] = {
            name: getattr(self, name)
            for name in Wishes.model_fields
            if name != "endpointing" and getattr(self, name) is not None
        }
        if self.endpointing is not None:
            ends = self.endpointing.model_dump(exclude_none=True)
            try:
                given["endpointing"] = dataclasses.replace(options.endpointing, **ends)
            except ValueError as error:
                raise errors.FieldInvalid(f"'endpointing' is not possible: {error}.") from None
        return dataclasses.replace(options, **given)


class Begin(Wishes):
    """The first message: a session, or with ``after`` one that goes on.

    ``session``: how the client calls it; ``after``: the last event that came, 0 if none did.
    ``encoding``: of samples, or ``opus``: a packet in each message. ``moves``: the client comes
    again when another service goes on with the session. ``lease``: this is another service, which
    has the session itself (`upstream.remote_live_messages`); then nothing else counts.
    """

    type: Literal["begin"]
    session: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    after: Number | None = None
    moves: bool = False
    lease: dict[str, Any] | None = None
    encoding: Encoding | Literal["opus"] = Encoding.PCM16
    rate: int | None = Field(None, ge=RATES.start, lt=RATES.stop)

    @property
    def counted_rate(self) -> int:
        """Samples a second of what the two sides count.

        Raises:
            errors.FieldInvalid: that is another one.
        """
        if self.encoding != OPUS:
            return self.rate or LIVE_RATE
        if self.rate not in (None, codecs.OPUS_RATE):
            raise errors.FieldInvalid(
                f"'rate': Opus is counted by {codecs.OPUS_RATE} samples a second."
            )
        return codecs.OPUS_RATE


class Change(Wishes):
    """Hear on with other options."""

    type: Literal["change"]


class Plain(BaseModel):
    """An order that needs no more words."""

    model_config = _STRICT

    type: Literal["commit", "cancel", "finish"]


Order = Begin | Change | Plain


@cache
def _orders() -> TypeAdapter[Order]:
    return TypeAdapter(Annotated[Order, Field(discriminator="type")])


def order_of(text: str) -> Order:
    """The order in a text frame.

    Raises:
        errors.MessageInvalid: it is none.
        errors.FieldInvalid: a field holds what it cannot, or there is no such field.
    """
    try:
        return _orders().validate_json(text)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
        if len(first["loc"]) < 2:  # of the object itself, or which order it is
            raise errors.MessageInvalid(f"The message is no order: {first['msg']}.") from None
        name = ".".join(map(str, first["loc"][1:]))
        raise errors.FieldInvalid(f"'{name}': {first['msg']}.") from None
    except RecursionError:
        raise errors.MessageInvalid() from None


_EXACT = ConfigDict(extra="forbid")


class Said(BaseModel):
    """What all of them are."""

    model_config = _EXACT


class Word(Said):
    """One word, in seconds on the session's clock."""

    start_time: float
    end_time: float
    text: str


class Segment(Said):
    """One stretch of speech by one speaker."""

    speaker: str = Field(examples=["Speaker_0"])
    start_time: float
    end_time: float
    text: str
    name: str | None = Field(None, description="Who of the people known that is.")
    words: list[Word] | None = None
    words_by: str | None = Field(None, description="attention, server or spread.")
    flags: list[str] | None = None


class Transcript(Said):
    """All that was said, as `POST /transcribe` answers it."""

    segments: list[Segment]
    metadata: dict[str, Any]


class Counts(Said):
    """How much is here, of what a client need not send again."""

    received_samples: int
    received_s: float
    received_orders: int
    heard_s: float


class Began(Counts):
    """The answer to `begin`."""

    type: Literal["began"]
    session: str
    engine: str
    grace_s: float


class Received(Counts):
    """About twice a second."""

    type: Literal["received"]


class Event(Said):
    """Something that was said; numbers only grow."""

    number: int


class Spoken(Event):
    """Somebody speaks, or pauses long enough; or a turn was cancelled."""

    type: Literal["speech_started", "speech_stopped", "turn_dropped"]
    turn: int
    at: float


class Partial(Event):
    """What a piece that goes on seems to say; `stable` is not taken back before its final."""

    type: Literal["partial"]
    turn: int
    piece: int
    start: float
    end: float
    text: str
    stable: str
    tail: str


class Final(Event):
    """A piece that stands; its speaker may still be revised, and is known where `diarized`."""

    type: Literal["final"]
    turn: int
    piece: int
    segment: Segment
    diarized: bool
    language: str
    wait_s: float
    work_s: float


class TurnEnded(Event):
    """All pieces of a turn are told."""

    type: Literal["turn_ended"]
    turn: int
    start: float
    end: float
    text: str
    committed: bool


class SpeakersRevised(Event):
    """Piece → speaker, of finals that were told before; speaker → who that is, where it changed."""

    type: Literal["speakers_revised"]
    speakers: dict[str, str]
    names: dict[str, str | None] | None = None


class Noticed(Event):
    """Something to know, of a turn where it has to do with one."""

    type: Literal["notice"]
    code: str
    message: str
    turn: int | None = None


class Summary(Event):
    """The last event; `job`: what the session is kept as, if it is."""

    type: Literal["summary"]
    transcript: Transcript
    job: str | None = None


class Refused(Said):
    """The last message of a connection that something was wrong with (docs/errors.md)."""

    type: Literal["error"]
    code: str
    message: str
    hint: str
    retry_after: int | None = None


MESSAGES: tuple[type[Said], ...] = (
    Began,
    Received,
    Spoken,
    Partial,
    Final,
    TurnEnded,
    SpeakersRevised,
    Noticed,
    Summary,
    Refused,
)

"""Messages of /v1/live: requests and events. Pure.

Pydantic validates requests strictly: unknown fields are refused. The schemas of events are in
docs/live_event_schemas.py.
"""

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from sidecar.audio import codecs
from sidecar.errors import FieldInvalid, MessageInvalid, SidecarError
from sidecar.interfaces import live_events, live_options
from sidecar.interfaces.engine_interface import ChannelMode
from sidecar.interfaces.language_tags import printable_text
from sidecar.interfaces.request_fields import MAX_PROMPT_CHARACTERS
from sidecar.interfaces.request_options import (
    did_you_mean,
    parse_channel_names,
    split_hotwords,
)
from sidecar.live.sessions.event_log import NumberedEvent
from sidecar.live.sessions.session_limits import SAMPLE_RATES
from sidecar.transcripts.channel_merge import channel_names
from sidecar.transcripts.transcript_formats import segment_body, speaker_label, transcript_body

EVENT_TYPES: Mapping[type[live_events.LiveEvent], str] = {
    live_events.SpeechStarted: "speech_started",
    live_events.SpeechStopped: "speech_stopped",
    live_events.Partial: "partial",
    live_events.Final: "final",
    live_events.TurnEnded: "turn_ended",
    live_events.TurnDropped: "turn_dropped",
    live_events.SpeakersRevised: "speakers_revised",
    live_events.NoticeRaised: "notice",
    live_events.Summary: "summary",
}
"""Message type of each event. `InputProcessed` has none: `received` reports it. Those that only
engines need are sent to no client."""


def event_message(numbered: NumberedEvent) -> str:
    """Return the message of an event that has a type in `EVENT_TYPES`."""
    event = numbered.event
    body = _body(event)
    if numbered.channel is not None:
        body["channel"] = numbered.channel
    return message(EVENT_TYPES[type(event)], number=numbered.number, **body)


def message(kind: str, **body: Any) -> str:
    """Return a message of a type."""
    text = {"type": kind, **body}
    return json.dumps(text, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def error_message(error: SidecarError) -> str:
    """Return the message of an error, with its hint; the last of a connection."""
    body: dict[str, Any] = {
        "code": error.code,
        "message": error.detail,
        "hint": error.hint_on("docs/live-wire.md"),
    }
    if error.retry_after is not None:
        body["retry_after"] = error.retry_after
    return message("error", **body)


def _body(event: live_events.LiveEvent) -> dict[str, Any]:
    match event:
        case live_events.Final():
            return {
                "turn": event.turn,
                "piece": event.segment_number,
                "segment": segment_body(event.segment, event.name),
                "diarized": event.segment.speaker is not None,
                "language": event.language,
                "wait_s": round(event.wait_s, 3),
                "work_s": round(event.work_s, 3),
            }
        case live_events.SpeakersRevised(speakers, names):
            body = {
                "speakers": {str(number): speaker_label(who) for number, who in speakers.items()}
            }
            called = {speaker_label(who): name for who, name in names.items()}
            return {**body, "names": called} if called else body
        case live_events.NoticeRaised(notice, turn):
            body = dataclasses.asdict(notice)
            return body if turn is None else {**body, "turn": turn}
        case live_events.Summary(transcript, job):
            body = {"transcript": transcript_body(transcript)}
            return body if job is None else {**body, "job": job}
    return {
        "piece" if name == "segment_number" else name: (
            round(value, 3) if isinstance(value, float) else value
        )
        for name, value in dataclasses.asdict(event).items()
    }


OPUS = "opus"
"""Encoding in which each message is an Opus packet instead of samples."""

_STRICT = ConfigDict(extra="forbid", strict=True)


_ENDPOINTING_MEANING: Mapping[str, str] = {
    "threshold": "probability from which on audio is speech; 0 with `neg_threshold` 0: all of it",
    "neg_threshold": "below it speech ends",
    "sure_threshold": "from it on audio is certainly speech",
    "min_speech_s": "speech that begins an utterance",
    "min_sure_speech_s": "the same, of certain speech",
    "pre_roll_s": "audio included before",
    "post_roll_s": "and after",
    "pause_s": "silence after which the end is expected",
    "silence_s": "silence that ends the utterance",
    "longest_s": "an utterance is cut after",
}
_HINTS: dict[str, Any] = get_type_hints(live_options.EndpointingOptions, include_extras=True)
_ENDS: dict[str, Any] = {
    name: (
        hint | None,
        Field(
            None,
            description=_ENDPOINTING_MEANING[name],
            json_schema_extra={"default": getattr(live_options.EndpointingOptions(), name)},
        ),
    )
    for name, hint in _HINTS.items()
}
LiveEndpointing: type[BaseModel] = create_model(
    "Ends", __config__=_STRICT, __doc__="Endpointing parameters: `Endpointing`, in part.", **_ENDS
)


class LiveOptionsRequest(BaseModel):
    """Options of a session; an omitted one keeps its value, at first the default of the service."""

    model_config = _STRICT

    language: str | None = None
    turns: live_options.TurnControl | None = None
    endpointing: LiveEndpointing | None = None  # type: ignore[valid-type]
    partials: bool | None = None
    diarize: bool | None = None
    words: bool | None = None
    translate: bool | None = None
    accurate: bool | None = None
    prompt: str | None = Field(None, max_length=MAX_PROMPT_CHARACTERS)
    hotwords: str | None = Field(None, max_length=MAX_PROMPT_CHARACTERS)
    delay_s: live_options.Seconds | None = None
    recognise: bool | None = None
    keep: bool | None = None

    def upon(self, options: live_options.LiveOptions) -> live_options.LiveOptions:
        """Return ``options`` with the changes of this request.

        Raises:
            errors.FieldInvalid: the endpointing parameters are inconsistent.
        """
        given: dict[str, Any] = {
            name: getattr(self, name)
            for name in LiveOptionsRequest.model_fields
            if name != "endpointing" and getattr(self, name) is not None
        }
        if self.hotwords is not None:
            given["hotwords"] = split_hotwords(self.hotwords)
        if self.endpointing is not None:
            ends = self.endpointing.model_dump(exclude_none=True)
            try:
                given["endpointing"] = dataclasses.replace(options.endpointing, **ends)
            except ValueError as error:
                raise FieldInvalid(f"'endpointing' is invalid: {error}.") from None
        return dataclasses.replace(options, **given)


class LiveBeginRequest(LiveOptionsRequest):
    """First message of a connection: starts a session, or with ``after`` resumes one.

    ``session``: the client's id of it; ``after``: the last event that the client received, 0 if
    none. ``encoding``: of samples, or ``opus``: a packet in each message. ``channels``: 2 for
    interleaved samples, left first; ``channel_names``: theirs, between commas. ``name``: what the
    job of a kept session is called.
    """

    type: Literal["begin"]
    session: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    after: live_options.SequenceNumber | None = None
    encoding: Literal["pcm16", "float32", "opus"] = "pcm16"
    rate: int | None = Field(None, ge=SAMPLE_RATES.start, lt=SAMPLE_RATES.stop)
    channels: Literal[1, 2] = 1
    channel_names: str | None = Field(None, max_length=MAX_PROMPT_CHARACTERS)
    name: str | None = Field(None, max_length=MAX_PROMPT_CHARACTERS)

    @property
    def counted_rate(self) -> int:
        """Return the rate in Hz at which both sides count samples.

        Raises:
            errors.FieldInvalid: 'rate' does not match the encoding.
        """
        if self.encoding != OPUS:
            return self.rate or live_options.LIVE_RATE
        if self.rate not in (None, codecs.OPUS_RATE):
            raise FieldInvalid(f"'rate' of Opus is {codecs.OPUS_RATE}.")
        return codecs.OPUS_RATE

    @property
    def names_of_channels(self) -> tuple[str, ...]:
        """Return the names of both channels; none of a single one.

        Raises:
            errors.FieldInvalid: there are more names than channels, or names of a single one.
        """
        names = parse_channel_names(self.channel_names, ChannelMode.SEPARATE)
        if self.channels == 1 and not names:
            return ()
        if self.channels == 1 or len(names) > self.channels:
            raise FieldInvalid(
                f"'channel_names' has {len(names)} names, and 'channels' is {self.channels}.",
                hint="Send 'channels' with the value 2, and at most a name for each.",
            )
        return channel_names(self.channels, names)


class LiveChangeRequest(LiveOptionsRequest):
    """Change of the options from now on."""

    type: Literal["change"]


class LivePlainRequest(BaseModel):
    """Request without fields."""

    model_config = _STRICT

    type: Literal["commit", "cancel", "finish"]


LiveRequest = LiveBeginRequest | LiveChangeRequest | LivePlainRequest


@cache
def _request_adapter() -> TypeAdapter[LiveRequest]:
    return TypeAdapter(Annotated[LiveRequest, Field(discriminator="type")])


def parse_request(text: str) -> LiveRequest:
    """Return the request in a text message.

    Raises:
        errors.MessageInvalid: it is not a request.
        errors.FieldInvalid: a field is invalid or unknown.
    """
    try:
        return _request_adapter().validate_json(text)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_input=False)[0]
        if first["type"] == "union_tag_not_found":
            raise MessageInvalid("The message has no 'type'.") from None
        if first["type"] == "union_tag_invalid":
            unknown, known = first["ctx"]["tag"][:40], first["ctx"]["expected_tags"]
            names = known.replace("'", "")
            raise MessageInvalid(f"Unknown type '{unknown}'; there are {names}.") from None
        if len(first["loc"]) < 2:  # about the object itself or its 'type'
            raise MessageInvalid(f"The message is not a valid request: {first['msg']}.") from None
        name = ".".join(map(str, first["loc"][1:]))
        if first["type"] == "extra_forbidden":
            known = {*LiveBeginRequest.model_fields, *LiveEndpointing.model_fields}
            if name in known:  # of another type of request
                kind = first["loc"][0]
                raise FieldInvalid(f"A request '{kind}' has no field '{name}'.") from None
            meant = did_you_mean(str(first["loc"][-1]), known)
            raise FieldInvalid(f"There is no field '{printable_text(name)}'.{meant}") from None
        raise FieldInvalid(f"'{name}': {first['msg']}.") from None
    except RecursionError:
        raise MessageInvalid() from None

"""Messages of /stream and /v1/talk. Pure.

A turn is 'processing', its sound in binary frames, 'metrics', one 'transcript', and 'ready'. The
page writes both sides of a transcript, so both are always there, and it has no message that would
make it drop sound: to it nothing is sent far ahead (`conversation.output_queue`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sidecar import errors
from sidecar.conversation.conversation_events import LONGEST_REPORT_S
from sidecar.conversation.output_queue import (
    Began,
    Clear,
    Ending,
    Entered,
    Failed,
    Frame,
    Hold,
    Latency,
    NothingSaid,
    Noticed,
    Out,
    PersonSaid,
    PersonSaying,
    PersonStarted,
    PersonStopped,
    Release,
    ReplyEnded,
    ReplySpoken,
    ReplyStarted,
    ReplyTruncated,
    ReplyWritten,
)
from sidecar.interfaces.live_engine import Interval

IN_RATE, OUT_RATE = 16_000, 24_000
Message = str | bytes


def message(type: str, **fields: Any) -> str:
    """A text message."""
    return json.dumps({"type": type, **fields}, ensure_ascii=False)


def status(state: str, **fields: Any) -> str:
    """How it is."""
    return message("status", state=state, **fields)


def greeting(also: Mapping[str, Any]) -> str:
    """The first message: at which rates is spoken, and what else is to be known."""
    return status("ready", input_sample_rate=IN_RATE, output_sample_rate=OUT_RATE, **also)


def s2s_error_message(error: errors.SidecarError) -> str:
    """What went wrong: in words, for the page shows them as they are, and by its code."""
    text = f"{error.detail} ({error.code})"
    return message("error", message=text, code=error.code, **again(error))


def again(error: errors.SidecarError) -> dict[str, int]:
    """When to try again, where that helps."""
    return {} if error.retry_after is None else {"retry_after": error.retry_after}


def metrics_of(latency: Latency) -> dict[str, float]:
    """Where the time went before a reply was heard, in milliseconds, by the names of `/status`."""
    return {
        "vad_ms": _ms(latency.endpoint),
        "asr_ms": _ms(latency.recognised),
        "llm_ms": _ms(latency.thought),
        "tts_first_chunk_ms": _ms(latency.voiced),
        "total_ms": _ms(latency.total),
    }


class Dialect:
    """One connection's."""

    def __init__(self) -> None:
        self._person = ""
        self._pieces = 0
        self._latency = Latency(0)
        self._processing = False

    def of(self, out: Out) -> Iterator[Message]:
        """The messages for what is told."""
        match out:
            case Frame():
                yield out.pcm
            case Clear():
                yield message("interrupted")
            case PersonStopped():
                yield from self._begun()
            case PersonSaid(backchannel=None):
                self._person = out.text
                yield from self._begun()
            case NothingSaid():
                yield from self._ready()
            case ReplyStarted():
                self._pieces, self._latency = 0, Latency(out.turn)
                yield from self._begun()
            case ReplyWritten():
                self._pieces += 1
            case Latency():
                self._latency = out
            case ReplyEnded():
                yield from self._ended(out)
            case Failed():
                yield s2s_error_message(out.error)
            case Noticed(notice):
                yield message("notice", message=notice.message, code=notice.code)
            case Began():
                self._person = ""
                yield status("reset")

    def _begun(self) -> Iterator[str]:
        if not self._processing:
            self._processing = True
            yield status("processing")

    def _ready(self) -> Iterator[str]:
        if self._processing:
            self._processing = False
            yield status("ready")

    def _ended(self, reply: ReplyEnded) -> Iterator[str]:
        found = metrics_of(self._latency)
        yield message(
            "metrics",
            vad_latency_ms=found["vad_ms"],
            asr_latency_ms=found["asr_ms"],
            llm_latency_ms=found["llm_ms"],
            tts_first_chunk_ms=found["tts_first_chunk_ms"],
            total_latency_ms=found["total_ms"],
            tokens_generated=self._pieces,
            audio_duration_ms=_ms(reply.made_s),
        )
        yield message(
            "transcript",
            user=self._person,
            assistant=reply.text,
            llm_ms=found["llm_ms"],
            tts_first_ms=found["tts_first_chunk_ms"],
            interrupted=reply.ending is Ending.INTERRUPTED,
        )
        self._person = ""
        yield from self._ready()


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)


LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000
LONGEST_NAME = 200
LONGEST_TEXT = 65_536
"""Characters of a turn that is typed."""
_STRICT = ConfigDict(strict=True)
Turn: TypeAlias = Annotated[int, Interval(1, 2**53 - 1)]
Heard: TypeAlias = Annotated[float, Interval(0, LONGEST_REPORT_S)]
"""Seconds of a reply that were played."""


class Change(BaseModel):
    """Who speaks and who thinks from the next reply on; what is left out stays."""

    model_config = _STRICT

    type: Literal["change"]
    voice: str | None = Field(None, max_length=LONGEST_NAME)
    model: str | None = Field(None, max_length=LONGEST_NAME)


class Begin(BaseModel):
    """The first: samples a second of sound both ways, and what its player can be told."""

    model_config = _STRICT

    type: Literal["begin"]
    rate: int = Field(24_000, ge=LOWEST_RATE, le=HIGHEST_RATE)
    clears: bool = True
    holds: bool = True
    voice: str | None = Field(None, max_length=LONGEST_NAME)
    model: str | None = Field(None, max_length=LONGEST_NAME)


class Played(BaseModel):
    """So much of a turn's sound was heard by now; ``cleared``: and no more will be."""

    model_config = _STRICT

    type: Literal["played"]
    turn: Turn
    seconds: Heard
    cleared: bool = False


class Interrupt(BaseModel):
    """Be quiet. Who has dropped the sound already says how much of which turn was heard."""

    model_config = _STRICT

    type: Literal["interrupt"]
    turn: Turn | None = None
    seconds: Heard = 0.0


class Text(BaseModel):
    """A turn that is typed."""

    model_config = _STRICT

    type: Literal["text"]
    text: str = Field(max_length=LONGEST_TEXT)


class Reset(BaseModel):
    """From the beginning."""

    model_config = _STRICT

    type: Literal["reset"]


class End(BaseModel):
    """No more: the conversation as a transcript, and as a job where it is to be one."""

    model_config = _STRICT

    type: Literal["end"]
    keep: bool = False


Order = Begin | Change | Played | Interrupt | Text | Reset | End
_OLD = ("text", "reset")
"""Of the first page, and passed over where they are wrong, as it expects."""


@cache
def _orders() -> TypeAdapter[Order]:
    return TypeAdapter(Annotated[Order, Field(discriminator="type")])


def order_of(values: Any) -> Order | None:
    """The order in a message; None where it is none that is known.

    Raises:
        errors.FieldInvalid: a field of it holds what it cannot.
    """
    try:
        return _orders().validate_python(values)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
        too_long = first["type"] == "string_too_long"
        if len(first["loc"]) < 2 or (first["loc"][0] in _OLD and not too_long):
            return None
        name = ".".join(map(str, first["loc"][1:]))
        raise errors.FieldInvalid(f"'{name}': {first['msg']}.") from None


class Metrics(BaseModel):
    """Where the time went before the last reply was heard, in milliseconds."""

    vad_ms: float = Field(description="From the last sound to the decision that it was the last.")
    asr_ms: float = Field(description="How long words took once they were wanted.")
    llm_ms: float = Field(description="To the first words of the reply.")
    tts_first_chunk_ms: float = Field(description="To its first sound.")
    total_ms: float = Field(description="From the person's last sound to the reply's first.")


class State(BaseModel):
    """How conversations are going."""

    state: str = Field(examples=["idle"])
    initialized: bool
    total_requests: int = Field(description="Replies since the service started.")
    last_metrics: Metrics


class Configuration(BaseModel):
    """Who hears, thinks and speaks."""

    asr_model: str = Field(examples=["moonshine"])
    llm_model: str = Field(examples=["repeat"])
    tts_model: str = Field(examples=["espeak"], description="'none' where answers are read.")
    input_sample_rate: int
    output_sample_rate: int


class Part(BaseModel):
    """Who does something in conversations."""

    name: str
    title: str


class Thinks(BaseModel):
    """Who answers."""

    name: str = Field(examples=["repeat"])
    models: list[str] = Field(description="Who may, the usual one first; 'repeat' needs nothing.")


class Speaks(Part):
    """Who says the answers; what is heard is synthetic speech."""

    voices: list[str]
    voice: str = Field(description="The usual one.")


class Parts(BaseModel):
    """Who takes part in conversations, and who else may."""

    hears: Part | None
    thinks: Thinks
    speaks: Speaks | None = Field(description="None where answers are read.")
    remedy: str = Field(description="How a voice gets here, where there is none.")


def native_error_message(error: errors.SidecarError, turn: int = 0) -> str:
    """What went wrong, and what to do; ``turn`` is 0 where it was no reply's."""
    body = {"message": error.detail, "hint": error.hint, "code": error.code, "turn": turn}
    return message("error", **body, **again(error))


class Words:
    """One connection's; sound belongs to the reply that was started last."""

    def of(self, out: Out) -> Iterator[Message]:
        """The messages for what is told."""
        match out:
            case Frame():
                yield out.pcm
            case Clear(turn):
                yield message("clear", turn=turn)
            case Hold(turn):
                yield message("hold", turn=turn)
            case Release(turn):
                yield message("release", turn=turn)
            case Entered(phase):
                yield message("phase", phase=phase.value)
            case Began():
                yield message("reset")
            case Failed(turn, error):
                yield native_error_message(error, turn)
            case Noticed(notice):
                yield message("notice", message=notice.message, code=notice.code)
            case PersonStarted() | PersonSaying() | PersonStopped() | PersonSaid() | NothingSaid():
                yield _of_person(out)
            case _:
                yield from _of_reply(out)


def _of_person(
    told: PersonStarted | PersonSaying | PersonStopped | PersonSaid | NothingSaid,
) -> str:
    match told:
        case PersonStarted():
            return message("person_started")
        case PersonSaying(text):
            return message("person_saying", text=text)
        case PersonStopped():
            return message("person_stopped")
        case PersonSaid(text, typed):
            backchannel = told.backchannel is not None
            return message("person_said", text=text, typed=typed, backchannel=backchannel)
        case NothingSaid(echo):
            return message("nothing_said", echo=echo)


def _of_reply(told: Out) -> Iterator[str]:
    match told:
        case ReplyStarted(turn):
            yield message("reply_started", turn=turn)
        case ReplyWritten(turn, text):
            yield message("reply_written", turn=turn, text=text)
        case ReplySpoken(turn, piece, text):
            yield message("reply_spoken", turn=turn, piece=piece, text=text)
        case Latency():
            yield message("latency", turn=told.turn, **_stages(told))
        case ReplyEnded(turn, ending, text, heard_s, made_s):
            seconds = {"heard_s": round(heard_s, 3), "made_s": round(made_s, 3)}
            yield message("reply_ended", turn=turn, ending=ending.value, text=text, **seconds)
        case ReplyTruncated(turn, seconds, text):
            yield message("reply_truncated", turn=turn, heard_s=round(seconds, 3), text=text)


def _stages(latency: Latency) -> dict[str, float]:
    """In seconds, by the names of `Latency`."""
    return {
        f"{name}_s": round(getattr(latency, name), 4)
        for name in ("endpoint", "recognised", "thought", "voiced", "total")
    }

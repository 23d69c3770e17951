"""What the service says on `/v1/live`, message by message, as docs/live.asyncapi.json has it.

Nothing here is used while it speaks (`dialect` does that): it says what clients may count on.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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

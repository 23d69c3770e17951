"""Schemas of the messages that /v1/live sends: what clients may count on.

The service renders them by hand (`sidecar.api.live_messages`), because a message goes out many
times a second; a test validates all that it sends with these.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_EXACT = ConfigDict(extra="forbid")


class LiveMessage(BaseModel):
    """Fields of every message."""

    model_config = _EXACT


class LiveWordMessage(LiveMessage):
    """Word, with times in seconds on the session's clock."""

    start_time: float
    end_time: float
    text: str
    confidence: float | None = Field(None, description="Up to 1; omitted if unknown.")


class LiveSegmentMessage(LiveMessage):
    """Segment: speech of one speaker."""

    speaker: str = Field(examples=["Speaker_0"])
    start_time: float
    end_time: float
    text: str
    name: str | None = Field(None, description="Identified enrolled speaker.")
    words: list[LiveWordMessage] | None = None
    words_by: str | None = Field(None, description="attention, server, aligned or spread.")
    flags: list[str] | None = None
    confidence: float | None = Field(None, description="Up to 1; omitted if unknown.")
    no_speech_probability: float | None = Field(None, description="From Whisper.")
    language: str | None = None


class LiveTranscriptMessage(LiveMessage):
    """Transcript of the session, as `POST /transcribe` returns it."""

    segments: list[LiveSegmentMessage]
    metadata: dict[str, Any]


class LiveCountsMessage(LiveMessage):
    """How much is here, of what a client need not send again."""

    received_samples: int
    received_s: float
    received_orders: int
    heard_s: float
    recognized_s: float


class LiveBeganMessage(LiveCountsMessage):
    """Response to `begin`."""

    type: Literal["began"]
    session: str
    engine: str
    grace_s: float


class LiveReceivedMessage(LiveCountsMessage):
    """Acknowledgement of received audio, about twice a second."""

    type: Literal["received"]


class LiveEventMessage(LiveMessage):
    """Something that was said; numbers only grow."""

    number: int


class LiveChannelMessage(LiveEventMessage):
    """Something in one of two channels; `channel` is omitted in a session with one."""

    channel: int | None = Field(None, description="From 0.")


class LiveSpeechMessage(LiveChannelMessage):
    """Start or end of speech, or a cancelled turn."""

    type: Literal["speech_started", "speech_stopped", "turn_dropped"]
    turn: int
    at: float


class LivePartialMessage(LiveChannelMessage):
    """Partial text of an open segment; `stable` does not change before its final."""

    type: Literal["partial"]
    turn: int
    piece: int
    start: float
    end: float
    text: str
    stable: str
    tail: str


class LiveFinalMessage(LiveChannelMessage):
    """Final segment; its speaker may still be revised, and is known if `diarized`."""

    type: Literal["final"]
    turn: int
    piece: int
    segment: LiveSegmentMessage
    diarized: bool
    language: str
    wait_s: float
    work_s: float


class LiveTurnEndedMessage(LiveChannelMessage):
    """End of a turn: all its segments were sent."""

    type: Literal["turn_ended"]
    turn: int
    start: float
    end: float
    text: str
    committed: bool


class LiveSpeakersRevisedMessage(LiveEventMessage):
    """Revised labels: segment → speaker, of earlier finals; speaker → identified name, if it
    changed."""

    type: Literal["speakers_revised"]
    speakers: dict[str, str]
    names: dict[str, str | None] | None = None


class LiveNoticeMessage(LiveChannelMessage):
    """Notice, about a turn if it concerns one."""

    type: Literal["notice"]
    code: str
    message: str
    turn: int | None = None


class LiveSummaryMessage(LiveEventMessage):
    """Last event; `job`: id of the job that keeps the session, if any."""

    type: Literal["summary"]
    transcript: LiveTranscriptMessage
    job: str | None = None


class LiveErrorMessage(LiveMessage):
    """Last message of a failed connection (docs/errors.md)."""

    type: Literal["error"]
    code: str
    message: str
    hint: str
    retry_after: int | None = None


SERVER_MESSAGES: tuple[type[LiveMessage], ...] = (
    LiveBeganMessage,
    LiveReceivedMessage,
    LiveSpeechMessage,
    LivePartialMessage,
    LiveFinalMessage,
    LiveTurnEndedMessage,
    LiveSpeakersRevisedMessage,
    LiveNoticeMessage,
    LiveSummaryMessage,
    LiveErrorMessage,
)

"""Messages of /stream and /v1/talk. Pure.

A turn consists of 'processing', its audio in binary frames, 'metrics', one 'transcript', and
'ready'. The page writes both sides of a transcript, so both are always sent. No message makes the
page drop audio, so audio is not sent far ahead (`conversation.audio_pacing`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sidecar import errors
from sidecar.conversation import assistant_turn, audio_pacing
from sidecar.conversation import conversation_events as output
from sidecar.conversation.conversation_events import MAX_PLAYBACK_REPORT_S
from sidecar.interfaces.live_options import NumberRange

IN_RATE, OUT_RATE = 16_000, 24_000
Message = str | bytes


def json_message(type: str, **fields: Any) -> str:
    """Return a text message."""
    return json.dumps({"type": type, **fields}, ensure_ascii=False)


def status_message(state: str, **fields: Any) -> str:
    """Return the status message."""
    return json_message("status", state=state, **fields)


def s2s_error_message(error: errors.SidecarError) -> str:
    """Return the message of an error: its text, which the page shows as it is, and its code."""
    text = f"{error.detail} ({error.code})"
    return json_message("error", message=text, code=error.code, **retry_fields(error))


def retry_fields(error: errors.SidecarError) -> dict[str, int]:
    """Return the time until a retry, if a retry can succeed."""
    return {} if error.retry_after is None else {"retry_after": error.retry_after}


class S2SDialect:
    """Messages of the demo's protocol for one connection."""

    def __init__(self) -> None:
        self._person = ""
        self._pieces = 0
        self._latency = assistant_turn.ReplyLatency(0)
        self._processing = False

    def of(self, out: output.ConversationOutput) -> Iterator[Message]:
        """Yield the messages for an output of the conversation."""
        match out:
            case audio_pacing.ReplyAudioFrame():
                yield out.pcm
            case output.DropReplyAudio():
                yield json_message("interrupted")
            case output.UserTurnStopped():
                yield from self._begun()
            case output.UserTurnFinal(backchannel=None):
                self._person = out.text
                yield from self._begun()
            case output.UserTurnDropped():
                yield from self._ready()
            case output.ReplyStarted():
                self._pieces, self._latency = 0, assistant_turn.ReplyLatency(out.turn)
                yield from self._begun()
            case output.ReplyTextDelta():
                self._pieces += 1
            case assistant_turn.ReplyLatency():
                self._latency = out
            case output.ReplyEnded():
                yield from self._ended(out)
            case output.ConversationError():
                yield s2s_error_message(out.error)
            case output.ConversationNotice(notice):
                yield json_message("notice", message=notice.message, code=notice.code)
            case output.ConversationStarted():
                self._person = ""
                yield status_message("reset")

    def _begun(self) -> Iterator[str]:
        if not self._processing:
            self._processing = True
            yield status_message("processing")

    def _ready(self) -> Iterator[str]:
        if self._processing:
            self._processing = False
            yield status_message("ready")

    def _ended(self, reply: output.ReplyEnded) -> Iterator[str]:
        found = S2SMetrics.of(self._latency)
        yield json_message(
            "metrics",
            vad_latency_ms=found.vad_ms,
            asr_latency_ms=found.asr_ms,
            llm_latency_ms=found.llm_ms,
            tts_first_chunk_ms=found.tts_first_chunk_ms,
            total_latency_ms=found.total_ms,
            tokens_generated=self._pieces,
            audio_duration_ms=_ms(reply.made_s),
        )
        yield json_message(
            "transcript",
            user=self._person,
            assistant=reply.text,
            llm_ms=found.llm_ms,
            tts_first_ms=found.tts_first_chunk_ms,
            interrupted=reply.ending is output.ReplyEnding.INTERRUPTED,
        )
        self._person = ""
        yield from self._ready()


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)


LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000
LONGEST_NAME = 200
LONGEST_TEXT = 65_536
"""Maximum characters of a typed turn."""
TurnNumber: TypeAlias = Annotated[int, NumberRange(1, 2**53 - 1)]
PlayedSeconds: TypeAlias = Annotated[float, NumberRange(0, MAX_PLAYBACK_REPORT_S)]
"""Seconds of a reply that were played."""


class _S2SCommand(BaseModel):
    model_config = ConfigDict(strict=True)


class S2SChange(_S2SCommand):
    """Change of voice and model from the next reply on; fields left out stay."""

    type: Literal["change"]
    voice: str | None = Field(None, max_length=LONGEST_NAME)
    model: str | None = Field(None, max_length=LONGEST_NAME)


class S2SBegin(_S2SCommand):
    """First message: the sample rate both ways, and the abilities of its player."""

    type: Literal["begin"]
    rate: int = Field(24_000, ge=LOWEST_RATE, le=HIGHEST_RATE)
    clears: bool = True
    holds: bool = True
    voice: str | None = Field(None, max_length=LONGEST_NAME)
    model: str | None = Field(None, max_length=LONGEST_NAME)


class S2SPlayed(_S2SCommand):
    """Report of the played seconds of a turn; ``cleared``: the rest will not be played."""

    type: Literal["played"]
    turn: TurnNumber
    seconds: PlayedSeconds
    cleared: bool = False


class S2SInterrupt(_S2SCommand):
    """Interruption of the reply.

    A client that has already dropped its audio also reports the turn and the seconds that it
    played.
    """

    type: Literal["interrupt"]
    turn: TurnNumber | None = None
    seconds: PlayedSeconds = 0.0


class S2SText(_S2SCommand):
    """Turn that the user typed."""

    type: Literal["text"]
    text: str = Field(max_length=LONGEST_TEXT)


class S2SReset(_S2SCommand):
    """Restart of the conversation."""

    type: Literal["reset"]


class S2SEnd(_S2SCommand):
    """End of the conversation; the client gets its transcript. ``keep``: save it as a job."""

    type: Literal["end"]
    keep: bool = False


S2SCommand = S2SBegin | S2SChange | S2SPlayed | S2SInterrupt | S2SText | S2SReset | S2SEnd
_OLD = ("text", "reset")
"""Messages of the demo's page, which expects invalid ones to be ignored."""


@cache
def _command_adapter() -> TypeAdapter[S2SCommand]:
    return TypeAdapter(Annotated[S2SCommand, Field(discriminator="type")])


def parse_command(values: Any) -> S2SCommand | None:
    """Return the command in a message; `None` if it is unknown.

    Raises:
        errors.FieldInvalid: a field has an invalid value.
    """
    try:
        return _command_adapter().validate_python(values)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
        too_long = first["type"] == "string_too_long"
        if len(first["loc"]) < 2 or (first["loc"][0] in _OLD and not too_long):
            return None
        name = ".".join(map(str, first["loc"][1:]))
        raise errors.FieldInvalid(f"'{name}': {first['msg']}.") from None


class S2SMetrics(BaseModel):
    """Latencies of the last reply, in milliseconds."""

    vad_ms: float = Field(description="From the end of speech to the end-of-turn decision.")
    asr_ms: float = Field(description="Duration of the final recognition.")
    llm_ms: float = Field(description="To the first token of the reply.")
    tts_first_chunk_ms: float = Field(description="To the first audio of the reply.")
    total_ms: float = Field(
        description="From the end of the user's speech to the first audio of the reply."
    )

    @classmethod
    def of(cls, latency: assistant_turn.ReplyLatency) -> S2SMetrics:
        """Return the latencies of a reply."""
        return cls(
            vad_ms=_ms(latency.endpoint),
            asr_ms=_ms(latency.recognised),
            llm_ms=_ms(latency.thought),
            tts_first_chunk_ms=_ms(latency.voiced),
            total_ms=_ms(latency.total),
        )


class S2SStatus(BaseModel):
    """Status of conversations."""

    state: str = Field(examples=["idle"])
    initialized: bool
    total_requests: int = Field(description="Replies since the service started.")
    last_metrics: S2SMetrics


class S2SConfiguration(BaseModel):
    """Engines of the service."""

    asr_model: str = Field(examples=["moonshine"])
    llm_model: str = Field(examples=["repeat"])
    tts_model: str = Field(examples=["espeak"], description="'none' if answers are text only.")
    input_sample_rate: int
    output_sample_rate: int


class S2SEngine(BaseModel):
    """Engine of a stage."""

    name: str
    title: str


class S2SLlm(BaseModel):
    """Language model."""

    name: str = Field(examples=["repeat"])
    models: list[str] = Field(
        description="Available models, the default first; 'repeat' is built in."
    )


class S2STts(S2SEngine):
    """TTS engine; its speech is synthetic."""

    voices: list[str]
    voice: str = Field(description="Default voice.")


class S2SEngines(BaseModel):
    """Engines of conversations, and those to choose from."""

    hears: S2SEngine | None
    thinks: S2SLlm
    speaks: S2STts | None = Field(description="None if answers are text only.")
    remedy: str = Field(description="Command that installs a TTS voice, if there is none.")


def native_error_message(error: errors.SidecarError, turn: int = 0) -> str:
    """Return the message of an error, with its hint; ``turn`` is 0 if it concerns no reply."""
    body = {
        "message": error.detail,
        "hint": error.hint_on("docs/talk-wire.md"),
        "code": error.code,
        "turn": turn,
    }
    return json_message("error", **body, **retry_fields(error))


_PLAIN_MESSAGES: Mapping[type[output.ConversationOutput], tuple[str, ...]] = {
    output.DropReplyAudio: ("clear", "turn"),
    output.PauseReplyAudio: ("hold", "turn"),
    output.ResumeReplyAudio: ("release", "turn"),
    output.ConversationStarted: ("reset",),
    output.UserTurnStarted: ("person_started",),
    output.UserTurnPartial: ("person_saying", "text"),
    output.UserTurnStopped: ("person_stopped",),
    output.UserTurnDropped: ("nothing_said", "echo"),
    output.ReplyStarted: ("reply_started", "turn"),
    output.ReplyTextDelta: ("reply_written", "turn", "text"),
    output.ReplyAudioStarted: ("reply_spoken", "turn", "piece", "text"),
}
"""Name and fields of the messages that have the fields of the output."""


class S2SNativeDialect:
    """Native messages for one connection; audio belongs to the reply that started last."""

    def of(self, out: output.ConversationOutput) -> Iterator[Message]:
        """Yield the message for an output of the conversation, if it has one."""
        match out:
            case audio_pacing.ReplyAudioFrame():
                yield out.pcm
            case _ if (known := _PLAIN_MESSAGES.get(type(out))) is not None:
                name, *fields = known
                yield json_message(name, **{field: getattr(out, field) for field in fields})
            case output.PhaseChanged(phase):
                yield json_message("phase", phase=phase.value)
            case output.ConversationError(turn, error):
                yield native_error_message(error, turn)
            case output.ConversationNotice(notice):
                yield json_message("notice", message=notice.message, code=notice.code)
            case output.UserTurnFinal(text, typed):
                heard = {"typed": typed, "backchannel": out.backchannel is not None}
                yield json_message("person_said", text=text, **heard)
            case assistant_turn.ReplyLatency(turn):
                yield json_message("latency", turn=turn, **_latency_fields(out))
            case output.ReplyEnded(turn, ending, text, heard_s, made_s):
                lengths = {"heard_s": round(heard_s, 3), "made_s": round(made_s, 3)}
                yield json_message(
                    "reply_ended", turn=turn, ending=ending.value, text=text, **lengths
                )
            case output.ReplyTruncated(turn, seconds, text):
                yield json_message(
                    "reply_truncated", turn=turn, heard_s=round(seconds, 3), text=text
                )


def _latency_fields(latency: assistant_turn.ReplyLatency) -> dict[str, float]:
    """Return the latencies in seconds, by the names of `ReplyLatency`."""
    return {
        f"{name}_s": round(getattr(latency, name), 4)
        for name in ("endpoint", "recognised", "thought", "phrased", "voiced", "total")
    }

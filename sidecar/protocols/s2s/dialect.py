"""What a conversation tells, in the words of this wire. Pure.

A turn is 'processing', its sound in binary frames, 'metrics', one 'transcript', and 'ready'. The
page writes both sides of a transcript, so both are always there, and it has no message that would
make it drop sound: to it nothing is sent far ahead (`conversation.pacing`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sidecar import errors
from sidecar.conversation.outgoing import Clear, Out
from sidecar.conversation.pacing import Frame
from sidecar.conversation.told import (
    Began,
    Ending,
    Failed,
    Latency,
    NothingSaid,
    Noticed,
    PersonSaid,
    PersonStopped,
    ReplyEnded,
    ReplyStarted,
    ReplyWritten,
)

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


def trouble(error: errors.SidecarError) -> str:
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
                yield trouble(out.error)
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

"""What a conversation tells, in our own words: all of it, and as it comes. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar import errors
from sidecar.conversation.outgoing import Clear, Hold, Out, Release
from sidecar.conversation.pacing import Frame
from sidecar.conversation.told import (
    Began,
    Entered,
    Failed,
    Latency,
    NothingSaid,
    Noticed,
    PersonSaid,
    PersonSaying,
    PersonStarted,
    PersonStopped,
    ReplyEnded,
    ReplySpoken,
    ReplyStarted,
    ReplyTruncated,
    ReplyWritten,
)
from sidecar.protocols.s2s.dialect import Message, again, message


def trouble(error: errors.SidecarError, turn: int = 0) -> str:
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
                yield trouble(error, turn)
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

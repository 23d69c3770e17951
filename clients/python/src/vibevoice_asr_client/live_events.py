"""What a live session says, as values; times are seconds on its clock, which is its sound. Pure.

``channel``: of a session with two channels, the one that it is about, from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Mapping, Optional, Union

from vibevoice_asr_client.errors import AnswerNotUnderstood
from vibevoice_asr_client.models import Segment, Transcript, segment_of, transcript_of


@dataclass(frozen=True)
class SpeechStarted:
    """Somebody begins to speak."""

    number: int
    turn: int
    at: float
    channel: Optional[int] = None


@dataclass(frozen=True)
class SpeechStopped:
    """A pause that is long enough; ``at`` is where it began."""

    number: int
    turn: int
    at: float
    channel: Optional[int] = None


@dataclass(frozen=True)
class Partial:
    """What a piece that goes on seems to say; each replaces the one before.

    ``text`` is worth showing, ``stable`` its beginning that is not taken back before the final,
    ``tail`` what follows it and may well change.
    """

    number: int
    turn: int
    piece: int
    start: float
    end: float
    text: str
    stable: str = ""
    tail: str = ""
    channel: Optional[int] = None


@dataclass(frozen=True)
class Final:
    """A piece that has ended; its speaker may still be revised, and is known where ``diarized``.

    ``wait_s`` and ``work_s``: how long it lay before an engine had time for it, and how long that
    took then.
    """

    number: int
    turn: int
    piece: int
    segment: Segment
    diarized: bool = False
    language: str = ""
    wait_s: float = 0.0
    work_s: float = 0.0
    channel: Optional[int] = None


@dataclass(frozen=True)
class TurnEnded:
    """All pieces of a turn are told, ``text`` is what they say together."""

    number: int
    turn: int
    start: float
    end: float
    text: str
    channel: Optional[int] = None


@dataclass(frozen=True)
class TurnDropped:
    """A turn that was cancelled: nothing more is said of it."""

    number: int
    turn: int
    at: float
    channel: Optional[int] = None


@dataclass(frozen=True)
class SpeakersRevised:
    """Who said pieces that were told before, as it looks now: piece → speaker (`Speaker_0`).

    ``names``: speaker → who that is, None for nobody after all; of speakers for whom that changed.
    """

    number: int
    speakers: Mapping[int, str]
    names: Mapping[str, Optional[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Noticed:
    """Something to know, such as an engine that had to be started anew."""

    number: int
    code: str
    message: str
    channel: Optional[int] = None


@dataclass(frozen=True)
class Summary:
    """The last event: all that was said, by whom as far as that is known at the end.

    ``job``: what it is kept as, where `keep` was asked for: with every format, to be edited.
    """

    number: int
    transcript: Transcript
    job: Optional[str] = None


LiveEvent = Union[
    SpeechStarted,
    SpeechStopped,
    Partial,
    Final,
    TurnEnded,
    TurnDropped,
    SpeakersRevised,
    Noticed,
    Summary,
]


def _spoken(kind: Callable[..., LiveEvent], body: Mapping[str, Any]) -> LiveEvent:
    return kind(int(body["number"]), int(body["turn"]), float(body["at"]), body.get("channel"))


def _partial(body: Mapping[str, Any]) -> Partial:
    return Partial(
        number=int(body["number"]),
        turn=int(body["turn"]),
        piece=int(body["piece"]),
        start=float(body["start"]),
        end=float(body["end"]),
        text=str(body["text"]),
        stable=str(body.get("stable", "")),
        tail=str(body.get("tail", "")),
        channel=body.get("channel"),
    )


def _final(body: Mapping[str, Any]) -> Final:
    return Final(
        number=int(body["number"]),
        turn=int(body["turn"]),
        piece=int(body["piece"]),
        segment=segment_of(body["segment"]),
        diarized=bool(body.get("diarized", False)),
        language=str(body.get("language", "")),
        wait_s=float(body.get("wait_s", 0.0)),
        work_s=float(body.get("work_s", 0.0)),
        channel=body.get("channel"),
    )


def _turn_ended(body: Mapping[str, Any]) -> TurnEnded:
    return TurnEnded(
        number=int(body["number"]),
        turn=int(body["turn"]),
        start=float(body["start"]),
        end=float(body["end"]),
        text=str(body["text"]),
        channel=body.get("channel"),
    )


def _speakers(body: Mapping[str, Any]) -> SpeakersRevised:
    said, names = body["speakers"].items(), body.get("names", {}).items()
    return SpeakersRevised(
        int(body["number"]),
        {int(piece): str(who) for piece, who in said},
        {str(who): None if name is None else str(name) for who, name in names},
    )


_KINDS: Dict[str, Callable[[Mapping[str, Any]], LiveEvent]] = {
    "speech_started": lambda body: _spoken(SpeechStarted, body),
    "speech_stopped": lambda body: _spoken(SpeechStopped, body),
    "partial": _partial,
    "final": _final,
    "turn_ended": _turn_ended,
    "turn_dropped": lambda body: _spoken(TurnDropped, body),
    "speakers_revised": _speakers,
    "notice": lambda body: Noticed(
        int(body["number"]), str(body["code"]), str(body["message"]), body.get("channel")
    ),
    "summary": lambda body: Summary(
        int(body["number"]), transcript_of(body["transcript"]), body.get("job")
    ),
}


def live_event_of(body: Mapping[str, Any]) -> Optional[LiveEvent]:
    """The event in a message; None where it is of a kind that this version does not know.

    Raises:
        AnswerNotUnderstood: it is not what it says it is.
    """
    read = _KINDS.get(str(body.get("type")))
    if read is None:
        return None
    try:
        return read(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AnswerNotUnderstood(
            f"A message of the live session is not understood ({type(error).__name__}: {error}).",
            hint="Use the same version of vibevoice-asr on both ends.",
        ) from None

"""Events of a live session and their serialization.

Turns, pieces and times are those of `interfaces.live_engine`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from sidecar import errors
from sidecar.interfaces.engine_interface import AUTO
from sidecar.serialization import from_plain
from sidecar.transcripts.language_detection import Confidence
from sidecar.transcripts.speaker_embeddings import SpeakerEmbedding
from sidecar.transcripts.transcript import Notice, Segment, Transcript

RECOGNITION_FAILED = "recognition_failed"
"""The notice of a stretch that no engine could make words of in time."""
AUDIO_UNHEARD = "unheard"
"""The flag of its final."""
UTTERANCE_DROPPED = "utterance_dropped"
"""The notice of an utterance that is not recognised because too many speak: it has no finals."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Start of speech."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """A pause that is long enough; ``at`` is where it began."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class Partial:
    """Text of a segment that goes on.

    ``text`` is worth showing, ``stable`` its beginning that will not change before the final, and
    ``tail`` what follows it and may well change.
    """

    turn: int
    piece: int
    start: float
    end: float
    text: str
    stable: str = ""
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Final:
    """Final segment; its speaker may still be revised. ``wait_s``: how long it lay before an
    engine had time for it; ``work_s``: how long that took then. ``name``: who of the people
    known its speaker is, as it looks now. ``confidence``: of an engine that knows one language
    alone; never for a client."""

    turn: int
    piece: int
    segment: Segment
    language: str = AUTO
    wait_s: float = 0.0
    work_s: float = 0.0
    name: str | None = None
    confidence: Confidence = field(default_factory=Confidence)


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """End of a turn whose segments were all sent, ``text`` is their text together.
    ``committed``: the client had ended it."""

    turn: int
    start: float
    end: float
    text: str
    committed: bool = False


@dataclass(frozen=True, slots=True)
class TurnDropped:
    """The client did not want the turn: nothing more is said of it."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class SpeakersRevised:
    """Revised speakers of earlier segments: segment → speaker. The last one, if there is any,
    stands right before the `Summary`, and agrees with it. ``names``: speaker → enrolled speaker,
    None for none after all; of those that changed."""

    speakers: dict[int, int]
    names: dict[int, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpeakerEmbeddingsKnown:
    """Embeddings of the speakers, by their numbers, for an engine that continues for this one
    (`Begin.voices`); never for a client."""

    voices: dict[int, SpeakerEmbedding]


@dataclass(frozen=True, slots=True)
class ContextUtterance:
    """Sent segment that is context for the next; seconds on the session's clock. ``tokens``:
    what it says, in the engine's own."""

    start: float
    end: float
    tokens: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class ContextKnown:
    """Last segments as context of the next, for an engine that continues for this one
    (`Begin.context`); never for a client."""

    pieces: tuple[ContextUtterance, ...]


@dataclass(frozen=True, slots=True)
class InputProcessed:
    """Audio was recognized up to ``at``; before ``settled`` no more events come, and an engine
    that takes over needs the audio from ``wanted`` on (from ``settled`` where that is None).
    ``commits``: so many of the client's have been answered."""

    at: float
    settled: float
    commits: int = 0
    wanted: float | None = None


@dataclass(frozen=True, slots=True)
class NoticeRaised:
    """Notice for the client, about a turn if it concerns one."""

    notice: Notice
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class SessionRejected:
    """The engine is too busy for one more who speaks: the session is over, and nothing follows."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The last event: all that was said, by whom as far as that is known at the end. ``job``: what
    it is kept as, where somebody asked for that."""

    transcript: Transcript
    job: str | None = None


LiveEvent = (
    SpeechStarted
    | SpeechStopped
    | Partial
    | Final
    | TurnEnded
    | TurnDropped
    | SpeakersRevised
    | SpeakerEmbeddingsKnown
    | ContextKnown
    | InputProcessed
    | NoticeRaised
    | SessionRejected
    | Summary
)
EVENT_TYPES: dict[str, type[LiveEvent]] = {
    "SpeechStarted": SpeechStarted,
    "SpeechStopped": SpeechStopped,
    "Partial": Partial,
    "Final": Final,
    "TurnEnded": TurnEnded,
    "TurnDropped": TurnDropped,
    "SpeakersRevised": SpeakersRevised,
    "VoicesKnown": SpeakerEmbeddingsKnown,
    "ContextKnown": ContextKnown,
    "Heard": InputProcessed,
    "Noticed": NoticeRaised,
    "TurnedAway": SessionRejected,
    "Summary": Summary,
}
"""Types by their names in messages and captures, which stay whatever the classes are called."""
_NAMES = {kind: name for name, kind in EVENT_TYPES.items()}


def to_wire(event: LiveEvent) -> dict[str, Any]:
    """An event as plain values."""
    return {"live": _NAMES[type(event)], **asdict(event)}


def from_wire(values: dict[str, Any]) -> LiveEvent:
    """The event that `to_wire` wrote.

    Raises:
        errors.EngineFailed: it is none.
    """
    try:
        fields = dict(values)
        return from_plain(EVENT_TYPES[fields.pop("live")], fields)
    except (TypeError, KeyError, ValueError):
        raise errors.EngineFailed(
            "The worker process sent a message that is not an event."
        ) from None


LiveEventCallback = Callable[[LiveEvent], None]
"""Takes what a session has to say, from whichever thread says it; never waits."""

"""Events of a live session, its start or resume point, and their serialization."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from sidecar.errors import EngineFailed
from sidecar.interfaces.engine_interface import AUTO
from sidecar.interfaces.live_options import SequenceNumber, TimePosition
from sidecar.serialization import WireValues, from_plain, to_plain
from sidecar.transcripts.language_detection import Confidence
from sidecar.transcripts.transcript import Notice, Segment, SpeakerEmbedding, Transcript

RECOGNITION_FAILED = "recognition_failed"
"""Code of the notice that a segment could not be recognized in time; its final has
`UNHEARD_FLAG`."""
PARTIALS_LATE = "partials_late"
"""Code of the notice that partials come late because of load."""
UTTERANCE_DROPPED = "utterance_dropped"
"""Code of the notice that an utterance is not recognized because of load: it has no finals."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Start of speech."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Pause that is long enough; ``at`` is its beginning."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class Partial:
    """Interim text of an open segment.

    ``text`` is worth showing, ``stable`` its beginning, which does not change before the final, and
    ``tail`` the rest, which may well change.
    """

    turn: int
    segment_number: int
    start: float
    end: float
    text: str
    stable: str = ""
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Final:
    """Final segment; its speaker may still be revised. ``wait_s``: how long the segment waited for
    an engine; ``work_s``: how long its recognition took. ``name``: the enrolled speaker as
    identified so far. ``confidence``: of an engine for one language only; never sent to a
    client."""

    turn: int
    segment_number: int
    segment: Segment
    language: str = AUTO
    wait_s: float = 0.0
    work_s: float = 0.0
    name: str | None = None
    confidence: Confidence = field(default_factory=Confidence)


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """End of a turn, after all of its segments; ``text`` is their joined text. ``committed``: the
    client ended it."""

    turn: int
    start: float
    end: float
    text: str
    committed: bool = False


@dataclass(frozen=True, slots=True)
class TurnDropped:
    """Cancelled turn: no more events of it follow."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class SpeakersRevised:
    """Revised speakers of earlier segments: segment → speaker. The last one, if there is any, comes
    right before the `Summary` and agrees with it. ``names``: speaker → enrolled speaker, or None if
    no longer identified; only changes."""

    speakers: dict[int, int]
    names: dict[int, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpeakerEmbeddingsKnown:
    """Embeddings of the speakers, by their numbers, for an engine that takes over from this one
    (`LiveSessionStart.voices`); never sent to a client."""

    voices: dict[int, SpeakerEmbedding]


@dataclass(frozen=True, slots=True)
class ContextUtterance:
    """Segment that is context for the next; seconds on the session's clock. ``tokens``: its text as
    the engine's tokens."""

    start: float
    end: float
    tokens: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class ContextKnown:
    """Last segments as context of the next, for an engine that takes over from this one
    (`LiveSessionStart.context`); the last of them may not be sent yet. Never sent to a client."""

    utterances: tuple[ContextUtterance, ...]


@dataclass(frozen=True, slots=True)
class InputProcessed:
    """Progress: audio was processed up to ``at``. No more events concern audio before ``settled``.
    An engine that takes over needs the audio from ``wanted`` on (None: from ``settled``).
    ``commits``: number of the client's commits that were answered."""

    at: float
    settled: float
    commits: int = 0
    wanted: float | None = None


@dataclass(frozen=True, slots=True)
class NoticeRaised:
    """Notice for the client, about a turn if it concerns one. ``missing_from``: start of the audio
    whose words are missing for this reason; never sent to a client, whose summary has it."""

    notice: Notice
    turn: int | None = None
    missing_from: float | None = None


@dataclass(frozen=True, slots=True)
class SessionRejected:
    """Refusal by an engine that is too busy: the session has ended, and no event follows."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Last event: the whole transcript, with the speakers as known at the end. ``job``: id of the
    job that the session became, if the client requested that."""

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
EVENT_TYPES: dict[str, type[LiveEvent]] = {kind.__name__: kind for kind in get_args(LiveEvent)}
"""Types by their names in messages, which go between the processes of one service only."""


def to_wire(event: LiveEvent) -> dict[str, Any]:
    """Return an event as plain values."""
    return {"live": type(event).__name__, **to_plain(event)}


def from_wire(values: dict[str, Any]) -> LiveEvent:
    """Return the event that `to_wire` serialized.

    Raises:
        errors.EngineFailed: the values are not an event.
    """
    try:
        fields = dict(values)
        return from_plain(EVENT_TYPES[fields.pop("live")], fields)
    except (TypeError, KeyError, ValueError):
        raise EngineFailed("The worker process sent a message that is not an event.") from None


LiveEventCallback = Callable[[LiveEvent], None]
"""Callback for the events of a session, from any thread; it must not block."""


@dataclass(frozen=True, slots=True)
class LiveSessionStart(WireValues):
    """Start of a session, or its resume point after the death of a worker process: times, and the
    next numbers of a turn and a segment. ``said``: the finals that were sent, with their
    ``segment_numbers``; the last ``open`` of them belong to the open turn. ``voices``: the
    embeddings of the speakers so far. ``lead``: the start of the audio that follows (None: ``at``).
    Audio up to ``at`` is already recognized; ``context`` are sent segments in it. Utterances of the
    first ``began`` turns had been admitted and stay so. ``confidence``: of all that was sent;
    ``doubted``: the client was notified that the language is probably another."""

    at: TimePosition = 0.0
    turn: SequenceNumber = 0
    segment_number: SequenceNumber = 0
    said: tuple[Segment, ...] = field(default=())
    open: SequenceNumber = 0
    segment_numbers: tuple[SequenceNumber, ...] = ()
    voices: Mapping[int, SpeakerEmbedding] = field(default_factory=dict)
    lead: TimePosition | None = None
    context: tuple[ContextUtterance, ...] = ()
    began: SequenceNumber = 0
    confidence: Confidence = field(default_factory=Confidence)
    doubted: bool = False

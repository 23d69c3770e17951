"""Interface of a live ASR engine, options of a live session, value ranges of options.

They are declared with the option. Every wire, the settings, the schema and the tables of the
documentation read them from there. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Protocol, Self, get_args, get_type_hints

from sidecar import errors
from sidecar.audio import Block
from sidecar.interfaces import live_events
from sidecar.interfaces.engine_interface import AUTO, TranscriptionEngine
from sidecar.serialization import WireValues
from sidecar.transcripts.language_detection import Confidence
from sidecar.transcripts.speaker_embeddings import SpeakerCandidate, SpeakerEmbedding
from sidecar.transcripts.transcript import Segment


@dataclass(frozen=True, slots=True)
class NumberRange:
    """A number from ``least`` to ``most``; NaN and infinities never are."""

    least: float
    most: float

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most

    def __str__(self) -> str:
        return f"{_short(self.least)} to {_short(self.most)}"

    def __get_pydantic_core_schema__(
        self, source: Any, handler: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        return {**handler(source), "ge": self.least, "le": self.most}


@cache
def field_limits(options: Hashable) -> Mapping[str, NumberRange]:
    """Return the limits of each field of a class whose annotation has some, by the field's name."""
    hints = get_type_hints(options, include_extras=True)
    found = {name: _annotation_limits(hint) for name, hint in hints.items()}
    return MappingProxyType({name: one for name, one in found.items() if one is not None})


def check_field_limits(options: Any) -> None:
    """Compare the fields of ``options`` with their limits.

    Raises:
        ValueError: one is beyond them; the message names the field.
    """
    for name, limits in field_limits(options.__class__).items():
        value = getattr(options, name)
        if value is not None and value not in limits:
            raise ValueError(f"{name} is not from {limits}")


def _annotation_limits(hint: Any) -> NumberRange | None:
    """Those of an annotation, which may be optional."""
    for one in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        if isinstance(one, NumberRange):
            return one
        if (inner := _annotation_limits(one)) is not None:
            return inner
    return None


def _short(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


LIVE_RATE = 16_000
"""Samples a second that live engines hear, whatever comes in."""

Probability = Annotated[float, NumberRange(0, 1)]
Seconds = Annotated[float, NumberRange(0, 60)]
"""A length of time within a session: as much as is kept of its sound by default."""
SilenceSeconds = Annotated[float, NumberRange(0.001, 60)]
"""Seconds without speech that end an utterance."""
MaxUtteranceSeconds = Annotated[float, NumberRange(0.256, 86_400)]
"""Seconds of an utterance: from twice the 0.128 s that its beginning takes at least, to a day; half
of `live.sessions.session.BUFFER_S` is the most that has an effect."""
TimePosition = Annotated[float, NumberRange(0, 366 * 86_400)]
"""Seconds since the beginning of a session."""
SequenceNumber = Annotated[int, NumberRange(0, 2**53 - 1)]
"""Of an event, a turn or a piece: as large as every reader of JSON has it exactly."""


class SampleEncoding(StrEnum):
    """How samples come in, mono and little-endian."""

    PCM16 = "pcm16"
    FLOAT32 = "float32"

    @property
    def width(self) -> int:
        """Bytes of a sample."""
        return 2 if self is SampleEncoding.PCM16 else 4


class TurnControl(StrEnum):
    """Control of the end of a turn."""

    SILENCE = "silence"
    """A pause, or a commit of the client."""
    CLIENT = "client"
    """The client alone; pauses end pieces."""
    ONE = "one"
    """The first pause, and the session with it."""


@dataclass(frozen=True, slots=True)
class EndpointingOptions:
    """Options of endpointing: which audio is speech, and where an utterance begins and ends;
    seconds.

    Speech lasts from a probability of ``threshold`` until it falls below ``neg_threshold``. An
    utterance begins when that has lasted ``min_speech_s``, or ``min_sure_speech_s`` at
    ``sure_threshold``, and reaches back ``pre_roll_s`` before it. It ends after ``silence_s``
    without speech, and reaches ``post_roll_s`` into those; after ``pause_s`` its end is hinted at.
    With a ``threshold`` of 0 all audio is speech, and only the client and ``longest_s`` end an
    utterance.

    Raises:
        ValueError: a value is beyond its limits, or no such utterances can be.
    """

    threshold: Probability = 0.5
    neg_threshold: Probability = 0.35
    sure_threshold: Probability = 0.8
    min_speech_s: Seconds = 0.096
    min_sure_speech_s: Seconds = 0.064
    pre_roll_s: Seconds = 0.2
    post_roll_s: Seconds = 0.1
    pause_s: Seconds = 0.2
    silence_s: SilenceSeconds = 0.5
    longest_s: MaxUtteranceSeconds = 8.0

    def __post_init__(self) -> None:
        check_field_limits(self)
        if self.neg_threshold > self.threshold:
            raise ValueError("neg_threshold has to be at most threshold")
        opening = self.pre_roll_s + max(self.min_speech_s, self.min_sure_speech_s) + 0.128
        if self.longest_s < 2 * opening:
            raise ValueError(
                f"longest_s has to be at least {2 * opening:g}: twice the sum of "
                "pre_roll_s, min_speech_s and 0.128 s"
            )


@dataclass(frozen=True, slots=True)
class LiveOptions(WireValues):
    """Options of a live session.

    ``partials``: text while the user speaks. ``diarize``: speaker labels. ``words``: times of words
    in finals. ``prompt``: as `TranscribeOptions.prompt`. ``delay_s``: the latency of a streaming
    engine, None leaves it to the engine. ``accurate``: accuracy before speed. ``recognise``:
    whether enrolled speakers may be recognized; ``known_voices``: their embeddings;
    ``voiceprints``: the summary has the embeddings of speakers and segments. ``keep``: the session
    becomes a finished job at its end. ``client``: sessions with the same one share their part of
    the engine. ``patience_s``: a segment that takes longer to recognize is given up. ``wait_s``:
    how long a final may wait because of others before less is recognized; 0 is no limit.
    """

    language: str = AUTO
    turns: TurnControl = TurnControl.SILENCE
    endpointing: EndpointingOptions = EndpointingOptions()
    partials: bool = True
    diarize: bool = True
    words: bool = False
    translate: bool = False
    accurate: bool = False
    prompt: str = ""
    delay_s: Seconds | None = None
    recognise: bool = True
    known_voices: tuple[SpeakerCandidate, ...] = field(default=(), repr=False)
    voiceprints: bool = False
    keep: bool = False
    client: str = ""
    patience_s: float = 20.0
    wait_s: float = 0.0

    @property
    def identifies_speakers(self) -> bool:
        """Return whether the client wants to know who the speakers are, and not only that they
        differ."""
        return self.diarize and (bool(self.known_voices) or self.voiceprints)

    @property
    def spoken(self) -> Self:
        """Without the voices of people, which are told an engine once."""
        return dataclasses.replace(self, known_voices=())


class LiveSession(Protocol):
    """One stream of sound in an engine. Nothing here waits for recognition; `Summary` is the last
    event, and comes after `finish` alone."""

    around: Callable[[], AbstractContextManager[object]]
    """Entered by each thread of the engine for as long as it recognizes for this session; set
    before any sound is pushed."""
    failed: Callable[[errors.SidecarError], object]
    """Called once if work for this session fails: nothing more is told. Set as `around` is."""

    @property
    def backlog_s(self) -> float:
        """Seconds of sound that were pushed and not looked at, or wait to be recognised: who pushes
        more than some of them pushes too fast."""

    def push(self, block: Block) -> None:
        """More sound at `LIVE_RATE`, shape (samples,)."""

    def change(self, options: LiveOptions) -> None:
        """Hear from here on with other options."""

    def commit(self) -> None:
        """End the turn here."""

    def cancel(self) -> None:
        """Forget what is not told yet: of this turn nothing more is said."""

    def finish(self) -> None:
        """No more sound: tell the rest, and then the summary."""

    def close(self) -> None:
        """Nobody listens any more."""


@dataclass(frozen=True, slots=True)
class LiveSessionStart(WireValues):
    """Where a session begins that goes on for one whose process died: times, and the next numbers
    of a turn and a piece. ``said`` is what was told before, as pieces number ``pieces``; the last
    ``open`` of it belong to the turn that goes on. ``voices``: what its speakers sound like, as far
    as that was known. ``lead``: where the sound begins that comes, ``at`` where that is None; up to
    ``at`` it was heard already, and ``context`` is told pieces in it. Utterances of the first
    ``began`` turns were being recognised, and are. ``confidence``: of all that was told, and
    ``doubted``: the client was told that the language is probably another."""

    at: TimePosition = 0.0
    turn: SequenceNumber = 0
    piece: SequenceNumber = 0
    said: tuple[Segment, ...] = field(default=())
    open: SequenceNumber = 0
    pieces: tuple[SequenceNumber, ...] = ()
    voices: Mapping[int, SpeakerEmbedding] = field(default_factory=dict)
    lead: TimePosition | None = None
    context: tuple[live_events.ContextUtterance, ...] = ()
    began: SequenceNumber = 0
    confidence: Confidence = field(default_factory=Confidence)
    doubted: bool = False


NEW_SESSION = LiveSessionStart()
"""Nothing was said before."""


class LiveEngine(TranscriptionEngine, Protocol):
    """An engine that hears as many as `EngineSpec.sessions` streams at once."""

    def open(
        self, options: LiveOptions, begin: LiveSessionStart, tell: live_events.LiveEventCallback
    ) -> LiveSession:
        """A session; its events come by ``tell`` on threads of the engine's.

        Raises:
            errors.SidecarError: not with these options.
        """

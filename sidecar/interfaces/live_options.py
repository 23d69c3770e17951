"""Options of a live session, with their value ranges and defaults: endpointing, encoding.

The ranges are declared with the option. Every wire, the settings, the schema and the tables of the
documentation read them from there. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Self, get_args, get_type_hints

from sidecar.audio import SAMPLE_RATE
from sidecar.interfaces.engine_interface import AUTO, join_prompt, prompt_lines
from sidecar.limit_overrides import limit
from sidecar.serialization import WireValues
from sidecar.transcripts.transcript import SpeakerCandidate

LIVE_RATE = SAMPLE_RATE
"""Samples per second of live engines, whatever rate a client sends."""
BUFFER_S = limit("live_buffer", 60.0)
"""Seconds of a session's audio that may wait for the engine, besides the silence that ends an
utterance: twice the longest utterance."""
AUDIO_BLOCK_SAMPLES = 128
"""Samples of the shortest block that clients send: one of an AudioWorklet, at any sample rate."""


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Range of a number from ``least`` to ``most``; NaN and infinities are never in it."""

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
    """Return the limits of the fields of a class by name, if the annotation has any."""
    hints = get_type_hints(options, include_extras=True)
    found = {name: _annotation_limits(hint) for name, hint in hints.items()}
    return MappingProxyType({name: one for name, one in found.items() if one is not None})


def _annotation_limits(hint: Any) -> NumberRange | None:
    """Return the limits of an annotation, which may be optional."""
    for one in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        if isinstance(one, NumberRange):
            return one
        if (inner := _annotation_limits(one)) is not None:
            return inner
    return None


def _short(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


Probability = Annotated[float, NumberRange(0, 1)]
Seconds = Annotated[float, NumberRange(0, 60)]
"""Seconds within a session: at most the audio that is buffered by default."""
SilenceSeconds = Annotated[float, NumberRange(0.001, 60)]
"""Seconds without speech that end an utterance."""
MaxUtteranceSeconds = Annotated[float, NumberRange(0.256, 86_400)]
"""Seconds of an utterance: from twice the minimum of 0.128 s for its beginning, to a day; at most
half of `BUFFER_S` has an effect."""
TimePosition = Annotated[float, NumberRange(0, 366 * 86_400)]
"""Seconds since the beginning of a session."""
SequenceNumber = Annotated[int, NumberRange(0, 2**53 - 1)]
"""Number of an event, a turn or a segment: at most what every JSON parser reads exactly."""


class SampleEncoding(StrEnum):
    """Encoding of incoming samples, mono and little-endian."""

    PCM16 = "pcm16"
    FLOAT32 = "float32"

    @property
    def width(self) -> int:
        """Return the bytes of a sample."""
        return 2 if self is SampleEncoding.PCM16 else 4


class WholeSamples:
    """Samples of ``width`` bytes from messages that are cut at any byte."""

    def __init__(self, width: int = SampleEncoding.PCM16.width) -> None:
        self._width, self._rest = width, b""

    def add(self, raw: bytes) -> bytes:
        """Return the whole samples that are there with these bytes; the rest waits for more."""
        joined = self._rest + raw if self._rest else raw
        end = len(joined) - len(joined) % self._width
        self._rest = joined[end:]
        return joined[:end]

    def end(self) -> None:
        """Drop a sample whose rest does not come, as the audio has ended."""
        self._rest = b""


class LiveOrder(StrEnum):
    """Order that follows the audio of a session so far."""

    COMMIT = "commit"
    """End the turn here."""
    CANCEL = "cancel"
    """Drop the results that are not sent yet; no more events of this turn follow."""
    FINISH = "finish"
    """End the audio: send the remaining events, and then the summary."""
    PAUSE = "pause"
    """No audio came for so long that it counts as silence. Only the service orders it."""


class TurnControl(StrEnum):
    """Control of the end of a turn."""

    SILENCE = "silence"
    """A pause, or a commit of the client, ends a turn."""
    CLIENT = "client"
    """Only the client ends a turn; pauses end segments."""
    ONE = "one"
    """The first pause ends the turn and the session."""


@dataclass(frozen=True, slots=True)
class EndpointingOptions:
    """Options of endpointing: which audio is speech, and where an utterance begins and ends;
    seconds.

    Speech lasts from a probability of ``threshold`` until it falls below ``neg_threshold``. An
    utterance begins after ``min_speech_s`` of speech, or after ``min_sure_speech_s`` at
    ``sure_threshold``, and includes the ``pre_roll_s`` before it. It ends after ``silence_s``
    without speech, and includes ``post_roll_s`` of that; after ``pause_s`` its end is expected.
    With a ``threshold`` of 0 all audio is speech, and only the client and ``longest_s`` end an
    utterance.

    Raises:
        ValueError: a value is out of range, or the values contradict each other.
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
        for field_name, limits in field_limits(EndpointingOptions).items():
            if getattr(self, field_name) not in limits:
                raise ValueError(f"{field_name} is not from {limits}")
        if self.neg_threshold > self.threshold:
            raise ValueError("neg_threshold has to be at most threshold")
        name = max("min_speech_s", "min_sure_speech_s", key=lambda name: float(getattr(self, name)))
        least_s = 2 * (self.pre_roll_s + getattr(self, name) + 0.128)
        if self.longest_s < least_s:
            raise ValueError(
                f"longest_s ({self.longest_s:g}) has to be at least {least_s:g}: twice the sum of "
                f"pre_roll_s ({self.pre_roll_s:g}), {name} ({getattr(self, name):g}) and 0.128 s"
            )

    def with_threshold(self, threshold: float) -> Self:
        """Return the options with another ``threshold``. Speech lasts until 0.15 below it, or until
        0.7 of a low one: no probability is below 0, so silence would end nothing there.

        Raises:
            ValueError: it is out of range.
        """
        return replace(
            self,
            threshold=threshold,
            neg_threshold=max(threshold - 0.15, 0.7 * threshold),
            sure_threshold=max(self.sure_threshold, threshold),
        )


QUIET_SPEECH = EndpointingOptions(threshold=0.1, neg_threshold=0.07)
"""Endpointing for a client that ends its turns itself, and sends speech alone: so quiet speech is
recognized, too. Silence and noise stay below; with 0 the recognizer invents words for them."""
ALL_AUDIO = EndpointingOptions(threshold=0.0, neg_threshold=0.0, min_speech_s=0.0)
"""Endpointing for a client whose protocol promises that its whole buffer is recognized."""


@dataclass(frozen=True, slots=True)
class LiveOptions(WireValues):
    """Options of a live session.

    ``partials``: text while the user speaks. ``diarize``: speaker labels. ``words``: times of words
    in finals. ``prompt`` and ``hotwords``: as in `TranscribeOptions`. ``delay_s``: the latency of a
    streaming engine; None: the engine's default. ``accurate``: accuracy before speed.
    ``recognise``: whether enrolled speakers may be identified; ``known_voices``: their embeddings;
    ``voiceprints``: the summary has the embeddings of speakers and segments. ``keep``: the session
    becomes a finished job at its end. ``client``: sessions with the same one share their part of
    the engine. ``patience_s``: the timeout of the recognition of a segment. ``wait_s``: how long a
    final may wait because of others before load is shed; 0 is no limit. ``language_before``: the
    language of the speech before, for speech whose language is unclear; '' if unknown.
    ``channel_of``: the id that both channels of a session have; '' if it has one.
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
    hotwords: tuple[str, ...] = ()
    delay_s: Seconds | None = None
    recognise: bool = True
    known_voices: tuple[SpeakerCandidate, ...] = field(default=(), repr=False)
    voiceprints: bool = False
    keep: bool = False
    client: str = ""
    patience_s: float = 20.0
    wait_s: float = 0.0
    language_before: str = ""
    channel_of: str = ""

    @property
    def prompt_with_hotwords(self) -> str:
        """Return the context, and then the hotwords, for a model that takes both in one text."""
        return join_prompt(self.prompt, self.hotwords)

    @property
    def prompt_lines(self) -> str:
        """Return the same, one term a line."""
        return prompt_lines(self.prompt, self.hotwords)

    @property
    def identifies_speakers(self) -> bool:
        """Return whether the client requests speaker identification, and not only speaker
        labels."""
        return self.diarize and (bool(self.known_voices) or self.voiceprints)

    def with_speakers_of(self, options: LiveOptions) -> Self:
        """Return the options with the enrolled speakers of others."""
        return replace(self, known_voices=options.known_voices, voiceprints=options.voiceprints)

    @property
    def spoken(self) -> Self:
        """Return the options without speaker embeddings, which an engine gets only once."""
        return replace(self, known_voices=())

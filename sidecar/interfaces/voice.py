"""What an engine that speaks is: a blocking generator of sound, and a spec of what it can do.

As `interfaces.engine`, the other way round: words in, sound out. It lives in a worker process of
its own; a new one is a file in `tts/` and a line in its tuple.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from sidecar.interfaces.engine import AUTO, Cancelled, LoadOptions, ModelSpec

PCM16_BYTES = 2
"""Of a sample of sound as it goes to listeners: 16 bit, mono, little-endian."""
LONGEST_TEXT = 2_000
"""Characters that are said at once at most; who has more says it a sentence at a time."""
MOST_STEPS = 20
"""From noise to a frame of sound, of an engine that goes that way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceSpec(ModelSpec):
    """What an engine that speaks can do.

    ``streams``: its sound comes while it is made, and can be stopped in between; of another a piece
    of text is one piece of work. ``marks``: it says when each word begins. ``lists_voices``: its
    voices are known here; else any name is passed on to whoever has them.
    """

    streams: bool = False
    marks: bool = False
    lists_voices: bool = True


@dataclass(frozen=True, slots=True)
class Mark:
    """The word at ``character`` of the text that was to be said is heard from ``start`` on: seconds
    since the beginning of that text's sound."""

    character: int
    start: float


@dataclass(frozen=True, slots=True)
class Sound:
    """Some of what is said: ``pcm`` as 16-bit mono little-endian samples, ``rate`` of them a
    second; ``marks`` of the words that begin in it, where the engine knows them."""

    pcm: bytes
    rate: int
    marks: tuple[Mark, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it sounds."""
        return len(self.pcm) / PCM16_BYTES / self.rate


@dataclass(frozen=True, slots=True)
class SayOptions:
    """How something is to be said.

    ``voice``: one of those that the engine has, '' for its own choice. ``speed``: 1 is the voice's
    own. ``language``: of the text; 'auto' leaves it to the voice. ``rate``: samples a second that
    are wanted, 0 takes what the voice has.
    """

    voice: str = ""
    language: str = AUTO
    speed: float = 1.0
    rate: int = 0

    def to_wire(self) -> dict[str, Any]:
        """The options as plain values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, values: dict[str, Any]) -> SayOptions:
        """The options that `to_wire` wrote."""
        return cls(**values)


class VoiceEngine(Protocol):
    """Blocking, plain, testable without a server. What it took goes with its process."""

    def load(self, options: LoadOptions) -> Iterator[float]:
        """As `interfaces.engine.Engine.load`."""

    def voices(self) -> Sequence[str]:
        """Whose voices it has, its own choice first; known once it is loaded."""

    def say(self, text: str, options: SayOptions, cancelled: Cancelled) -> Iterator[Sound]:
        """The sound of ``text``, in order; ends early once ``cancelled()``.

        Raises:
            errors.VoiceUnknown: there is no such voice.
        """

"""What a kind of server is: how it is asked, how its answers are read, what it takes. Pure.

A `Dialect` is made for each upstream and remembers what it learned of it; a `Hearing` is one piece
of a recording on its way through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.interfaces.engine import AUTO, TranscribeOptions
from sidecar.transcripts.local_voices import LocalVoices
from sidecar.transcripts.transcript import Notice, Segment
from sidecar.upstream.trouble import Trouble

FLAC = "audio/flac"


@dataclass(frozen=True, slots=True)
class Call:
    """A request: a JSON body, or a form with the audio as its one file."""

    path: str
    fields: Mapping[str, str | list[str]] = field(default_factory=dict)
    file_field: str = "file"
    body: bytes | None = None
    streams: bool = False
    """The answer comes bit by bit: a long silence in it means trouble."""
    accept: str = "*/*"
    """The form of the answer that is asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server heard in a piece; times in seconds from the piece's begin.

    ``timed``: whether it said when; without, there is one segment over all of it. ``diarized``:
    whether it told speakers apart. ``precision`` and ``language``: 'auto' where it did not say.
    ``ignored``: options that it cannot follow. ``local_voices``: what it says of the piece's
    voices, where it was asked for that; nothing of it is believed yet.
    """

    segments: tuple[Segment, ...]
    timed: bool = True
    diarized: bool = False
    language: str = AUTO
    precision: str = AUTO
    notices: tuple[Notice, ...] = ()
    ignored: tuple[str, ...] = ()
    local_voices: LocalVoices | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes at once: seconds, and bytes as they are sent (``growth``: by how much
    the encoding in the request makes them more)."""

    seconds: float
    bytes: int
    growth: float = 1.0

    def longest_s(self, rate: int) -> float:
        """Seconds of 16-bit sound at ``rate`` that are surely within both."""
        return min(self.seconds, self.bytes / self.growth / (2 * rate))


class Hearing(Protocol):
    """A piece on its way: asked for, once or several times, until there is an answer."""

    def call(self, sound: bytes) -> Call:
        """The request to send now; ``sound`` is the piece as flac. What was read before and not
        ended is forgotten, except where the server can go on from it."""

    def feed(self, data: bytes) -> list[Segment]:
        """More of the answer; the segments that are known by now.

        Raises:
            Trouble: the answer is none.
        """

    def finish(self) -> Answer:
        """The answer is over.

        Raises:
            Trouble: it broke off, or is none, or has to be asked for again.
        """

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> Trouble:
        """What another status than 200 means."""


class Dialect(Protocol):
    """One server's way of speaking."""

    name: str
    health: str
    """Where it tells how it is."""
    rate: int
    """Hz that its model hears at."""
    limits: Limits
    prompt: bool
    """Whether it says how it is at once, whatever it works on."""
    timed: bool
    """Whether it says when things are said, as far as is known."""
    surely_timed: bool
    """Whether that is known before the first answer."""
    voices: bool
    """Whether it says what the voices of a piece are like (`transcripts.local_voices`), for who
    tells them apart over a whole recording; no server is asked that does not offer it."""

    @property
    def alike(self) -> str:
        """Servers of the same such name go on with each other's answers; '' where none can."""

    @property
    def diarizes(self) -> bool:
        """Whether it tells speakers apart."""

    def hearing(self, duration_s: float, options: TranscribeOptions) -> Hearing:
        """A piece of ``duration_s`` seconds that is to be heard."""

    def waiting(self, health: bytes) -> int:
        """Recordings that wait there already, by what ``health`` says; 0 where it does not."""

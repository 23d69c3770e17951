"""What the machine wants done, in order. Pure.

Who carries them out does so without waiting between two of one answer: what comes before the first
wait is what an interruption's speed hangs on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from sidecar.conversation.events import Stage
from sidecar.conversation.llm.dialogue import NO_TOOLS, Message, Tools
from sidecar.conversation.told import Told
from sidecar.interfaces.voice import Sound


@dataclass(frozen=True, slots=True)
class Recognise:
    """Make words of the utterance's sound up to ``upto`` and tell them as `Words` that cover it: it
    may be over. Nothing to do for an ear that does so by itself."""

    utterance: int
    upto: float


@dataclass(frozen=True, slots=True)
class Think:
    """Answer ``messages``, token by token, for this turn, or call one of the ``tools``."""

    turn: int
    messages: tuple[Message, ...]
    tools: Tools = NO_TOOLS


@dataclass(frozen=True, slots=True)
class Say:
    """Make sound of ``text``. Of one turn these come in the order of ``piece``, and are to be said
    one after the other; two at most are on their way."""

    turn: int
    piece: int
    text: str


@dataclass(frozen=True, slots=True)
class Emit:
    """Sound of the turn to be heard behind all of it before."""

    turn: int
    piece: int
    sound: Sound


@dataclass(frozen=True, slots=True)
class Pause:
    """Hold the turn's sound where it is: nothing is lost, and what comes of it waits as well."""

    turn: int


@dataclass(frozen=True, slots=True)
class Resume:
    """The turn's sound goes on."""

    turn: int


@dataclass(frozen=True, slots=True)
class Hush:
    """Drop all of the turn's sound that is not with the client, and have the client drop the rest
    if it can."""

    turn: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Nobody waits for that stage of the turn any more."""

    turn: int
    stage: Stage


@dataclass(frozen=True, slots=True)
class Attend:
    """What counts as speech from here on: add ``threshold`` to the usual probability, and ask for
    ``speech_s`` seconds of it before a reply is held."""

    threshold: float
    speech_s: float


@dataclass(frozen=True, slots=True)
class Tell:
    """For the client."""

    told: Told


@dataclass(frozen=True, slots=True)
class WakeAt:
    """A `Tick` is wanted at that time, if nothing else happens before; the last one counts, and
    None means that none is."""

    at: float | None


Command: TypeAlias = (
    Recognise | Think | Say | Emit | Pause | Resume | Hush | Stop | Attend | Tell | WakeAt
)

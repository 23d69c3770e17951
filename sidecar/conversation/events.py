"""What happens in a conversation, as the machine is told of it. Pure.

``at`` is when it happened, in seconds on whichever clock the caller goes by, as long as it is the
same for all. What comes of a person's speech has the number of its ``utterance``: the ear counts
them, from the first word to a pause as long as the ear likes; one whose pause was too short for an
end goes on under its number. What comes of a stage has the number of the ``turn`` that it works
for, and is dropped if that is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from sidecar.conversation.llm.dialogue import Fragment, Role
from sidecar.conversation.options import TalkOptions
from sidecar.errors import SidecarError
from sidecar.interfaces.voice import Sound

UNKNOWN = -1
"""No utterance's number."""


class Stage(StrEnum):
    """Who works for a turn."""

    RECOGNISER = "recogniser"
    THINKER = "thinker"
    VOICE = "voice"


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody speaks, since ``began``: an utterance begins, or goes on after a pause."""

    at: float
    utterance: int
    began: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Nobody speaks since ``ended``. To be told as soon as it is known, 0.1 s later at best: how
    long a pause ends a turn is decided here."""

    at: float
    utterance: int
    ended: float


@dataclass(frozen=True, slots=True)
class Words:
    """What an utterance seems to say, all of it; ``upto``: its sound up to there was heard. Words
    that cover all up to where it stopped are settled, unless it goes on."""

    at: float
    utterance: int
    text: str
    upto: float


@dataclass(frozen=True, slots=True)
class Alike:
    """An utterance's sound so far is so like what was played then, from 0 to 1 (`evidence`): to be
    told before its words."""

    at: float
    utterance: int
    likeness: float


@dataclass(frozen=True, slots=True)
class Committed:
    """The client says that the person's turn is over: no patience."""

    at: float


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The client does not want what was said and is not answered yet."""

    at: float


@dataclass(frozen=True, slots=True)
class Typed:
    """A person's turn as text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that belongs into the history and wants no answer; the client calls it
    ``name``."""

    at: float
    role: Role
    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Returned:
    """What came of a call, by its id; the client calls that ``name``. It wants no answer yet."""

    at: float
    call: str
    output: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The entry of that number does not belong into the history."""

    at: float
    entry: int


@dataclass(frozen=True, slots=True)
class Asked:
    """The client wants an answer to the history as it is, if it likes by other ``options``."""

    at: float
    options: TalkOptions | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """More of the reply: some characters."""

    at: float
    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class Calling:
    """The thinker calls a tool: some of that call."""

    at: float
    turn: int
    fragment: Fragment


@dataclass(frozen=True, slots=True)
class Voiced:
    """More sound of a piece that was to be said."""

    at: float
    turn: int
    piece: int
    sound: Sound


@dataclass(frozen=True, slots=True)
class StageEnded:
    """The thinker has nothing more to say; or the voice has made all sound of ``piece``."""

    at: float
    turn: int
    stage: Stage
    piece: int = 0


@dataclass(frozen=True, slots=True)
class StageFailed:
    """A stage gave up. ``turn`` is the utterance's number if it was the recogniser, `UNKNOWN` where
    what it could not hear may have been none."""

    at: float
    turn: int
    stage: Stage
    error: SidecarError


@dataclass(frozen=True, slots=True)
class Played:
    """``seconds`` of the turn's sound have been heard by now, in all. To be told before whatever
    may interrupt (speech, words, a tick), so that the history is right to the word."""

    at: float
    turn: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Truncated:
    """The client says that ``seconds`` of that turn's sound were heard and no more; if it goes on,
    it ends. That counts for more than what was `Played`, but once cut is cut."""

    at: float
    turn: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client does not want to hear the rest."""

    at: float


@dataclass(frozen=True, slots=True)
class Reset:
    """A conversation from the beginning."""

    at: float


@dataclass(frozen=True, slots=True)
class Configured:
    """From here on otherwise; what goes on is finished as it was begun."""

    at: float
    options: TalkOptions


@dataclass(frozen=True, slots=True)
class Tick:
    """It is as late as ``at``: `WakeAt` asked for this."""

    at: float


TalkEvent: TypeAlias = (
    SpeechStarted
    | SpeechStopped
    | Words
    | Alike
    | Committed
    | Forgotten
    | Typed
    | Noted
    | Returned
    | Dropped
    | Asked
    | Token
    | Calling
    | Voiced
    | StageEnded
    | StageFailed
    | Played
    | Truncated
    | Cancelled
    | Reset
    | Configured
    | Tick
)

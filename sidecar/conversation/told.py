"""What a client is told of a conversation, for each wire to put into its own words. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from sidecar.conversation.llm.dialogue import Call, Role
from sidecar.errors import SidecarError
from sidecar.transcripts.transcript import Notice


class Phase(StrEnum):
    """What a conversation is doing."""

    IDLE = "idle"
    LISTENING = "listening"
    """Somebody speaks."""
    TRANSCRIBING = "transcribing"
    """Nobody does, and it is not decided yet whether the turn is over."""
    GENERATING = "generating"
    SYNTHESIZING = "synthesizing"
    """There are words of the reply, and no sound of it."""
    SPEAKING = "speaking"


class Ending(StrEnum):
    """How a reply ended."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    """By voice, or by another turn of the person."""
    CANCELLED = "cancelled"
    """By the client."""
    LIMITED = "limited"
    """It was as long as may be."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Entered:
    """The conversation does something else now."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class PersonStarted:
    """A person's turn begins, with that utterance. Over a reply this is told only once that is
    interrupted."""

    utterance: int
    began: float


@dataclass(frozen=True, slots=True)
class PersonSaying:
    """What the person seems to have said so far in this turn."""

    text: str


@dataclass(frozen=True, slots=True)
class PersonStopped:
    """The person's turn is over: since ``ended`` nobody spoke, and that ``utterance`` was its
    last."""

    ended: float
    utterance: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class PersonSaid:
    """What the person said, as it stands in the history by the number of ``entry``; ``typed``: not
    aloud. ``backchannel``: from when to when it was said over a reply, which it did not interrupt;
    it is not answered."""

    text: str
    typed: bool = False
    entry: int = field(default=0, compare=False)
    backchannel: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the client put into the history, by the number of ``entry`` there; ``name`` is what the
    client calls it."""

    entry: int
    role: Role
    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class NothingSaid:
    """What began as a person's turn was none: a noise, an echo (``echo``), or the client forgot
    it."""

    echo: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    """The turn is being answered, aloud if ``voiced``; its place in the history is ``entry``."""

    turn: int
    voiced: bool = field(default=True, compare=False)
    entry: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ReplyWritten:
    """More of the reply's text, as it is to be shown."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    """The turn calls a tool by that name; the call has an id."""

    turn: int
    call: str
    name: str


@dataclass(frozen=True, slots=True)
class CallWritten:
    """More of that call's arguments."""

    turn: int
    call: str
    text: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """All of a call is there: it is to be carried out, and what comes of it is waited for. It
    stands in the history as ``entry``. One that has not got so far when its reply ends is none."""

    turn: int
    call: Call
    entry: int = 0


@dataclass(frozen=True, slots=True)
class ReplySpoken:
    """Sound of that piece begins to go out; ``text`` is what the voice makes of it."""

    turn: int
    piece: int
    text: str


@dataclass(frozen=True, slots=True)
class Latency:
    """Where the time went before a reply was heard, in seconds.

    ``endpoint``: from the person's last sound to the decision that the turn is over;
    ``recognised``: how long words took once they were wanted; ``thought``: to the thinker's first
    words; ``voiced``: to the voice's first sound; ``total``: from the person's last sound to the
    first sound of the reply. Zero where there was none of it.
    """

    turn: int
    endpoint: float = 0.0
    recognised: float = 0.0
    thought: float = 0.0
    voiced: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """Nothing more comes of the turn. ``text`` is what stands in the history: what was heard;
    ``heard_s`` of ``made_s`` seconds of sound were."""

    turn: int
    ending: Ending
    text: str
    heard_s: float
    made_s: float


@dataclass(frozen=True, slots=True)
class ReplyTruncated:
    """So much was heard of a turn as the client says; ``text`` stands in the history now, nothing
    of a turn that is forgotten."""

    turn: int
    seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong; the conversation goes on. ``turn`` is 0 where it was no reply's."""

    turn: int
    error: SidecarError


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something is not as it should be, and nothing is lost by it."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class Began:
    """The conversation begins, again after a reset."""


Told: TypeAlias = (
    Entered
    | PersonStarted
    | PersonSaying
    | PersonStopped
    | PersonSaid
    | Recorded
    | NothingSaid
    | ReplyStarted
    | ReplyWritten
    | CallStarted
    | CallWritten
    | CallEnded
    | ReplySpoken
    | Latency
    | ReplyEnded
    | ReplyTruncated
    | Failed
    | Noticed
    | Began
)

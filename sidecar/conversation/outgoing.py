"""What goes to a client, in order: what it is told, the sound, and how far things are. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from sidecar.conversation.pacing import Frame
from sidecar.conversation.told import Ending, Told


@dataclass(frozen=True, slots=True)
class Clear:
    """The client is to drop what it has of that turn's sound."""

    turn: int


@dataclass(frozen=True, slots=True)
class Hold:
    """The client is to stop that turn's sound where it is, and to keep it."""

    turn: int


@dataclass(frozen=True, slots=True)
class Release:
    """That turn's sound goes on."""

    turn: int


@dataclass(frozen=True, slots=True)
class Sent:
    """All of that turn is with the client, though some of it may still have to be heard; it will
    end like that. Where that is all the same, `ReplyEnded` alone is told."""

    turn: int
    ending: Ending


@dataclass(frozen=True, slots=True)
class TurnTaken:
    """What the client committed was heard: what of it was words is told."""


@dataclass(frozen=True, slots=True)
class TurnDropped:
    """What the client did not want is forgotten."""


@dataclass(frozen=True, slots=True)
class Over:
    """The client has asked for the end: nothing comes behind this."""


Out: TypeAlias = Told | Frame | Clear | Hold | Release | Sent | TurnTaken | TurnDropped | Over

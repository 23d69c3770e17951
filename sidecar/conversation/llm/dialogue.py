"""What two say to each other, as language models are told of it, and their calls of tools. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias


class Role(StrEnum):
    """Whose words they are, by the names that language models know."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    """What came of a call."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool: ``arguments`` are JSON as the model wrote it, which may be none."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of what a language model is told. ``calls``: what the machine asked for then;
    ``call``: the id of the one whose result this is."""

    role: Role
    text: str
    calls: tuple[Call, ...] = ()
    call: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a client has: ``parameters`` is a JSON schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None


class Choice(StrEnum):
    """Whether a model is to call tools."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Tools:
    """What a model may call; ``named`` is the one that it has to, or ''."""

    all: tuple[Tool, ...] = ()
    choice: Choice = Choice.AUTO
    named: str = ""


NO_TOOLS = Tools()


@dataclass(frozen=True, slots=True)
class Fragment:
    """Some of a call, as a model writes it: ``index`` tells several of one answer apart, ``id`` and
    ``name`` come with the first of each, and ``arguments`` go on from those before."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


Piece: TypeAlias = str | Fragment
"""Of an answer: some characters, or some of a call."""

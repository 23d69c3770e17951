"""What a thinker is, and the one that needs nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from sidecar import errors
from sidecar.conversation.llm.dialogue import NO_TOOLS, Message, Piece, Role, Tools

REPEAT = "repeat"
"""The name of who has no model, in settings and wherever one is chosen."""
REPEATS = "You said:"


class Thinker(Protocol):
    """Answers a conversation. Leaving `reply` early stops the work."""

    @property
    def name(self) -> str:
        """Who it is, for people."""

    @property
    def calls(self) -> bool:
        """Whether it may call tools, as far as anybody knows."""

    async def ready(self) -> None:
        """Have it ready for what comes, as far as that can be had; a conversation begins.

        Raises:
            errors.LlmError: it will not answer.
        """

    async def models(self) -> tuple[str, ...]:
        """The names of what may answer there, its own choice first.

        Raises:
            errors.LlmError: it does not say.
        """

    def other(self, model: str) -> Thinker:
        """Another of its `models`."""

    def reply(
        self, messages: Sequence[Message], tools: Tools = NO_TOOLS
    ) -> AsyncGenerator[Piece, None]:
        """The answer to the last of ``messages``, some characters at a time, or some of a call of
        one of the ``tools``.

        Raises:
            errors.LlmError: it did not answer, or not to the end.
            errors.ToolsUnavailable: it calls none.
        """

    async def close(self) -> None:
        """Let go of what it has open."""


class Repeat:
    """Says what it heard, and says that it does: where there is no model, there is no chatting."""

    name = REPEAT
    calls = False

    async def ready(self) -> None:
        """It is."""

    async def models(self) -> tuple[str, ...]:
        """Itself."""
        return (REPEAT,)

    def other(self, model: str) -> Repeat:
        """There is one."""
        return self

    async def reply(
        self, messages: Sequence[Message], tools: Tools = NO_TOOLS
    ) -> AsyncGenerator[Piece, None]:
        """What the person said last, a word at a time.

        Raises:
            errors.ToolsUnavailable: who repeats calls no tools.
        """
        if tools.all:
            raise errors.ToolsUnavailable()
        last = next((one.text for one in reversed(messages) if one.role is Role.USER), "")
        for word in f"{REPEATS} {last}".split():
            yield f"{word} "

    async def close(self) -> None:
        """Nothing is open."""

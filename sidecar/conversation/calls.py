"""The calls of tools that a thinker makes in one turn, as they grow. Pure.

A call is told as it is written, and is one once it is told to its end: until then nobody carries it
out, and an answer that is broken off before takes it along.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sidecar.conversation.llm.dialogue import Call, Fragment
from sidecar.conversation.told import CallEnded, CallStarted, CallWritten
from sidecar.errors import LlmGarbled

MOST = 16
"""Calls of one answer."""
MOST_CHARACTERS = 32_768
"""Of the arguments of all of them."""


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    arguments: str = ""


class Calls:
    """Those of turn ``number``; ``taken`` says whether an id is another call's already."""

    def __init__(self, number: int, taken: Callable[[str], bool]) -> None:
        self._number, self._taken = number, taken
        self._calls: dict[int, _Call] = {}
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def feed(self, fragment: Fragment) -> Iterator[CallStarted | CallWritten]:
        """More of one.

        Raises:
            LlmGarbled: it is one without a name, or there is no end of them.
        """
        call = self._calls.get(fragment.index)
        if call is None:
            if not fragment.name or len(self._calls) == MOST:
                raise LlmGarbled("It calls a tool without a name, or too many of them.")
            call = self._calls[fragment.index] = _Call(self._new_id(fragment.id), fragment.name)
            yield CallStarted(self._number, call.id, call.name)
        if fragment.arguments:
            self._size += len(fragment.arguments)
            if self._size > MOST_CHARACTERS:
                raise LlmGarbled("It calls a tool with arguments that have no end.")
            call.arguments += fragment.arguments
            yield CallWritten(self._number, call.id, fragment.arguments)

    def end(self) -> Iterator[CallWritten | CallEnded]:
        """All of them are there.

        Raises:
            LlmGarbled: the arguments of one are no JSON.
        """
        for call in self._calls.values():
            if not call.arguments.strip():  # some models write nothing where there are none
                call.arguments += "{}"
                yield CallWritten(self._number, call.id, "{}")
            if not _is_object(call.arguments):
                raise LlmGarbled(
                    f"It calls '{call.name[:80]}' with arguments that are no JSON.",
                    hint="They may have been cut: VIBEVOICE_LLM_MAX_TOKENS is of a whole answer.",
                )
        for call in self._calls.values():
            yield CallEnded(self._number, Call(call.id, call.name, call.arguments))

    def _new_id(self, given: str) -> str:
        """The server's own, for it gets it back, unless another call has it."""
        used = {call.id for call in self._calls.values()}
        name = given[:64] or f"call_{self._number}_{len(used)}"
        while name in used or self._taken(name):
            name = f"call_{self._number}_{len(used)}" if name == given[:64] else f"{name}_"
        return name


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False

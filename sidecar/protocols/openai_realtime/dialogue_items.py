"""What a conversation is made of, as its client knows it: items by their ids, in order. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sidecar import errors
from sidecar.conversation.llm.dialogue import Role

Said = dict[str, Any]
"""An event, without its number, or a part of one."""


@dataclass(eq=False, slots=True)
class Item:
    """One of them: what ``role`` said, aloud or not. ``entry`` is its number in the history and
    ``turn`` that of a reply, 0 where there is none; of a reply ``sent_s`` seconds of sound are with
    the client. ``status`` is as clients read it, ``index`` its place in its answer.

    With a ``call`` it is that call of the tool ``name``, and ``text`` its arguments; or what came
    of it, where it ``returned``.
    """

    id: str
    role: Role
    aloud: bool = False
    text: str = ""
    status: str = "completed"
    entry: int = 0
    turn: int = 0
    sent_s: float = 0.0
    index: int = 0
    call: str = ""
    name: str = ""
    returned: bool = False

    @property
    def content(self) -> Said:
        """What it says."""
        way = "output" if self.role is Role.ASSISTANT else "input"
        if self.aloud:
            unknown = None if self.role is Role.USER else ""
            return {"type": f"{way}_audio", "transcript": self.text or unknown}
        return {"type": f"{way}_text", "text": self.text}

    def view(self, *, empty: bool = False) -> Said:
        """As clients read it; ``empty``: before there is anything in it."""
        known = {"id": self.id, "object": "realtime.item", "status": self.status}
        if self.returned:
            return known | {
                "type": "function_call_output",
                "call_id": self.call,
                "output": self.text,
            }
        if self.call:
            return known | {
                "type": "function_call",
                "call_id": self.call,
                "name": self.name,
                "arguments": "" if empty else self.text,
            }
        content = [] if empty else [self.content]
        return known | {"type": "message", "role": self.role.value, "content": content}


class Items:
    """Those of one conversation; ``prefix`` begins the ids that the service gives. Of more than
    ``most`` the oldest are let go of."""

    def __init__(self, prefix: str, most: int) -> None:
        self._prefix, self._most = prefix, most
        self._count = 0
        self._all: dict[str, Item] = {}
        self.last: str | None = None
        """The id of the newest."""

    def new_id(self) -> str:
        """One that was not given yet."""
        self._count += 1
        return f"item_{self._prefix}_{self._count}"

    def add(self, item: Item) -> str | None:
        """One more, behind all; the id of the one before it."""
        before, self.last = self.last, item.id
        self._all[item.id] = item
        if len(self._all) > self._most:
            del self._all[next(iter(self._all))]
        return before

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def find(self, name: str) -> Item:
        """The one of that id.

        Raises:
            errors.ItemUnknown: there is none.
        """
        if name not in self._all:
            raise errors.ItemUnknown(f"The conversation has no item '{name}'.")
        return self._all[name]

    def reply(self, turn: int) -> Item | None:
        """What was said in that turn."""
        return next((item for item in self._all.values() if item.turn == turn), None)

    def drop(self, item: Item) -> None:
        """It is no part any more."""
        self._all.pop(item.id, None)
        if self.last == item.id:
            self.last = next(reversed(self._all), None)

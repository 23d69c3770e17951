"""Server events and conversation items of the Realtime API. Pure.

Times are in milliseconds if a name ends in ``_ms``, else in seconds, on the session's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sidecar import errors
from sidecar.conversation.chat_completions import ChatRole
from sidecar.protocols.openai_common import error_body

FIRST = "root"
"""Name of the position before the first item."""
EventBody: TypeAlias = dict[str, Any]
"""Event without its id, or a part of an event."""


def input_event(what: str, **fields: Any) -> EventBody:
    """Return an event of the input audio: ``speech_started``, ``committed``, ``cleared``, …"""
    return {"type": f"input_audio_buffer.{what}", **fields}


def speech_started(item: str, at: float) -> EventBody:
    """Return the event that speech starts ``at`` this second."""
    return input_event("speech_started", audio_start_ms=round(at * 1000), item_id=item)


def speech_stopped(item: str, at: float) -> EventBody:
    """Return the event that speech stops ``at`` this second."""
    return input_event("speech_stopped", audio_end_ms=round(at * 1000), item_id=item)


def transcription_event(what: str, item: str, **fields: Any) -> EventBody:
    """Return an event of a turn's transcript: a ``delta`` (its words are never revised), a
    ``segment`` of one speaker, or the end."""
    name = f"conversation.item.input_audio_transcription.{what}"
    return {"type": name, "item_id": item, "content_index": 0, **fields}


def transcription_completed(
    item: str, text: str, seconds: float, languages: Sequence[str]
) -> EventBody:
    """Return the event of a turn's complete transcript."""
    return transcription_event(
        "completed",
        item,
        transcript=text,
        languages=[{"code": code} for code in languages],
        usage={"type": "duration", "seconds": round(seconds, 3)},
    )


def transcription_failed(item: str, error: errors.SidecarError) -> EventBody:
    """Return the event that the transcription of a turn failed."""
    return transcription_event("failed", item, error=_body(error))


def error_event(error: errors.SidecarError, event_id: str | None = None) -> EventBody:
    """Return the event of an error, with the id of the client's event that caused it."""
    return {"type": "error", "error": {**_body(error), "event_id": event_id}}


def _body(error: errors.SidecarError) -> dict[str, Any]:
    """Return the body of an error as in a response. The delay before a retry is in its message,
    because OpenAI's events have no field for it."""
    body: dict[str, Any] = error_body(error)["error"]
    body["message"] = f"{error.detail} {error.hint_on('docs/openai.md')}"
    if error.retry_after is not None:
        body["message"] += f" Retry after {error.retry_after} s."
    return body


@dataclass(eq=False, slots=True)
class RealtimeDialogueItem:
    """Item of a conversation: a message of ``role``, spoken if ``aloud``, or a tool call.

    ``entry``: its number in the history; ``turn``: the number of its reply; 0 if it has none.
    ``sent_s``: seconds of a reply's audio that were sent. ``status``: as clients read it.
    ``index``: its position in its response. ``shown``: the words that were sent while they were
    recognized. ``previous``: the id of the item before it, since it was added. ``settled``:
    the transcript of a user's turn, or its failure, was sent.

    With a ``call`` it is that call of the tool ``name``, and ``text`` has the arguments. If it was
    ``returned``, it is the output of that call.
    """

    id: str
    role: ChatRole
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
    shown: str = ""
    previous: str | None = None
    settled: bool = False

    @property
    def content(self) -> EventBody:
        """Return its content part."""
        way = "output" if self.role is ChatRole.ASSISTANT else "input"
        if self.aloud:
            unknown = None if self.role is ChatRole.USER else ""
            return {"type": f"{way}_audio", "transcript": self.text or unknown}
        return {"type": f"{way}_text", "text": self.text}

    @property
    def text_output(self) -> str:
        """Return the name of its text events, below `response`."""
        return f"output_{'audio_transcript' if self.aloud else 'text'}"

    def view(self, *, empty: bool = False) -> EventBody:
        """Return the item as clients read it; ``empty``: without its content."""
        known = {"id": self.id, "object": "realtime.item", "status": self.status}
        if self.returned:
            kind = "function_call_output"
            return known | {"type": kind, "call_id": self.call, "output": self.text}
        if self.call:
            return known | {
                "type": "function_call",
                "call_id": self.call,
                "name": self.name,
                "arguments": "" if empty else self.text,
            }
        content = [] if empty else [self.content]
        return known | {"type": "message", "role": self.role.value, "content": content}


class RealtimeDialogueItems:
    """Items of one conversation; ``prefix`` starts the ids that the service assigns. Beyond
    ``most`` (0: none is kept; else 2 or more) the oldest is dropped, but not a system message at
    the beginning."""

    def __init__(self, prefix: str, most: int) -> None:
        self.prefix, self._most = prefix, most
        self._count = 0
        self._all: dict[str, RealtimeDialogueItem] = {}
        self.last: str | None = None
        """Id of the last item."""

    def new_id(self) -> str:
        """Return an unused id."""
        self._count += 1
        return f"item_{self.prefix}_{self._count - 1}"

    def add(self, item: RealtimeDialogueItem, after: str = "") -> str | None:
        """Add an item after ``after``, or first (`FIRST`), or last if ``after`` is unknown; return
        the id of the item before it."""
        all = list(self._all.values())
        at = [FIRST, *self._all].index(after) if after in (FIRST, *self._all) else len(all)
        item.previous = self.last if at == len(all) else all[at - 1].id if at else None
        if at == len(all):
            self.last = item.id
        kept = [item, *(one for one in all[:1] if one.role is ChatRole.SYSTEM)]
        all.insert(at, item)
        if len(all) > self._most:
            all.remove(next((one for one in all if one not in kept), item))
        self._all = {one.id: one for one in all}
        return item.previous

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def find(self, name: str) -> RealtimeDialogueItem:
        """Return the item of an id.

        Raises:
            errors.ItemUnknown: there is none.
        """
        if name not in self._all:
            raise errors.ItemUnknown(f"The conversation has no item '{name}'.")
        return self._all[name]

    def reply(self, turn: int) -> RealtimeDialogueItem | None:
        """Return the reply of a turn."""
        return next((item for item in self._all.values() if item.turn == turn), None)

    def drop(self, item: RealtimeDialogueItem) -> None:
        """Remove an item."""
        self._all.pop(item.id, None)
        if self.last == item.id:
            self.last = next(reversed(self._all), None)


def item_event(what: str, item: RealtimeDialogueItem, *, empty: bool = False) -> EventBody:
    """Return the event that an item is ``added`` to the conversation or ``done``; ``created`` in
    the beta."""
    view = item.view(empty=empty)
    return {"type": f"conversation.item.{what}", "previous_item_id": item.previous, "item": view}

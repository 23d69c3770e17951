"""The model's list as vLLM streams it, read and watched while it comes. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from sidecar.transcripts.loop_guard import Loop, LoopGuard
from sidecar.transcripts.output import OutputParser
from sidecar.transcripts.transcript import Segment
from sidecar.upstream import trouble
from sidecar.upstream.events import Events

FEW = 4
"""Characters that two pieces of an answer may have in common by chance."""


class Reading:
    """One answer while it comes, from the text that it goes on from."""

    def __init__(
        self, duration_s: float, text: str = "", kept: list[Segment] | None = None
    ) -> None:
        self.segments: list[Segment] = list(kept or ())
        self.parser = OutputParser(duration_s)
        self.parser.feed(text)
        self.usage = 0
        self.length = False
        """Whether it ended because there was no room for more."""
        self._guard = LoopGuard(duration_s, self.segments)
        self._text = text
        self._events = Events()
        self._ended = False

    @property
    def over(self) -> bool:
        """Whether the server said that this was all."""
        return self._events.done or self._ended

    def take(self, data: bytes) -> tuple[list[Segment], Loop | None]:
        """The segments that ``data`` closes, and the loop that it shows."""
        found: list[Segment] = []
        for event in () if self._ended else self._events.feed(data):
            try:
                piece = self._piece(event)
            except trouble.UNREADABLE:
                raise trouble.garbled("has an event that is none") from None
            if not piece:
                continue
            closed = self.parser.feed(piece)
            loop = self._guard.token(zlib.crc32(piece.encode()), self.parser.open_content)
            for segment in closed:
                if loop is None:
                    self.segments.append(segment)
                    found.append(segment)
                    loop = self._guard.segment(segment)
            if loop is not None:
                return found, loop
        return found, None

    def text_until(self, count: int) -> str:
        """The answer up to the brace that closes its ``count``-th segment."""
        return self._text[: self.parser.closed_at[count - 1]] if count else ""

    def end_here(self, count: int) -> None:
        """Take what there is up to the ``count``-th segment for the whole."""
        del self.segments[count:]
        self.parser = OutputParser(None)
        self.parser.feed("[]")
        self._ended = True

    def _piece(self, event: Mapping[str, Any]) -> str:
        """New text of an event; some servers send all of it again each time."""
        if event.get("error"):
            raise trouble.of_error(event["error"])
        self.usage = int((event.get("usage") or {}).get("prompt_tokens") or self.usage)
        piece = ""
        for choice in (event.get("choices") or [])[:1]:
            said = choice.get("delta") or choice.get("message") or {}
            piece = str(said.get("content") or "")
            self.length = self.length or choice.get("finish_reason") == "length"
        if len(self._text) >= FEW and piece.startswith(self._text):
            piece = piece[len(self._text) :]
        self._text += piece
        return piece

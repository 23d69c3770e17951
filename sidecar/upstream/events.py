"""Server-sent events whose data is JSON, out of bytes in any pieces. Pure."""

from __future__ import annotations

import json
from typing import Any

from sidecar.upstream import trouble

LONGEST_LINE = 4 << 20
DONE = b"[DONE]"


class Events:
    """Feed it; ``done`` once the server said that the stream is over.

    A body that is one JSON object and no stream is one event.
    """

    def __init__(self) -> None:
        self.done = False
        self._rest = b""
        self._whole = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The events that ``data`` ends.

        Raises:
            Trouble: what comes is no such stream.
        """
        self._rest += data
        if self._whole or self._rest.lstrip()[:1] == b"{":
            return self._one_object()
        *lines, self._rest = self._rest.split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise trouble.garbled("has a line without end")
        found = []
        for line in lines:
            name, _, value = line.strip().partition(b":")
            if name == b"data" and not self.done:
                if value.strip() == DONE:
                    self.done = True
                else:
                    found.append(_object(value))
            elif name and name not in (b"event", b"id", b"retry", b"data"):
                raise trouble.garbled("is no stream of events")
        return found

    def _one_object(self) -> list[dict[str, Any]]:
        self._whole = True
        try:
            event = json.loads(self._rest)
        except (ValueError, RecursionError):
            if len(self._rest) > LONGEST_LINE:
                raise trouble.garbled("is no JSON") from None
            return []
        self.done, self._rest = True, b""
        return [event]


def _object(value: bytes) -> dict[str, Any]:
    try:
        event = json.loads(value)
    except (ValueError, RecursionError):
        raise trouble.garbled("is no JSON") from None
    if not isinstance(event, dict):
        raise trouble.garbled("has an event that is no object")
    return event

"""A deadline for the head of a request: uvicorn has none, and half-open ones would pile up.

The body has one of its own (`upload_stall`), which knows whether bytes still come. And one for
answers: who reads nothing of one for `UNREAD_S` is not there any more, whatever TCP says.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from h11 import _readers
from uvicorn.protocols.http.h11_impl import H11Protocol

from sidecar.transports.http.unread import UNREAD_S, Unread

_FIELD = re.compile(
    rb"(?P<field_name>[-!#$%&'*+.^_`|~0-9a-zA-Z]+):[ \t]*+"
    rb"(?P<field_value>(?:[^\x00\s]++(?:[ \t]++[^\x00\s]++)*+)?)[ \t]*+"
)
"""A header or trailer as h11 reads it. h11's own expression means the same and backtracks: 80,000
spaces before a NUL take it 13 s of the event loop, before anybody is asked who it is."""


def with_deadline(seconds: float, unread_s: float = UNREAD_S) -> type[asyncio.Protocol]:
    """uvicorn's protocol, closing connections whose request's head is not there in time, or whose
    answer nobody takes. All of h11 in this process reads headers in linear time from then on."""
    _readers.header_field_re = _FIELD

    class Timed(Unread, H11Protocol):
        """A clock from the first byte of a connection, or of its next request, to the end of the
        head; h11 hands a request to a cycle then."""

        _clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start()

        def data_received(self, data: bytes) -> None:
            if self._clock is None and not self._answering:
                self._start()
            super().data_received(data)
            if self._answering:
                self._stop()

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._stop()  # from here on it is no request, and its wire has clocks of its own
            super().handle_websocket_upgrade(event)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        @property
        def _answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _start(self) -> None:
            self._clock = self.loop.call_later(seconds, self._late)

        def _stop(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

        def _late(self) -> None:
            self._clock = None
            if not self._answering and self.transport is not None:
                self.transport.close()

    Timed.unread_s = unread_s
    return Timed

"""A deadline for the head of a request: uvicorn has none, and half-open ones would pile up.

The body has one of its own (`upload_stall`), which knows whether bytes still come. And one for
answers: who reads nothing of one for `UNREAD_S` is not there any more, whatever TCP says.

Nobody has said who it is before the head of a request: until then, and between requests,
connections are counted by address. WebSockets leave with their upgrade; they have an owner.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any

from h11 import _readers
from uvicorn.protocols.http.h11_impl import H11Protocol

from sidecar.api.http.unread import UNREAD_S, Unread
from sidecar.auth.limits import address_key

OF_ADDRESS = 10_000
"""Connections of one address, which may be a proxy's with all its clients."""
_FIELD = re.compile(
    rb"(?P<field_name>[-!#$%&'*+.^_`|~0-9a-zA-Z]+):[ \t]*+"
    rb"(?P<field_value>(?:[^\x00\s]++(?:[ \t]++[^\x00\s]++)*+)?)[ \t]*+"
)
"""A header or trailer as h11 reads it. h11's own expression means the same and backtracks: 80,000
spaces before a NUL take it 13 s of the event loop, before anybody is asked who it is."""


def with_deadline(
    seconds: float, unread_s: float = UNREAD_S, most: int = OF_ADDRESS
) -> type[asyncio.Protocol]:
    """uvicorn's protocol, closing connections whose request's head is not there in time, or whose
    answer nobody takes, and those beyond ``most`` of one address. All of h11 in this process reads
    headers in linear time from then on."""
    _readers.header_field_re = _FIELD
    addresses = Counter[str]()

    class Timed(Unread, H11Protocol):
        """A clock from the first byte of a connection, or of its next request, to the end of the
        head; h11 hands a request to a cycle then."""

        _clock: asyncio.TimerHandle | None = None
        _address: str | None = None
        """By which it is counted."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start()
            if self.client is not None:
                self._address = address_key(self.client[0])
                addresses[self._address] += 1
                if addresses[self._address] > most:
                    transport.abort()

        def data_received(self, data: bytes) -> None:
            if self._clock is None and not self._answering:
                self._start()
            super().data_received(data)
            if self._answering:
                self._stop()

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._stop()  # from here on it is no request, and its wire has clocks of its own
            self._uncount()
            super().handle_websocket_upgrade(event)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            self._uncount()
            super().connection_lost(exc)

        @property
        def _answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _uncount(self) -> None:
            if self._address is not None:
                addresses[self._address] -= 1
                if not addresses[self._address]:
                    del addresses[self._address]
                self._address = None

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

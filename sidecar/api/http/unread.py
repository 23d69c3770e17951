"""A peer that takes nothing of what is sent is not there any more, whatever TCP says."""

from __future__ import annotations

import asyncio

UNREAD_S = 60.0
"""To take what lies in the connection's buffers; they hold seconds of any network."""


class Unread(asyncio.Protocol):
    """A clock while a peer takes nothing; before a protocol of uvicorn's."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    unread_s = UNREAD_S
    _unread: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The buffers are full."""
        super().pause_writing()
        self._taken()
        self._unread = self.loop.call_later(self.unread_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The peer has taken enough of them."""
        self._taken()
        super().resume_writing()

    def _taken(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

"""What a client sends, read no further than somebody wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from sidecar import errors
from sidecar.protocols.wyoming.frames import HINT, LONGEST_LINE, Event, head_of

PIECE = 64 << 10


class Gone(Exception):
    """The client hung up."""


class Ended(Gone):
    """The client has closed its side between two events: it sends no more, and may still read."""


class Incoming:
    """The events of a connection, one after the other, each with its payload."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._ahead: asyncio.Task[Event] | None = None

    def ahead(self) -> asyncio.Task[Event]:
        """The next event, on its way or there. `next` gives the same."""
        if self._ahead is None:
            self._ahead = asyncio.get_running_loop().create_task(self._read())
        return self._ahead

    async def next(self, patience_s: float | None) -> Event:
        """The next event.

        Raises:
            Gone, Ended: there is none.
            TimeoutError: it has not come in ``patience_s`` seconds.
            errors.MessageInvalid, errors.MessageTooBig: it is none.
        """
        reading = self.ahead()
        try:
            async with asyncio.timeout(patience_s):
                return await reading
        finally:
            self._ahead = None

    async def payload(self, size: int, patience_s: Callable[[], float]) -> AsyncIterator[bytes]:
        """The payload of the event that was read, piece by piece; ``patience_s`` says how long each
        is waited for.

        Raises:
            Gone, TimeoutError: it ends too soon, or stops.
        """
        while size:
            async with asyncio.timeout(patience_s()):
                piece = await self._reader.read(min(size, PIECE))
            if not piece:
                raise Gone
            size -= len(piece)
            yield piece

    async def drop(self, most: int) -> None:
        """Read what comes and forget it, until nothing more does or it is too much."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.wait({self._ahead})
        while most > 0 and (piece := await self._reader.read(PIECE)):
            most -= len(piece)

    def close(self) -> None:
        """Nobody reads any more."""
        ahead = self._ahead
        if ahead is not None and not ahead.cancel() and not ahead.cancelled():
            ahead.exception()  # it was seen, and is nobody's trouble

    async def _read(self) -> Event:
        try:
            line = await self._reader.readline()
            if not line:
                raise Ended
            if not line.endswith(b"\n"):
                raise Gone
            head = head_of(line)
            return head.whole(await self._reader.readexactly(head.more))
        except ValueError:
            raise errors.MessageTooBig(
                f"The line of an event is longer than {LONGEST_LINE} bytes.", hint=HINT
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Gone from None

"""Queue of the messages of a connection, which is read on meanwhile: pings are answered at once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

INBOUND_BYTES = 16 << 20
"""Size of the waiting messages of a connection from which it is not read: six minutes of 16 kHz in
base64."""
MESSAGE_COST_BYTES = 512
"""Bytes that a waiting message takes besides its own."""


class InboundQueue:
    """Queue of received messages, bounded in size."""

    def __init__(self, most_bytes: int = INBOUND_BYTES) -> None:
        self._most_bytes = most_bytes
        self._waiting = asyncio.Queue[tuple[Any, int]]()
        self._bytes = 0
        self._taken = asyncio.Event()

    async def put(self, message: Any, size: int = 0) -> None:
        """Add a message, or what the protocol parsed from one of ``size`` bytes; wait while the
        queue is full. It takes one message however large that is."""
        while self._bytes and self._bytes + size > self._most_bytes:
            self._taken.clear()
            await self._taken.wait()
        size += MESSAGE_COST_BYTES
        self._waiting.put_nowait((message, size))
        self._bytes += size

    def clear(self) -> None:
        """Drop the waiting messages."""
        while not self._waiting.empty():
            self._take(self._waiting.get_nowait())

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the messages in order, for ever."""
        while True:
            yield self._take(await self._waiting.get())

    def _take(self, waiting: tuple[Any, int]) -> Any:
        message, size = waiting
        self._bytes -= size
        self._taken.set()
        return message

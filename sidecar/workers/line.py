"""The service's end of the line to a worker: frames go out and come in, and nobody waits in vain.

Either side may be slow. What the socket does not hold at the moment waits here and goes out as the
worker reads; a worker that says more than anybody reads is read no further.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, cast

from sidecar.workers import channel

UNREAD_LIMIT = 1 << 20
"""Bytes that may have come in and not been asked for; beyond, the worker has to wait. A single
frame may be larger (`channel.FRAME_LIMIT`)."""
FULL_PAUSE_S = 0.002
"""Between two looks whether a full socket takes open files again."""


class Line(asyncio.Protocol):
    """One channel, one reader and one writer at a time. Made by `on`; closed by `close`."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self._sock, self._pid = sock, pid
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._closed: channel.ChannelClosed | None = None
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @classmethod
    async def on(cls, sock: socket.socket, pid: int) -> Line:
        """The line to the process ``pid``, over ``sock``.

        Raises:
            OSError: the socket is gone.
        """
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(lambda: cls(sock, pid), sock=sock)
        return line

    async def send(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        """Send a message with up to `channel.MOST_FILES` open files: all of it, or if this is
        cancelled nothing.

        Raises:
            channel.ChannelClosed: the other side is gone.
        """
        frame, beside = channel.with_files(message, fds, self._pid)
        sent = 0
        while beside and not sent:
            await self._written()
            try:
                sent = socket.send_fds(self._sock, [frame], beside)
            except BlockingIOError:
                await asyncio.sleep(FULL_PAUSE_S)
            except OSError as error:
                raise channel.ChannelClosed(str(error)) from None
        self._write(memoryview(frame)[sent:])

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message, behind what is still on its way; one to nobody is lost."""
        self._write(memoryview(channel.encode(message)))

    async def frame(self) -> dict[str, Any]:
        """The next frame.

        Raises:
            channel.ChannelClosed: there will be none.
        """
        while True:
            self._news.clear()
            if (frame := self._taken()) is not None:
                return frame
            if self._closed is not None:
                raise self._closed
            if self._transport is not None:
                self._transport.resume_reading()
            await self._news.wait()

    def close(self) -> None:
        """Say and hear no more; what has not gone out is dropped."""
        self._closed = self._closed or channel.ChannelClosed("closed")
        if self._transport is not None:
            self._transport.abort()

    async def _written(self) -> None:
        """Until what was said before has gone out; open files go past what waits here."""
        await self._empty.wait()
        if self._closed is not None:
            raise self._closed

    def _taken(self) -> dict[str, Any] | None:
        try:
            return channel.take_frame(self._data)
        except channel.ChannelClosed as error:
            self._closed = error
            self._data.clear()
            self.close()
            return None

    def _write(self, data: memoryview) -> None:
        if self._transport is not None and self._closed is None and data:
            self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: reading begins."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(0)

    def pause_writing(self) -> None:
        """asyncio: the socket is full."""
        self._empty.clear()

    def resume_writing(self) -> None:
        """asyncio: all is on its way."""
        self._empty.set()

    def data_received(self, data: bytes) -> None:
        """asyncio: take in what came, whole frames or not."""
        self._data += data
        if len(self._data) >= UNREAD_LIMIT and self._transport is not None:
            self._transport.pause_reading()
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the other side is gone."""
        self._closed = self._closed or channel.ChannelClosed(str(exc or "end of stream"))
        self._empty.set()
        self._news.set()

"""The service's end of the line to a worker: frames go out and come in, and nobody waits in vain.

What the socket does not hold at the moment waits here and goes out as the worker reads. What comes
in is handed on at once: how much that may be is agreed call by call (`workers.credit`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

from sidecar.workers import channel

FULL_PAUSE_S = 0.002
"""Between two looks whether a full socket takes open files again."""


class Line(asyncio.Protocol):
    """One channel. Made by `on`; closed by `close`, after which nothing is ``heard`` any more and
    ``lost`` is called, as it is when the other side goes."""

    def __init__(
        self,
        sock: socket.socket,
        pid: int,
        heard: Callable[[channel.Frame], None],
        lost: Callable[[channel.ChannelClosed], None],
    ) -> None:
        self._sock, self._pid = sock, pid
        self._heard, self._lost = heard, lost
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._closed: channel.ChannelClosed | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    @classmethod
    async def on(
        cls,
        sock: socket.socket,
        pid: int,
        heard: Callable[[channel.Frame], None],
        lost: Callable[[channel.ChannelClosed], None],
    ) -> Line:
        """The line to the process ``pid``, over ``sock``.

        Raises:
            OSError: the socket is gone.
        """
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(lambda: cls(sock, pid, heard, lost), sock=sock)
        return line

    async def send(
        self, message: dict[str, Any], fds: Sequence[int] = (), raw: bytes = b""
    ) -> None:
        """Send a message, behind all that was said before, with up to `channel.MOST_FILES` open
        files: all of it, or if this is cancelled nothing.

        Raises:
            channel.ChannelClosed: the other side is gone.
        """
        frame, beside = channel.with_files(message, fds, self._pid, raw)
        sent = 0
        await self._written()
        while beside and not sent:
            try:
                sent = socket.send_fds(self._sock, [frame], beside)
            except BlockingIOError:
                await asyncio.sleep(FULL_PAUSE_S)
                await self._written()
            except OSError as error:
                raise channel.ChannelClosed(str(error)) from None
        self._write(memoryview(frame)[sent:])

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message, behind what is still on its way; one to nobody is lost."""
        self._write(memoryview(channel.encode(message)))

    def close(self, why: str = "closed") -> None:
        """Say and hear no more; what has not gone out is dropped."""
        self._end(channel.ChannelClosed(why))
        if self._transport is not None:
            self._transport.abort()

    async def _written(self) -> None:
        """Until what was said before has gone out; open files go past what waits here."""
        while not self._empty.is_set():  # once it is, others may be quicker than who waits
            await self._empty.wait()
        if self._closed is not None:
            raise self._closed

    def _write(self, data: memoryview) -> None:
        if self._transport is not None and self._closed is None and data:
            self._transport.write(data)

    def _end(self, why: channel.ChannelClosed) -> None:
        if self._closed is None:
            self._closed = why
            self._data.clear()
            self._empty.set()
            self._lost(why)

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
        """asyncio: take in what came, and hand on what is whole."""
        if self._closed is not None:
            return
        self._data += data
        try:
            while (frame := channel.take_frame(self._data)) is not None:
                self._heard(frame)
        except channel.ChannelClosed as error:
            self.close(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the other side is gone."""
        self._end(channel.ChannelClosed(str(exc or "end of stream")))

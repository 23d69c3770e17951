"""RPC client of a worker: numbered calls over one connection.

Messages to a worker: `{call, operation, …}` (begin), `{call, told}` (more input, with audio behind
it), `{call, granted}`, `{call, cancel}` and `{ping}`. Messages from it: `{call, answer}`, `{call,
granted}`, `{call, done}`, `{call, error}` and `{pong, reading_s}`.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

from sidecar import errors
from sidecar.concurrency import wait_for_event
from sidecar.workers import channel

MAX_SEND_REFUSALS = 10_000
"""Times that the system has no room for a message's files, `channel.FULL_SOCKET_PAUSE_S` apart:
some 20 s."""

MAX_SILENT_PINGS = 10_800
"""Pings that a process answers without a message of a transcription that it has: six hours, as
`worker_process.Heartbeat` sends them; a suspended machine sends none. A library or driver hangs
then: engines report after each chunk at the latest, which is an hour of audio at most."""
MAX_UNREAD_BYTES = 2 * channel.CREDIT_WINDOW_BYTES + channel.MAX_FRAME_BYTES
"""Maximum unread bytes of one call: a worker that sends more violates the flow control."""


class RpcCallEnded(Exception):
    """Raised on a send to a call that has ended."""


class RpcCall:
    """One call, seen from the service: a reader of its answers, and a sender of more input."""

    def __init__(self, number: int, connection: RpcConnection, operation: str) -> None:
        self.number, self.operation = number, operation
        self.over = asyncio.Event()
        """Set once it has ended on the other side, or the connection is closed."""
        self._connection = connection
        self._answers = asyncio.Queue[channel.ChannelFrame | None]()
        """Those that were not read yet; None is its end."""
        self.unread_bytes = 0
        """Bytes of answers that were received and not read yet."""
        self.silent_pings = 0
        """Pings that the process has answered since its last message of this call."""
        self._wrong: errors.SidecarError | channel.ChannelClosed | None = None
        self._credit = channel.Credit()
        self._room = asyncio.Event()

    async def answers(self) -> AsyncIterator[tuple[dict[str, Any], bytes]]:
        """Yield the answers, with the bytes behind them, until the call is done.

        Raises:
            channel.ChannelClosed: the other side is gone.
            errors.SidecarError: the operation failed.
        """
        while (frame := await self._answers.get()) is not None:
            self.unread_bytes -= frame.size
            if granted := self._credit.read(frame.size):
                self._connection.send_nowait({"call": self.number, "granted": granted})
            yield frame.message["answer"], frame.raw
        if self._wrong is not None:
            raise self._wrong

    async def send(self, message: dict[str, Any], raw: bytes = b"") -> None:
        """Send more input, once enough of the earlier input was read.

        Raises:
            channel.ChannelClosed: the other side is gone.
            RpcCallEnded: the call has ended.
        """
        frame = channel.encode_frame({"call": self.number, "told": message}, raw)
        size = len(frame) + channel.FRAME_OVERHEAD_BYTES
        while not self._credit.allows(size) and not self.over.is_set():
            self._room.clear()
            await self._room.wait()
        if self.over.is_set():
            raise self._wrong if isinstance(self._wrong, channel.ChannelClosed) else RpcCallEnded()
        self._credit.sent(size)
        await self._connection.send(frame)

    async def send_all(self, messages: Iterable[dict[str, Any]]) -> None:
        """Send what may be too much for a frame, as `send`; of a call that has ended, the answers
        have the error."""
        with suppress(RpcCallEnded):
            for message in messages:
                await self.send(message)

    def cancel(self) -> None:
        """Ask the worker to stop the call."""
        if not self.over.is_set():
            self._connection.send_nowait({"call": self.number, "cancel": True})

    def receive(self, frame: channel.ChannelFrame) -> None:
        """Handle a frame of this call."""
        self.silent_pings = 0
        match frame.message:
            case {"answer": dict()}:
                self._answers.put_nowait(frame)
                self.unread_bytes += frame.size
                if self.unread_bytes > self._connection.max_unread_bytes:
                    self._connection.close("more of a call than may lie unread")
            case {"granted": int(size)}:
                self._credit.granted(size)
                self._room.set()
            case {"error": wrong}:
                self.end(errors.from_wire(wrong))
            case _:
                self.end()

    def end(self, wrong: errors.SidecarError | channel.ChannelClosed | None = None) -> None:
        """End it: a reader gets ``wrong`` after the answers that have arrived."""
        if not self.over.is_set():
            self._wrong = wrong
            self.over.set()
            self._answers.put_nowait(None)
            self._room.set()


class RpcConnection(asyncio.Protocol):
    """Connection to the process ``pid`` over one channel, with all calls to it. ``on_close`` is
    called once, after the calls have ended: after `close`, or when the other side closes."""

    max_silent_pings: float = MAX_SILENT_PINGS
    """As that says."""

    def __init__(
        self,
        sock: socket.socket,
        pid: int,
        on_close: Callable[[], None],
        *,
        max_unread_bytes: int = MAX_UNREAD_BYTES,
    ) -> None:
        self._sock, self._pid, self._on_close = sock, pid, on_close
        self.max_unread_bytes = max_unread_bytes
        """As `MAX_UNREAD_BYTES`."""
        self.connecting: asyncio.Task[object] | None = None
        """Connection attempt; None before the first call."""
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._drained = asyncio.Event()
        self._drained.set()
        self._calls: dict[int, RpcCall] = {}
        self._last = 0
        self._pongs: list[asyncio.Event] = []
        self.closed: channel.ChannelClosed | None = None
        self.reading_s = 0.0
        """Seconds of the longest read of a recording, as of the last answer to a ping."""

    async def connect(self) -> None:
        """Connect to the process, once, even if a caller is cancelled."""
        if self.connecting is None:
            loop = asyncio.get_running_loop()
            made = loop.create_connection(lambda: self, sock=self._sock)
            self.connecting = loop.create_task(made)
        await asyncio.shield(self.connecting)

    async def begin(self, operation: str, fds: Sequence[int], arguments: dict[str, Any]) -> RpcCall:
        """Begin a call with a number of its own.

        Raises:
            channel.ChannelClosed: the other side is gone.
            errors.MachineBusy: as `send`.
        """
        self._last += 1
        call = RpcCall(self._last, self, operation)
        self._calls[call.number] = call
        try:
            message = {"call": call.number, "operation": operation, **arguments}
            await self.send(*channel.encode_with_files(message, fds, self._pid))
        except BaseException:
            self.forget(call)
            raise
        return call

    def forget(self, call: RpcCall) -> None:
        """Drop all further answers of a call that has no reader any more."""
        self._calls.pop(call.number, None)

    async def answers_ping(self, within_s: float) -> bool:
        """Return whether the process answers a ping, whatever it computes."""
        if self._transport is None or self.closed is not None:
            return False
        pong = asyncio.Event()
        self._pongs.append(pong)
        self.send_nowait({"ping": True})
        try:
            return await wait_for_event(pong, within_s) and self.closed is None
        finally:
            self._pongs.remove(pong)

    def receive(self, frame: channel.ChannelFrame) -> None:
        """Handle a frame; drop it if its call is unknown."""
        match frame.message:
            case {"call": int(number)}:
                if number in self._calls:
                    self._calls[number].receive(frame)
            case {"pong": _, "reading_s": reading_s}:
                self.reading_s = reading_s
                for call in self._calls.values():
                    call.silent_pings += 1
                for pong in self._pongs:
                    pong.set()

    @property
    def silent(self) -> bool:
        """Return whether one of its transcriptions has reported nothing for too many pings."""
        return any(
            one.operation == "transcribe" and one.silent_pings > self.max_silent_pings
            for one in self._calls.values()
        )

    async def send(self, frame: bytes, beside: Sequence[int] = ()) -> None:
        """Send a frame after all earlier ones, with at most `channel.MAX_FILES` descriptors
        ``beside`` it. If this is cancelled, nothing of it is sent.

        Raises:
            channel.ChannelClosed: the other side is gone.
            errors.MachineBusy: the machine has had no room for the files for long.
        """
        sent = refusals = 0
        while not sent:
            while not self._drained.is_set():  # descriptors bypass the write buffer
                await self._drained.wait()
            if self.closed is not None:
                raise self.closed
            if not beside or sys.platform == "win32":
                break  # on Windows the frame has them, as handles
            try:
                sent = socket.send_fds(self._sock, [frame], beside)
            except OSError as error:
                if not errors.lacks_resources(error):
                    raise channel.ChannelClosed(str(error)) from None
                refusals += not isinstance(error, BlockingIOError)  # a worker that has to read
                if refusals >= MAX_SEND_REFUSALS:
                    raise errors.MachineBusy(f"Files cannot be sent: {error}.") from None
                await asyncio.sleep(channel.FULL_SOCKET_PAUSE_S)
        self._write(memoryview(frame)[sent:])

    def send_nowait(self, message: dict[str, Any]) -> None:
        """Queue a message after all earlier ones; it is lost if the channel is closed."""
        self._write(memoryview(channel.encode_frame(message)))

    def close(self, why: str = "closed") -> None:
        """Close the connection; messages that were not sent are dropped."""
        self._end(channel.ChannelClosed(why))
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: memoryview) -> None:
        if self._transport is not None and self.closed is None and data:
            self._transport.write(data)

    def _end(self, closed: channel.ChannelClosed) -> None:
        if self.closed is None:
            self.closed = closed
            self._data.clear()
            self._drained.set()
            for call in self._calls.values():
                call.end(closed)
            for pong in self._pongs:
                pong.set()
            self._on_close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is made; reading begins."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(0)

    def pause_writing(self) -> None:
        """asyncio: the socket is full."""
        self._drained.clear()

    def resume_writing(self) -> None:
        """asyncio: the write buffer is empty."""
        self._drained.set()

    def data_received(self, data: bytes) -> None:
        """asyncio: add received bytes, and pass on complete frames."""
        if self.closed is not None:
            return
        self._data += data
        try:
            while (frame := channel.take_frame(self._data)) is not None:
                self.receive(frame)
        except channel.ChannelClosed as error:
            self.close(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the other side is gone."""
        self._end(channel.ChannelClosed(str(exc or "end of stream")))

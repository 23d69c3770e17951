"""RPC server in a worker: one call, its stream and credit; shared page of executing calls.

The worker writes the number of a call to the page before it executes it, without a system call. The
service reads the page after the worker's death, whatever the cause: only those calls can be at
fault.
"""

import mmap
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from sidecar import files
from sidecar.workers import channel

LIVE_OPERATION = "live"
"""Operation whose calls are sessions: each goes on after it was begun (`worker_live_session`)."""
_NUMBER = struct.Struct("=Q")
PAGE_BYTES = 4096
"""Size of the page of executing calls (`BegunCallsPage`): a file with a name on Windows."""
_PAGE_SLOTS = PAGE_BYTES // _NUMBER.size


class CallCancelled(Exception):
    """The call was cancelled by its client."""


class RpcSender:
    """Sender of the worker's frames, for all of its threads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any], raw: bytes = b"") -> None:
        """Send one frame.

        Raises:
            channel.ChannelClosed: the other side is gone.
        """
        self.send_frame(channel.encode_frame(message, raw))

    def send_frame(self, frame: bytes) -> None:
        """Send a frame that is already encoded; raise as `send`."""
        try:
            with self._lock:
                self._sock.sendall(frame)
        except OSError as error:
            raise channel.ChannelClosed(str(error)) from None


class RpcRequest:
    """One call. One thread sends its answers; the listener's thread adds input, credit,
    cancellation."""

    def __init__(
        self, number: int, message: dict[str, Any], fds: list[int], sender: RpcSender
    ) -> None:
        self.number = number
        self.message = message
        self.fds = fds
        self._sender = sender
        self._changed = threading.Condition()
        self._cancelled = False
        self.on_change: Callable[[], None] = lambda: None
        """Called by the listener's thread when there is news: input, credit, a cancellation."""
        self.on_end: Callable[[], None] = lambda: None
        """Called once it has ended."""
        self.ended = False
        self._received: deque[channel.ChannelFrame] = deque()
        self._taken_bytes = 0
        """Bytes of input that were taken and not acknowledged."""
        self._credit = channel.Credit()
        self._last_frame = b""
        """Answer that is sent with the end."""

    def is_cancelled(self) -> bool:
        """Return whether it was cancelled."""
        return self._cancelled

    def received(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Yield the messages since the last time, with the bytes behind them."""
        while self._received:
            frame = self._received.popleft()
            with self._changed:
                self._taken_bytes += frame.size + channel.FRAME_OVERHEAD_BYTES
            yield frame.message["told"], frame.raw

    def take(self, count: int) -> Iterator[dict[str, Any]]:
        """Yield the next ``count`` messages of input; wait for each.

        Raises:
            CallCancelled: the call is cancelled.
            channel.ChannelClosed: the other side is gone.
        """
        for _ in range(count):
            with self._changed:
                self._changed.wait_for(lambda: self._received or self._cancelled)
            if self._cancelled:
                raise CallCancelled
            yield next(self.received())[0]
            self.acknowledge()

    def acknowledge(self) -> None:
        """Grant the service credit for what was taken.

        Raises:
            channel.ChannelClosed: the other side is gone.
        """
        with self._changed:
            granted, self._taken_bytes = self._credit.read(self._taken_bytes), 0
        if granted:
            self._sender.send({"call": self.number, "granted": granted})

    def answer(self, answer: dict[str, Any], raw: bytes = b"", *, last: bool = False) -> None:
        """Send an answer, once enough of the earlier ones was read; the ``last`` one with the end:
        the service then starts its next job before it serves the clients of this one.

        Raises:
            CallCancelled: the call is cancelled.
            channel.ChannelClosed: the other side is gone.
        """
        message = {"call": self.number, "answer": answer}
        frame = channel.encode_frame(message, raw)
        with self._changed:
            while not (self._cancelled or self._credit.allows(len(frame))):
                self._changed.wait()
            if self._cancelled:
                raise CallCancelled
            self._credit.sent(len(frame))
        if last:
            self._last_frame = frame
        else:
            self._sender.send_frame(frame)

    def tell(self, answer: dict[str, Any]) -> None:
        """Send an answer of a live session, whatever the credit: the service reads these at once.

        Raises:
            channel.ChannelClosed: the other side is gone.
        """
        self._sender.send({"call": self.number, "answer": answer})

    def end(self, **last: Any) -> None:
        """Send the end of the call, unless it has ended: ``done`` or ``error``."""
        with self._changed:
            if self.ended:
                return
            self.ended = True
        end = channel.encode_frame({"call": self.number, **last})
        self._sender.send_frame(self._last_frame + end)
        self.on_end()

    def receive(self, frame: channel.ChannelFrame) -> None:
        """Handle a frame of this call; called by the listener's thread."""
        with self._changed:
            match frame.message:
                case {"told": dict()}:
                    self._received.append(frame)
                case {"granted": int(size)}:
                    self._credit.granted(size)
                case {"cancel": _}:
                    self._cancelled = True
            self._changed.notify_all()
        self.on_change()


class BegunCallsPage:
    """Page of executing calls, the service's side; ``fd`` goes to the worker with a call."""

    def __init__(self) -> None:
        """Raises:
        OSError: there is no memory or no file descriptor left.
        """
        self._file: IO[bytes] = (
            open(os.memfd_create("executing"), "r+b", buffering=0)  # noqa: SIM115
            if hasattr(os, "memfd_create")
            else files.temporary()
        )
        self._file.truncate(PAGE_BYTES)

    @property
    def fd(self) -> int:
        """Return the descriptor."""
        return self._file.fileno()

    def calls(self) -> frozenset[int]:
        """Return the numbers of the calls that are being executed."""
        self._file.seek(0)
        numbers = (number for (number,) in _NUMBER.iter_unpack(self._file.read(PAGE_BYTES)))
        return frozenset(filter(None, numbers))

    def close(self) -> None:
        """Free the page; it cannot be read afterwards."""
        self._file.close()


class BegunCalls:
    """Page of executing calls, the worker's side, for all of its threads. ``fd``: the page, or
    None.

    A call that is `alone` executes while no other does. If the worker dies then, that call is
    certainly at fault.
    """

    def __init__(self, fd: int | None) -> None:
        self._memory = mmap.mmap(fd, PAGE_BYTES) if fd is not None else mmap.mmap(-1, PAGE_BYTES)
        self._changed = threading.Condition()
        self._free_slots = list(range(_PAGE_SLOTS))
        self.queue: deque[object] = deque()
        """Waiting threads, first in, first out: none waits for a later one."""
        self._alone = False

    @contextmanager
    def of(self, call: int, *, alone: bool = False) -> Iterator[None]:
        """Mark ``call`` as executing in the calling thread, within the context."""
        slot = self._enter(alone)
        _NUMBER.pack_into(self._memory, slot * _NUMBER.size, call)
        try:
            yield
        finally:
            _NUMBER.pack_into(self._memory, slot * _NUMBER.size, 0)
            with self._changed:
                self._alone = False
                self._free_slots.append(slot)
                self._changed.notify_all()

    def _enter(self, alone: bool) -> int:
        turn = object()
        with self._changed:
            self.queue.append(turn)
            self._changed.wait_for(lambda: self.queue[0] is turn and self._has_room(alone))
            self.queue.popleft()
            self._alone = alone
            self._changed.notify_all()
            return self._free_slots.pop()

    def _has_room(self, alone: bool) -> bool:
        return len(self._free_slots) == _PAGE_SLOTS if alone else not self._alone

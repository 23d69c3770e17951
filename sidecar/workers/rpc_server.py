"""RPC server inside a worker: one call, its stream and credit; shared page of executing calls.

The worker's side writes before it executes and needs no system call for it. The service's side
reads after the worker's death, whatever ended it: only those calls can be to blame.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sidecar.workers import channel
from sidecar.workers.channel import ReceiveCredit, SendCredit, credited_bytes

BEGUN_MESSAGE = {"begun": True}
"""Answered before a file is looked at: what that takes is the file's, what came before is not."""


class CallCancelled(Exception):
    """The call was cancelled by its client."""


class RpcSender:
    """The worker's end of the line, for all of its threads."""

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
        """As `send`, with a frame that is made."""
        with self._lock:
            channel.send_frame(self._sock, frame)


class RpcRequest:
    """One call. Its answers are sent by one thread; the listener's thread hands in the rest."""

    def __init__(
        self, number: int, message: dict[str, Any], fds: list[int], sender: RpcSender
    ) -> None:
        self.number = number
        self.message = message
        self.fds = fds
        self._sender = sender
        self._changed = threading.Condition()
        self._cancelled = False
        self.on_change: Callable[[], None] = _ignore_change
        """Called by the listener's thread after a message, a grant of credit or a cancellation."""
        self._received: deque[channel.ChannelFrame] = deque()
        self._outgoing, self._incoming = SendCredit(), ReceiveCredit()

    def is_cancelled(self) -> bool:
        """Return whether it was cancelled."""
        return self._cancelled

    def received(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Yield the messages that came since the last time, with the bytes behind them."""
        while self._received:
            frame = self._received.popleft()
            received = frame.message["told"]
            if granted := self._incoming.read(credited_bytes(received, frame.raw)):
                self._sender.send({"call": self.number, "granted": granted})
            yield received, frame.raw

    def answer(self, answer: dict[str, Any], raw: bytes = b"") -> None:
        """Send an answer, once enough of those before it was read.

        Raises:
            Unwanted: the call is cancelled.
            channel.ChannelClosed: the other side is gone.
        """
        message = {"call": self.number, "answer": answer}
        frame = channel.encode_frame(message, raw)
        with self._changed:
            while not (self._cancelled or self._outgoing.allows(len(frame))):
                self._changed.wait()
            if self._cancelled:
                raise CallCancelled
            self._outgoing.sent(len(frame))
        self._sender.send_frame(frame)

    def offer(self, answer: dict[str, Any]) -> bool:
        """As `answer`, where enough was read; else it is not sent.

        Raises:
            channel.ChannelClosed: the other side is gone.
        """
        frame = channel.encode_frame({"call": self.number, "answer": answer})
        with self._changed:
            if not self._outgoing.allows(len(frame)):
                return False
            self._outgoing.sent(len(frame))
        self._sender.send_frame(frame)
        return True

    def end(self, **last: Any) -> None:
        """Send its end: ``done`` or ``error``."""
        self._sender.send({"call": self.number, **last})

    def receive(self, frame: channel.ChannelFrame) -> None:
        """From the listener: a frame of this call."""
        with self._changed:
            match frame.message:
                case {"told": dict()}:
                    self._received.append(frame)
                case {"granted": int(size)}:
                    self._outgoing.granted(size)
                case {"cancel": _}:
                    self._cancelled = True
            self._changed.notify_all()
        self.on_change()


def _ignore_change() -> None:
    """Ignore a change."""


_NUMBER = struct.Struct("=Q")
_PAGE_BYTES = 4096
_PAGE_SLOTS = _PAGE_BYTES // _NUMBER.size


class BegunCallsPage:
    """The service's side; ``fd`` goes to the worker with a call."""

    def __init__(self) -> None:
        """Raises:
        OSError: there is no memory for it, or no open file more.
        """
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("executing")
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        os.write(self.fd, bytes(_PAGE_BYTES))
        self._memory = mmap.mmap(self.fd, _PAGE_BYTES)

    def calls(self) -> frozenset[int]:
        """Return the numbers of the calls that are being executed."""
        numbers = (number for (number,) in _NUMBER.iter_unpack(self._memory[:]))
        return frozenset(filter(None, numbers))

    def close(self) -> None:
        """Free it; nothing is read any more."""
        if not self._memory.closed:
            self._memory.close()
            os.close(self.fd)


class BegunCalls:
    """The worker's side, for all of its threads; ``fd`` is the page's, None where there is none.

    A call that is `alone` executes while no other does: if the worker dies then, there is no doubt
    which call was to blame.
    """

    def __init__(self, fd: int | None) -> None:
        self._memory = mmap.mmap(fd, _PAGE_BYTES) if fd is not None else mmap.mmap(-1, _PAGE_BYTES)
        self._changed = threading.Condition()
        self._places = list(range(_PAGE_SLOTS))
        self._queue: deque[object] = deque()
        """Threads that wait, in the order in which they came: nobody waits for those behind it."""
        self._alone = False

    @contextmanager
    def of(self, call: int, *, alone: bool = False) -> Iterator[None]:
        """Note that the calling thread executes ``call`` meanwhile."""
        place = self._enter(alone)
        _NUMBER.pack_into(self._memory, place * _NUMBER.size, call)
        try:
            yield
        finally:
            _NUMBER.pack_into(self._memory, place * _NUMBER.size, 0)
            with self._changed:
                self._alone = False
                self._places.append(place)
                self._changed.notify_all()

    def _enter(self, alone: bool) -> int:
        turn = object()
        with self._changed:
            self._queue.append(turn)
            self._changed.wait_for(lambda: self._queue[0] is turn and self._has_room(alone))
            self._queue.popleft()
            self._alone = alone
            self._changed.notify_all()
            return self._places.pop()

    def _has_room(self, alone: bool) -> bool:
        return len(self._places) == _PAGE_SLOTS if alone else not self._alone

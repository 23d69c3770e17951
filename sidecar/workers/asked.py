"""A call from inside a worker: what was asked, what more is told, and who waits for the answers."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from sidecar.workers import channel
from sidecar.workers.credit import Incoming, Outgoing, told_size

BEGUN = {"begun": True}
"""Answered before a file is looked at: what that takes is the file's, what came before is not."""


class Unwanted(Exception):
    """The call was cancelled: nobody waits for its answers."""


class Voice:
    """The worker's end of the line, for all of its threads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any], raw: bytes = b"") -> None:
        """Send one frame.

        Raises:
            channel.ChannelClosed: the other side is gone.
        """
        self.send_frame(channel.encode(message, raw))

    def send_frame(self, frame: bytes) -> None:
        """As `send`, with a frame that is made."""
        with self._lock:
            channel.send_frame(self._sock, frame)


class Asked:
    """One call. Its answers are sent by one thread; the listener's thread hands in the rest."""

    def __init__(self, number: int, message: dict[str, Any], fds: list[int], voice: Voice) -> None:
        self.number = number
        self.message = message
        self.fds = fds
        self._voice = voice
        self._changed = threading.Condition()
        self._cancelled = False
        self.news: Callable[[], None] = _nobody
        """Called by the listener's thread when something more was told, read, or cancelled."""
        self._told: deque[channel.Frame] = deque()
        self._outgoing, self._incoming = Outgoing(), Incoming()

    def unwanted(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled

    def told(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """What more was told since the last time, with the bytes behind it."""
        while self._told:
            frame = self._told.popleft()
            told = frame.message["told"]
            if granted := self._incoming.read(told_size(told, frame.raw)):
                self._voice.send({"call": self.number, "granted": granted})
            yield told, frame.raw

    def answer(self, answer: dict[str, Any], raw: bytes = b"") -> None:
        """Send an answer, once enough of those before it was read.

        Raises:
            Unwanted: the call is cancelled.
            channel.ChannelClosed: the other side is gone.
        """
        message = {"call": self.number, "answer": answer}
        frame = channel.encode(message, raw)
        with self._changed:
            while not (self._cancelled or self._outgoing.allows(len(frame))):
                self._changed.wait()
            if self._cancelled:
                raise Unwanted
            self._outgoing.sent(len(frame))
        self._voice.send_frame(frame)

    def offer(self, answer: dict[str, Any]) -> bool:
        """As `answer`, where enough was read; else it is not sent.

        Raises:
            channel.ChannelClosed: the other side is gone.
        """
        frame = channel.encode({"call": self.number, "answer": answer})
        with self._changed:
            if not self._outgoing.allows(len(frame)):
                return False
            self._outgoing.sent(len(frame))
        self._voice.send_frame(frame)
        return True

    def end(self, **last: Any) -> None:
        """Say that it is over: ``done`` or ``error``."""
        self._voice.send({"call": self.number, **last})

    def hear(self, frame: channel.Frame) -> None:
        """From the listener: a frame of this call."""
        with self._changed:
            match frame.message:
                case {"told": dict()}:
                    self._told.append(frame)
                case {"granted": int(size)}:
                    self._outgoing.granted(size)
                case {"cancel": _}:
                    self._cancelled = True
            self._changed.notify_all()
        self.news()


def _nobody() -> None:
    """Nobody wants to know."""

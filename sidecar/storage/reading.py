"""A sealed recording read from any place.

A piece is opened when it is asked for, and nothing of it is written anywhere.

All that is here waits for a disk or a server: call it in a thread.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Protocol

from sidecar.storage import sealing
from sidecar.storage.sealing import MARK, PREFIX, TAG, Seal, SealBroken


class Stored(Protocol):
    """Bytes that can be read from any place, by several threads."""

    @property
    def size(self) -> int:
        """How many."""
        ...

    def at(self, at: int, size: int) -> bytes:
        """So many from there on; fewer at their end.

        Raises:
            OSError: they cannot be read.
        """
        ...

    def close(self) -> None:
        """Let go of them, without waiting; once more does nothing."""
        ...


class OpenFile:
    """`Stored` in an open file."""

    def __init__(self, fd: int) -> None:
        """``fd`` is closed with this."""
        self._fd = fd
        self._turn, self._over = threading.Lock(), False

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._fd).st_size

    def at(self, at: int, size: int) -> bytes:
        """So many from there on."""
        try:
            with self._turn:
                if sys.platform != "win32":
                    return os.pread(self._fd, size, at)
                os.lseek(self._fd, at, os.SEEK_SET)
                return os.read(self._fd, size)
        finally:
            if self._over:
                self.close()

    def close(self) -> None:
        """Let go of the file: who reads just now does it then."""
        self._over = True
        if self._turn.acquire(blocking=False):
            try:
                fd, self._fd = self._fd, -1
                if fd >= 0:
                    os.close(fd)
            finally:
                self._turn.release()


class SealedFile:
    """What `Seal.seal_recording` wrote. That it is whole is known from the start: only the last
    piece opens as the last."""

    def __init__(self, seal: Seal, stored: Stored, name: str) -> None:
        """``stored`` is closed with this, also where this raises.

        Raises:
            SealBroken: it is not what it was, not of that name, or not whole.
        """
        self._seal, self._stored, self._name = seal, stored, name
        self._step = sealing.PIECE + TAG
        try:
            head, begin = self._at(0, len(MARK) + PREFIX), 0
            if head.startswith(MARK):
                self._seal, begin = seal.of_recording(name), len(MARK)
            self._prefix = head[begin:][:PREFIX]
            self._begin = begin + PREFIX
            sealed = stored.size - self._begin
            self._last = max(0, -(-sealed // self._step) - 1)
            self.size = sealed - (self._last + 1) * TAG
            """Bytes of the recording."""
            if self.size < 0:
                raise SealBroken
            self._piece(self._last)
        except BaseException:
            self.close()
            raise

    def read(self, at: int, most: int = sys.maxsize) -> bytes:
        """Some bytes from there on: to the end of a piece at most, none at the end of it all.

        Raises:
            SealBroken: it is not what it was.
        """
        if not 0 <= at < self.size:
            return b""
        number, begin = divmod(at, sealing.PIECE)
        return self._piece(number)[begin : begin + most]

    def close(self) -> None:
        """Let go of it, without waiting; once more does nothing."""
        self._stored.close()

    def _piece(self, number: int) -> bytes:
        data = self._at(self._begin + number * self._step, self._step)
        last = number == self._last
        return self._seal.opened_piece(data, self._prefix, number, self._name, last=last)

    def _at(self, at: int, size: int) -> bytes:
        try:
            return self._stored.at(at, size)
        except OSError:
            raise SealBroken from None

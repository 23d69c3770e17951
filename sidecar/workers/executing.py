"""Which calls a worker's threads execute, on a page of memory that outlives the worker.

The worker's side writes before it executes and needs no system call for it. The service's side
reads after the worker's death, whatever ended it: only those calls can be to blame.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_NUMBER = struct.Struct("=Q")
_BYTES = 4096
_PLACES = _BYTES // _NUMBER.size


class Page:
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
        os.write(self.fd, bytes(_BYTES))
        self._memory = mmap.mmap(self.fd, _BYTES)

    def calls(self) -> frozenset[int]:
        """Return the numbers of the calls that are being executed."""
        numbers = (number for (number,) in _NUMBER.iter_unpack(self._memory[:]))
        return frozenset(filter(None, numbers))

    def close(self) -> None:
        """Free it; nothing is read any more."""
        if not self._memory.closed:
            self._memory.close()
            os.close(self.fd)


class Executing:
    """The worker's side, for all of its threads; ``fd`` is the page's, None where there is none.

    A call that is `alone` executes while no other does: if the worker dies then, there is no doubt
    which call was to blame.
    """

    def __init__(self, fd: int | None) -> None:
        self._memory = mmap.mmap(fd, _BYTES) if fd is not None else mmap.mmap(-1, _BYTES)
        self._changed = threading.Condition()
        self._places = list(range(_PLACES))
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
        return len(self._places) == _PLACES if alone else not self._alone

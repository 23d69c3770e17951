"""A file on its way here: as far as it came, its checksum, and the patience with its server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any, BinaryIO, Protocol, TypeVar

STREAMS = 4
"""Files at a time: one connection rarely fills a fast line."""
TRIES = 5
"""How often a file may break off without a byte in between."""
RETRY_S = 1.0
READ_BYTES = 1 << 20
_POLL_S = 0.5

Done = TypeVar("Done")
Read = Callable[[int], Iterator[tuple[int, bytes]]]
"""The bytes of a file from a place to its end, each chunk with its place in the file; raises
`Interrupted`. A server that knows no ranges begins at 0 again."""


class Interrupted(Exception):
    """The server stopped answering in the middle of a file; another try may do."""


class Stopped(Exception):
    """Another file failed, or somebody pressed Ctrl-C."""


class Meter:
    """What a download tells whoever looks on. This one keeps it to itself."""

    def begin(self, what: str, total: int) -> None:
        """It begins; ``total`` bytes are to be here and checked at the end."""

    def advance(self, count: int) -> None:
        """So many bytes more (or fewer) are here and checked. Called from any thread."""

    def notice(self, message: str) -> None:
        """Something worth a line."""


class Expected(Protocol):
    """What is known of a file before it is here."""

    @property
    def size(self) -> int:
        """Its bytes."""

    def hasher(self) -> Any:
        """What sums it up by `update`, of nothing yet."""

    def is_met(self, hasher: Any) -> bool:
        """Whether what was summed up is the file."""


class Growing:
    """A file as far as it is here, and the checksum of that, in one reading."""

    def __init__(
        self, file: Expected, content: BinaryIO, meter: Meter, stop: threading.Event
    ) -> None:
        self.file = file
        self.done = 0
        self._content, self._meter, self._stop = content, meter, stop
        self.hasher = file.hasher()
        content.seek(0)
        while self.done < file.size and (data := content.read(READ_BYTES)):
            self._count(data[: file.size - self.done])
        self.too_long = bool(content.read(1))

    @property
    def whole(self) -> bool:
        """Whether every byte is here, and is the one that the server has."""
        here = self.done == self.file.size and not self.too_long
        return here and self.file.is_met(self.hasher)

    def write(self, data: bytes) -> None:
        """Append what came."""
        self.too_long = len(data) > self.file.size - self.done
        self._content.write(data)
        self._count(data)

    def restart(self) -> None:
        """Begin again with nothing."""
        self._content.truncate(0)
        self._meter.advance(-self.done)
        self.hasher, self.done, self.too_long = self.file.hasher(), 0, False

    def _count(self, data: bytes) -> None:
        if self._stop.is_set():
            raise Stopped
        self.hasher.update(data)
        self.done += len(data)
        self._meter.advance(len(data))


def receive(read: Read, growing: Growing, stop: threading.Event) -> None:
    """Ask for what is missing until all of it is here; every byte that comes renews the patience.

    Raises:
        Interrupted: it does not come.
        Stopped: ``stop`` was set.
    """
    if growing.too_long:
        growing.restart()
    tries = TRIES
    while growing.done < growing.file.size:
        before = growing.done
        try:
            for place, data in read(growing.done):
                if place != growing.done:
                    growing.restart()
                growing.write(data)
                if growing.too_long:
                    return
        except Interrupted:
            tries = TRIES if growing.done > before else tries - 1
            if not tries:
                raise
            if stop.wait(RETRY_S):
                raise Stopped from None


def side_by_side(work: Iterable[Callable[[], Done]], stop: threading.Event) -> Iterator[Done]:
    """What each piece of ``work`` gives, as it is done; the first that fails sets ``stop``."""
    with ThreadPoolExecutor(STREAMS) as pool:
        waiting = {pool.submit(one) for one in work}
        try:
            while waiting:
                # In steps, because a wait without end hears no Ctrl-C on Windows.
                done, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise

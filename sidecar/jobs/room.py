"""What is on its way to the queue: places that are kept for it, and the bodies that are read.

Room is promised before a body is read and given back when it has become a job, or nothing. So who
is refused is refused before sending a gigabyte, and memory does not grow with those who send.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sidecar import errors


class Hold:
    """Something that is taken and given back once, at the end of a ``with`` or before."""

    def __init__(self) -> None:
        self._held = True

    def release(self) -> None:
        """Give it back; a second time does nothing."""
        if self._held:
            self._held = False
            self._give_back()

    def _give_back(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Place(Hold):
    """A place in the queue that is kept for a job to come."""

    def __init__(self, room: Room, owner: str) -> None:
        super().__init__()
        self._room = room
        self._owner = owner
        room.owners[owner] += 1

    def _give_back(self) -> None:
        self._room.owners[self._owner] -= 1
        self._room.owners += Counter()  # those without any are forgotten


class Body(Hold):
    """An upload that is being read."""

    def __init__(self, room: Room, came: Callable[[int], None] | None) -> None:
        super().__init__()
        self._room = room
        self._came = came
        self._size = 0
        room.bodies += 1

    def grow(self, size: int) -> None:
        """``size`` more bytes have come.

        Raises:
            errors.UploadsFull: they are too many, with those of the others.
        """
        if self._came is not None:
            self._came(size)
        self._size += size
        self._room.body_bytes += size
        if self._room.bodies > 1 and self._room.body_bytes > self._room.most_body_bytes:
            raise errors.UploadsFull()

    def _give_back(self) -> None:
        self._room.bodies -= 1
        self._room.body_bytes -= self._size


class Room:
    """Counts what is on its way. What a body says of its length counts for nothing: who declares
    much and sends little would keep the others out."""

    def __init__(self, most_bodies: int, most_body_bytes: int) -> None:
        self.most_bodies = most_bodies
        self.most_body_bytes = most_body_bytes
        self.owners = Counter[str]()
        """Places in the queue that are kept, by whom they are kept for."""
        self.bodies = 0
        self.body_bytes = 0
        """Uploads that are being read, and what they have brought."""

    @property
    def promised(self) -> int:
        """Places in the queue that are kept."""
        return self.owners.total()

    def place(self, owner: str = "") -> Place:
        """Keep a place; whether there is one is the queue's to say."""
        return Place(self, owner)

    def body(self, came: Callable[[int], None] | None = None) -> Body:
        """Begin to read an upload; one alone is always read. ``came`` is told of its bytes.

        Raises:
            errors.UploadsFull: too many are read already, or too much.
        """
        full = self.bodies >= self.most_bodies or self.body_bytes >= self.most_body_bytes
        if self.bodies and full:
            raise errors.UploadsFull()
        return Body(self, came)

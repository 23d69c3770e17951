"""What is on its way to the queue: places that are kept for it, and the bodies that are read.

Room is promised before a body is read and given back when it has become a job, or nothing. So who
is refused is refused before sending a gigabyte, and memory does not grow with those who send.
"""

from __future__ import annotations

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

    def __init__(self, room: Room) -> None:
        super().__init__()
        self._room = room
        room.promised += 1

    def _give_back(self) -> None:
        self._room.promised -= 1


class Body(Hold):
    """An upload that is being read."""

    def __init__(self, room: Room) -> None:
        super().__init__()
        self._room = room
        self._size = 0
        room.bodies += 1

    def grow(self, size: int) -> None:
        """``size`` more bytes have come.

        Raises:
            errors.UploadsFull: they are too many, with those of the others.
        """
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
        self.promised = 0
        """Places in the queue that are kept."""
        self.bodies = 0
        self.body_bytes = 0
        """Uploads that are being read, and what they have brought."""

    def place(self) -> Place:
        """Keep a place; whether there is one is the queue's to say."""
        return Place(self)

    def body(self) -> Body:
        """Begin to read an upload; one alone is always read.

        Raises:
            errors.UploadsFull: too many are read already, or too much.
        """
        full = self.bodies >= self.most_bodies or self.body_bytes >= self.most_body_bytes
        if self.bodies and full:
            raise errors.UploadsFull()
        return Body(self)

"""Reservations of queue capacity before a body is read; quotas of an owner.

Room is promised before a body is read and given back when it has become a job, or nothing. So who
is refused is refused before sending a gigabyte, and memory does not grow with those who send.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from sidecar import errors
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import is_within_fair_share


class Reservation:
    """Reservation that is given back once, at the end of a ``with`` or before."""

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

    def __exit__(self, *_: object) -> None:
        self.release()


class QueueReservation(Reservation):
    """A place in the queue that is kept for a job to come."""

    def __init__(self, room: Reservations, owner: str) -> None:
        super().__init__()
        self._room = room
        self._owner = owner
        room.owners[owner] += 1

    def _give_back(self) -> None:
        self._room.owners[self._owner] -= 1
        self._room.owners += Counter()  # those without any are forgotten


@dataclass(slots=True)
class OwnerUploads:
    """Uploads of one owner in progress: how many bodies, the bytes that came, and those that were
    declared or came beyond that."""

    bodies: int = 0
    bytes: int = 0
    promised: int = 0


class UploadReservation(Reservation):
    """An upload that is being read."""

    def __init__(
        self, room: Reservations, owner: str, declared: int, came: Callable[[int], None] | None
    ) -> None:
        super().__init__()
        self._room, self._owner, self._came = room, owner, came
        self._size, self._promised = 0, declared
        own = room.uploading.setdefault(owner, OwnerUploads())
        own.bodies += 1
        own.promised += declared
        self._own = own

    def grow(self, size: int) -> None:
        """``size`` more bytes have come.

        Raises:
            errors.UploadsFull: they are too many, with those of the others.
        """
        if self._came is not None:
            self._came(size)
        self._size += size
        self._own.bytes += size
        beyond = max(0, self._size - self._promised)
        self._promised += beyond
        self._own.promised += beyond
        self._room.check_share(self._own)

    def _give_back(self) -> None:
        self._own.bodies -= 1
        self._own.bytes -= self._size
        self._own.promised -= self._promised
        if not self._own.bodies:
            del self._room.uploading[self._owner]


class Reservations:
    """Counts what is on its way. What a body says of its length counts for its owner alone: who
    declares much and sends little would keep the others out."""

    def __init__(self, most_bodies: int, most_body_bytes: int) -> None:
        self.max_bodies = most_bodies
        self.max_body_bytes = most_body_bytes
        self.owners = Counter[str]()
        """Places in the queue that are kept, by whom they are kept for."""
        self.uploading: dict[str, OwnerUploads] = {}
        """Uploads that are being read, and what they have brought, by owner."""

    @property
    def promised(self) -> int:
        """Places in the queue that are kept."""
        return self.owners.total()

    @property
    def bodies(self) -> int:
        """Uploads that are being read."""
        return sum(one.bodies for one in self.uploading.values())

    @property
    def body_bytes(self) -> int:
        """Return the bytes of bodies that have come."""
        return sum(one.bytes for one in self.uploading.values())

    def place(self, owner: str = "") -> QueueReservation:
        """Keep a place; whether there is one is the queue's to say."""
        return QueueReservation(self, owner)

    def body(
        self, caller: Identity, declared: int = 0, came: Callable[[int], None] | None = None
    ) -> UploadReservation:
        """Begin to read an upload of ``declared`` bytes (0: it does not say); one alone is always
        read. ``came`` is told of its bytes.

        Raises:
            errors.UploadsFull: too many are read already, or too much; of this owner, or of all.
        """
        own = self.uploading.get(caller.owner, OwnerUploads())
        owners = len(self.uploading) + (not own.bodies)
        many = self.bodies >= self.max_bodies and (own.bodies + 1) * owners > self.max_bodies
        much = self.body_bytes >= self.max_body_bytes and own.bytes * owners >= self.max_body_bytes
        if self.uploading and (many or much):
            raise errors.UploadsFull()
        declared = declared if caller.limits.shares else 0
        if caller.limits.shares and own.bodies:
            self._check_others(own, declared)
        return UploadReservation(self, caller.owner, declared, came)

    def check_share(self, own: OwnerUploads) -> None:
        """Refuse more of an owner who has more than an equal share of what is full.

        Raises:
            errors.UploadsFull: that is so.
        """
        bodies, size, owners = self.bodies, self.body_bytes, len(self.uploading)
        many = bodies > self.max_bodies and own.bodies * owners > self.max_bodies
        much = size > self.max_body_bytes and own.bytes * owners > self.max_body_bytes
        if many or (bodies > 1 and much):
            raise errors.UploadsFull()

    def _check_others(self, own: OwnerUploads, declared: int) -> None:
        """Refuse one more beside its ``own`` that would leave others too little: three quarters of
        the bodies that are free, and half of the bytes, are what one owner gets."""
        fits = 2 * (own.promised + declared) <= self.max_body_bytes
        if not fits or not is_within_fair_share(own.bodies, 1, self.max_bodies - self.bodies):
            raise errors.UploadsFull(
                "You have reached the limit of concurrent uploads for one owner.",
                hint="Try again when one of your uploads has finished.",
            )

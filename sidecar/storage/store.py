"""What keeps people: those of one service in its file, those of several in their database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sidecar.storage.person import Person

Decide = Callable[[Sequence[Person]], Person]
"""A person as it is to be kept, from all of its owner's; pure, for it may be asked twice."""


class PeopleStore(Protocol):
    """People by their owners. What is kept or deleted is so before anybody is told."""

    async def of(self, owner: str) -> Sequence[Person]:
        """An owner's, the oldest first.

        Raises:
            errors.JournalUnreachable: nobody can be asked.
        """
        ...

    async def keep(self, owner: str, decide: Decide) -> Person:
        """Keep what ``decide`` makes of an owner's people, which nobody changes meanwhile.

        Raises:
            errors.DiskFull, errors.SidecarError: it cannot be written; then all is as it was.
            errors.JournalUnreachable: it may be kept or not; what it raises: it is not.
        """
        ...

    async def delete(self, owner: str, person: str) -> None:
        """Have nothing of a person left, nor in what is kept of it beyond our reading.

        Raises:
            errors.DiskFull, errors.SidecarError: it cannot be written; then all is as it was.
            errors.JournalUnreachable: it may be gone or not.
        """
        ...

    async def empty(self, owner: str) -> int:
        """`delete` everybody of an owner; how many.

        Raises:
            errors.SidecarError: as `delete`; some may be gone then.
        """
        ...

    async def close(self) -> None:
        """Let go of them."""
        ...

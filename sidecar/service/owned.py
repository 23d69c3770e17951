"""The people of whoever asks. A person belongs to who made it; another's is not found."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

from sidecar import clock, errors
from sidecar.auth.identity import Identity
from sidecar.storage.person import MOST_PEOPLE, Person, Sample
from sidecar.storage.store import PeopleStore
from sidecar.transcripts.people import KnownVoice, VoicePrint


class OwnedPeople:
    """What an owner may do with its people. Owns the store.

    Every call may raise `errors.JournalUnreachable` where the store is a database.
    """

    def __init__(self, store: PeopleStore, now: clock.Clock = clock.wall) -> None:
        self._store, self._now = store, now

    async def all(self, caller: Identity) -> Sequence[Person]:
        """The caller's, the oldest first."""
        return await self._store.of(caller.owner)

    async def person(self, caller: Identity, person_id: str) -> Person:
        """One of the caller's.

        Raises:
            errors.PersonNotFound: there is none, or it is another's.
        """
        return _found(await self._store.of(caller.owner), person_id)

    async def known(self, owner: str) -> tuple[KnownVoice, ...]:
        """Who is to be recognised in a job of an owner."""
        return tuple(one.known for one in await self._store.of(owner))

    async def check_room(self, caller: Identity) -> None:
        """Refuse one more before anything is heard.

        Raises:
            errors.PeopleFull: there are as many as one owner may have.
        """
        _check_room(await self._store.of(caller.owner))

    async def add(self, caller: Identity, name: str, heard: VoicePrint) -> Person:
        """Somebody new. Who is there by that name and that very recording is not there twice: who
        was not told that it was done may ask again.

        Raises:
            errors.PeopleFull: there are as many as one owner may have.
            errors.DiskFull, errors.SidecarError: it cannot be written.
        """
        now = self._now()
        person = Person(uuid.uuid4().hex, caller.owner, name, now, (Sample(now, heard),))

        def decide(people: Sequence[Person]) -> Person:
            for one in people:
                if one.name == name and one.hearing(person.samples[0]) == one:
                    return one
            _check_room(people)
            return person

        return await self._store.keep(caller.owner, decide)

    async def change(
        self,
        caller: Identity,
        person_id: str,
        name: str | None = None,
        heard: VoicePrint | None = None,
    ) -> Person:
        """Another name, one recording more, or both.

        Raises:
            errors.PersonNotFound: there is none, or it is another's.
            errors.DiskFull, errors.SidecarError: it cannot be written.
        """
        now = self._now()

        def decide(people: Sequence[Person]) -> Person:
            person = _found(people, person_id)
            if name is not None:
                person = replace(person, name=name)
            return person if heard is None else person.hearing(Sample(now, heard))

        return await self._store.keep(caller.owner, decide)

    async def delete(self, caller: Identity, person_id: str) -> None:
        """Forget somebody, for good.

        Raises:
            errors.PersonNotFound: there is none, or it is another's.
            errors.DiskFull, errors.SidecarError: it cannot be written.
        """
        person = await self.person(caller, person_id)
        await self._store.delete(caller.owner, person.id)

    async def delete_all(self, caller: Identity) -> int:
        """Forget everybody of the caller's, for good; how many.

        Raises:
            errors.DiskFull, errors.SidecarError: it cannot be written; some may be gone.
        """
        return await self._store.empty(caller.owner)

    async def close(self) -> None:
        """Let another service have them."""
        await self._store.close()


def _found(people: Sequence[Person], person_id: str) -> Person:
    for one in people:
        if one.id == person_id:
            return one
    raise errors.PersonNotFound()


def _check_room(people: Sequence[Person]) -> None:
    if len(people) >= MOST_PEOPLE:
        raise errors.PeopleFull(f"There are {MOST_PEOPLE} people of yours already.")

"""The people of whoever asks. A person belongs to who made it; another's is not found."""

from __future__ import annotations

import uuid
from dataclasses import replace

from sidecar import clock, errors
from sidecar.access.identity import Identity
from sidecar.people.file import PeopleFile, people_folder
from sidecar.people.person import MOST_PEOPLE, Person, Sample
from sidecar.settings import Settings
from sidecar.speech.people import KnownVoice, VoicePrint
from sidecar.threads import Threads
from sidecar.vault.key import journal_key


class OwnedPeople:
    """What an owner may do with its people. The file is read once, and written behind each change
    before anybody is told of it."""

    def __init__(self, settings: Settings, now: clock.Clock = clock.wall) -> None:
        """Open the file; this waits for the disk.

        Raises:
            errors.SettingsInvalid: the folder, the file or the key cannot be used.
        """
        self._now = now
        self._disk = Threads("people", 1)
        self._file = PeopleFile(people_folder(settings), journal_key(settings))
        try:
            self._people = {one.id: one for one in self._file.all()}
        except BaseException:
            self._file.close()
            raise

    def all(self, caller: Identity) -> list[Person]:
        """The caller's, the oldest first."""
        return [one for one in self._people.values() if one.owner == caller.owner]

    def person(self, caller: Identity, person_id: str) -> Person:
        """One of the caller's.

        Raises:
            errors.PersonNotFound: there is none, or it is another's.
        """
        found = self._people.get(person_id)
        if found is None or found.owner != caller.owner:
            raise errors.PersonNotFound()
        return found

    def known(self, owner: str) -> tuple[KnownVoice, ...]:
        """Who is to be recognised in a job of an owner."""
        return tuple(one.known for one in self._people.values() if one.owner == owner)

    def check_room(self, caller: Identity) -> None:
        """Refuse one more before anything is heard.

        Raises:
            errors.PeopleFull: there are as many as one owner may have.
        """
        if len(self.all(caller)) >= MOST_PEOPLE:
            raise errors.PeopleFull(f"There are {MOST_PEOPLE} people of yours already.")

    async def add(self, caller: Identity, name: str, heard: VoicePrint) -> Person:
        """Somebody new.

        Raises:
            errors.PeopleFull: there are as many as one owner may have.
            errors.DiskFull, errors.SidecarError: it cannot be written.
        """
        now = self._now()
        person = Person(uuid.uuid4().hex, caller.owner, name, now, (Sample(now, heard),))

        def act() -> Person:
            self.check_room(caller)
            return self._keep(person)

        return await self._disk.run(act)

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

        def act() -> Person:  # one after the other: what it begins with is what is there
            person = self.person(caller, person_id)
            if name is not None:
                person = replace(person, name=name)
            if heard is not None:
                person = person.hearing(Sample(self._now(), heard))
            return self._keep(person)

        return await self._disk.run(act)

    async def delete(self, caller: Identity, person_id: str) -> None:
        """Forget somebody, for good.

        Raises:
            errors.PersonNotFound: there is none, or it is another's.
            errors.DiskFull, errors.SidecarError: it cannot be written.
        """

        def act() -> None:
            self._file.delete(self.person(caller, person_id).id)
            self._people = {id_: one for id_, one in self._people.items() if id_ != person_id}

        await self._disk.run(act)

    def close(self) -> None:
        """Let another service have the file."""
        self._file.close()

    def _keep(self, person: Person) -> Person:
        self._file.write(person)
        self._people = {**self._people, person.id: person}
        return person

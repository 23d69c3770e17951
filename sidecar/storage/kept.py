"""People of this service alone: in memory, and in their file behind each change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sidecar.storage.people_file import PeopleFile
from sidecar.storage.person import Person
from sidecar.storage.store import Decide
from sidecar.threads import Threads


class KeptPeople:
    """A `PeopleStore`. The file is read once."""

    def __init__(self, folder: Path, secret: str) -> None:
        """Open the file; this waits for the disk.

        Raises:
            errors.SettingsInvalid: the folder, the file or the key cannot be used.
        """
        self._disk = Threads("people", 1)
        self._file = PeopleFile(folder, secret)
        try:
            self._people = {one.id: one for one in self._file.all()}
        except BaseException:
            self._file.close()
            raise

    async def of(self, owner: str) -> Sequence[Person]:
        """An owner's, the oldest first."""
        return self._of(owner)

    async def keep(self, owner: str, decide: Decide) -> Person:
        """As `PeopleStore.keep`."""

        def act() -> Person:  # one after the other: what it begins with is what is there
            person = decide(self._of(owner))
            if self._people.get(person.id) != person:
                self._file.write(person)
                self._people = {**self._people, person.id: person}
            return person

        return await self._disk.run(act)

    async def delete(self, owner: str, person: str) -> None:
        """As `PeopleStore.delete`."""

        def act() -> None:
            known = self._people.get(person)
            if known is not None and known.owner == owner:
                self._file.delete(person)
                self._people = {id_: one for id_, one in self._people.items() if id_ != person}

        await self._disk.run(act)

    async def empty(self, owner: str) -> int:
        """As `PeopleStore.empty`."""
        everybody = self._of(owner)
        for one in everybody:
            await self.delete(owner, one.id)
        return len(everybody)

    async def close(self) -> None:
        """Let another service have the file."""
        self._file.close()

    def _of(self, owner: str) -> list[Person]:
        return [one for one in self._people.values() if one.owner == owner]

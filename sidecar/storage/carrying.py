"""People of one service's file, carried over into the database that several services share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sidecar import errors
from sidecar.storage.people_file import FILE, PeopleFile
from sidecar.storage.person import MOST_PEOPLE, Person
from sidecar.storage.store import Decide, PeopleStore


async def carry_over(folder: Path, secret: str, store: PeopleStore) -> tuple[int, int]:
    """Keep everybody who is in the file in ``folder`` in ``store`` as well, with id, owner and
    dates; how many came, and how many were there already. The file stays as it is, and the store
    is closed.

    Raises:
        errors.SettingsInvalid: there is no such file, a service has it, or the key is another.
        errors.PeopleFull: an owner would have more than one may have.
        errors.JournalUnreachable: not everybody may have come. Once more does no harm.
    """
    if not (folder / FILE).is_file():
        raise errors.SettingsInvalid(
            f"There is no file of people in {folder}.",
            hint="Name its folder: --people-dir, or VIBEVOICE_PEOPLE_DIR.",
        )
    file = PeopleFile(folder, secret)
    try:
        everybody = file.all()
    finally:
        file.close()
    came = 0
    try:
        for person in everybody:
            before = await store.of(person.owner)
            came += all(one.id != person.id for one in before)
            await store.keep(person.owner, _beside(person))
    finally:
        await store.close()
    return came, len(everybody) - came


def _beside(person: Person) -> Decide:
    def decide(people: Sequence[Person]) -> Person:
        for one in people:
            if one.id == person.id:
                return one  # as they are there: they may have been renamed since
        if len(people) >= MOST_PEOPLE:
            raise errors.PeopleFull(f"Nobody else can be kept for the owner of '{person.name}'.")
        return person

    return decide

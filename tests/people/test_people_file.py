"""People in their file: found again, sealed, bounded, and gone for good."""

from __future__ import annotations

import base64
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar import errors
from sidecar.access.identity import EVERYBODY, EVERYTHING, Identity, Proof
from sidecar.people import owned
from sidecar.people.file import FILE, PeopleFile
from sidecar.people.owned import OwnedPeople
from sidecar.people.person import MOST_SAMPLES, Person, Sample, parse_name
from sidecar.settings import Settings
from sidecar.speech.people import VoicePrint

SECRET = "0123456789abcdef" * 4
OTHER = Identity("other", Proof.TOKEN, EVERYTHING)


def heard(number: int, seconds: float = 5.0) -> VoicePrint:
    return VoicePrint(base64.b64encode(number.to_bytes(2, "big") * 256).decode(), seconds)


@pytest.fixture
def open_people(tmp_path: Path) -> Iterator[Callable[..., OwnedPeople]]:
    """Opens the people of one folder; what was opened before has to be closed."""
    opened: list[OwnedPeople] = []

    def make(secret: str = SECRET) -> OwnedPeople:
        settings = Settings(people=True, people_dir=tmp_path / "people", journal_key=secret)
        opened.append(OwnedPeople(settings))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


async def test_people_are_there_after_a_new_start(
    open_people: Callable[..., OwnedPeople],
) -> None:
    people = open_people()
    anna = await people.add(EVERYBODY, "Änna", heard(1))
    await people.change(EVERYBODY, anna.id, heard=heard(2, 7.5))
    ben = await people.add(EVERYBODY, "Ben", heard(3))
    anna = await people.change(EVERYBODY, anna.id, "Anna")
    people.close()
    again = open_people()
    assert again.all(EVERYBODY) == [anna, ben]
    assert [one.print for one in anna.samples] == [heard(1), heard(2, 7.5)]
    assert [one.name for one in again.known(EVERYBODY.owner)] == ["Anna", "Ben"]


async def test_a_person_of_another_owner_is_not_found(
    open_people: Callable[..., OwnedPeople],
) -> None:
    people = open_people()
    anna = await people.add(EVERYBODY, "Anna", heard(1))
    assert people.all(OTHER) == []
    assert people.known(OTHER.owner) == ()
    with pytest.raises(errors.PersonNotFound):
        people.person(OTHER, anna.id)
    with pytest.raises(errors.PersonNotFound):
        await people.change(OTHER, anna.id, "Mine")
    with pytest.raises(errors.PersonNotFound):
        await people.delete(OTHER, anna.id)
    assert people.all(EVERYBODY) == [anna]


async def test_who_is_deleted_is_in_no_byte_of_any_file(
    open_people: Callable[..., OwnedPeople], tmp_path: Path
) -> None:
    people = open_people()
    keep = await people.add(EVERYBODY, "Ben", heard(1))
    gone = await people.add(EVERYBODY, "Anna", heard(2))
    for number in range(3, 9):
        await people.change(EVERYBODY, gone.id, heard=heard(number))
    folder = tmp_path / "people"
    with sqlite3.connect(f"file:{folder / FILE}?immutable=1", uri=True) as look:
        rows = look.execute("SELECT sealed FROM samples WHERE person = ?", (gone.id,)).fetchall()
        names = look.execute("SELECT name FROM people WHERE id = ?", (gone.id,)).fetchall()
    look.close()
    sealed = [row[0] for row in rows + names]
    assert len(sealed) == 8
    traces = [piece[at : at + 16] for piece in sealed for at in range(0, len(piece) - 16, 400)]
    before = everything_in(folder)
    assert all(trace in before for trace in traces)
    await people.delete(EVERYBODY, gone.id)
    after = everything_in(folder)
    assert not [trace for trace in traces if trace in after]
    assert gone.id.encode() not in after
    assert people.all(EVERYBODY) == [keep]
    people.close()
    assert open_people().all(EVERYBODY) == [keep]


async def test_names_and_vectors_are_sealed_and_the_file_is_ours_alone(
    open_people: Callable[..., OwnedPeople], tmp_path: Path
) -> None:
    await open_people().add(EVERYBODY, "Anna Livia", heard(77))
    written = everything_in(tmp_path / "people")
    assert b"Anna" not in written
    assert heard(77).vector[:24].encode() not in written
    assert base64.b64decode(heard(77).vector)[:24] not in written
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "people").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "people" / FILE).stat().st_mode) == 0o600


async def test_another_key_or_another_service_does_not_get_them(
    open_people: Callable[..., OwnedPeople], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = open_people()
    await people.add(EVERYBODY, "Anna", heard(1))
    monkeypatch.setattr("sidecar.people.file.ANOTHER_S", 0.1)
    with pytest.raises(errors.SettingsInvalid, match="cannot be had"):
        PeopleFile(tmp_path / "people", SECRET)
    people.close()
    with pytest.raises(errors.SettingsInvalid, match="another key"):
        open_people("f" * 64)
    (tmp_path / "people" / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(errors.SettingsInvalid):
        open_people()


async def test_there_is_an_end_to_people_and_to_their_samples(
    open_people: Callable[..., OwnedPeople], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned, "MOST_PEOPLE", 2)
    people = open_people()
    await people.add(EVERYBODY, "Anna", heard(1))
    await people.add(EVERYBODY, "Ben", heard(2))
    with pytest.raises(errors.PeopleFull):
        await people.add(EVERYBODY, "Cleo", heard(3))
    await people.add(OTHER, "Cleo", heard(3))


def test_beyond_the_most_samples_the_one_with_the_least_voice_goes() -> None:
    person = Person("p", "o", "Anna", 0.0, ())
    for number in range(MOST_SAMPLES):
        person = person.hearing(Sample(number, heard(number, 2.0 if number == 4 else 9.0)))
    again = person.hearing(Sample(99.0, heard(4, 2.0)))
    assert again == person
    person = person.hearing(Sample(100.0, heard(200, 6.0)))
    assert len(person.samples) == MOST_SAMPLES
    assert heard(4, 2.0) not in [one.print for one in person.samples]
    assert person.samples[-1].print == heard(200, 6.0)


@pytest.mark.parametrize("name", ["", "  \n", None, 7, "x" * 201])
def test_what_is_no_name_is_refused(name: object) -> None:
    with pytest.raises(errors.FieldInvalid):
        parse_name(name)
    assert parse_name(" Anna \n Livia\x00 ") == "Anna Livia"

"""People, wherever they are kept: found again, sealed, bounded, and gone for good."""

import asyncio
import base64
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from service_process import PATIENCE_S, is_private
from speaker_stores import SECRET, InFile, Place, heard

from sidecar import errors
from sidecar.auth.identity import ALL_SCOPES, ANONYMOUS, AuthMethod, Identity
from sidecar.storage import speaker_store

OTHER = Identity("other", AuthMethod.TOKEN, ALL_SCOPES)


async def test_speakers_are_kept_over_restart(place: Place) -> None:
    people = place.open()
    anna = await people.add(ANONYMOUS, "Änna", heard(1))
    await people.change(ANONYMOUS, anna.id, embedding=heard(2, 7.5))
    ben = await people.add(ANONYMOUS, "Ben", heard(3))
    anna = await people.change(ANONYMOUS, anna.id, "Anna")
    await people.close()
    again = place.open()
    assert await again.all(ANONYMOUS) == [anna, ben]
    assert [one.print for one in anna.samples] == [heard(1), heard(2, 7.5)]
    assert [one.known.name for one in await again.all(ANONYMOUS)] == ["Anna", "Ben"]


async def test_speaker_of_another_owner_can_be_neither_listed_nor_read_nor_changed_nor_deleted(
    place: Place,
) -> None:
    people = place.open()
    anna = await people.add(ANONYMOUS, "Anna", heard(1))
    assert await people.all(OTHER) == []
    with pytest.raises(errors.PersonNotFound):
        await people.person(OTHER, anna.id)
    with pytest.raises(errors.PersonNotFound):
        await people.change(OTHER, anna.id, "Mine")
    with pytest.raises(errors.PersonNotFound):
        await people.delete(OTHER, anna.id)
    assert await people.all(ANONYMOUS) == [anna]


async def test_deleted_speaker_is_in_no_byte_of_the_file(in_file: InFile) -> None:
    place, people = in_file, in_file.open()
    keep = await people.add(ANONYMOUS, "Ben", heard(1))
    gone = await people.add(ANONYMOUS, "Anna", heard(2))
    for number in range(3, 9):
        await people.change(ANONYMOUS, gone.id, embedding=heard(number))
    sealed = place.sealed(gone.id)
    assert sum(map(len, sealed)) > 7 * len(heard(1).vector)
    traces = [piece[at : at + 16] for piece in sealed for at in range(0, len(piece) - 16, 400)]
    before = place.written()
    assert all(trace in before for trace in traces)
    await people.delete(ANONYMOUS, gone.id)
    after = place.written()
    assert not [trace for trace in traces if trace in after]
    assert gone.id.encode() not in after
    assert await people.all(ANONYMOUS) == [keep]
    await people.close()
    assert await place.open().all(ANONYMOUS) == [keep]


async def test_delete_all_deletes_only_speakers_of_owner(place: Place) -> None:
    people = place.open()
    for at, name in enumerate("ab"):
        await people.add(ANONYMOUS, name, heard(at))
    theirs = await people.add(OTHER, "Carla", heard(3))
    assert await people.delete_all(ANONYMOUS) == 2
    assert await people.delete_all(ANONYMOUS) == 0
    assert await people.all(ANONYMOUS) == []
    assert await people.all(OTHER) == [theirs]


async def test_names_and_embeddings_are_encrypted(place: Place) -> None:
    await place.open().add(ANONYMOUS, "Anna Livia", heard(77))
    written = place.written()
    assert b"Anna Livia" not in written
    assert heard(77).vector[:24].encode() not in written
    assert base64.b64decode(heard(77).vector)[:24] not in written


async def test_speakers_are_not_opened_with_another_key(place: Place) -> None:
    people = place.open(SECRET)
    await people.add(ANONYMOUS, "Anna", heard(1))
    await people.close()
    with pytest.raises(errors.SettingsInvalid, match="another key"):
        place.open("f" * 64)


async def test_speakers_over_limit_of_owner_are_refused_also_when_added_concurrently(
    place: Place,
) -> None:
    people = place.open(limit=2)
    adding = (people.add(ANONYMOUS, f"Anna {number}", heard(number)) for number in range(4))
    came = await asyncio.gather(*adding, return_exceptions=True)
    assert sum(isinstance(one, speaker_store.EnrolledSpeaker) for one in came) == 2
    assert sum(isinstance(one, errors.PeopleFull) for one in came) == 2
    with pytest.raises(errors.PeopleFull):
        await people.check_capacity(ANONYMOUS)
    await people.add(OTHER, "Cleo", heard(3))


async def test_repeated_calls_for_a_speaker_take_effect_once(place: Place) -> None:
    people = place.open()
    anna = await people.add(ANONYMOUS, "Anna", heard(1))
    assert await people.add(ANONYMOUS, "Anna", heard(1)) == anna
    namesake = await people.add(ANONYMOUS, "Anna", heard(2))
    twin = await people.add(ANONYMOUS, "Ben", heard(1))
    assert await people.all(ANONYMOUS) == [anna, namesake, twin]
    confirmed = [people.change(ANONYMOUS, anna.id, embedding=heard(5)) for _ in range(3)]
    assert {len(one.samples) for one in await asyncio.gather(*confirmed)} == {2}
    await people.delete(ANONYMOUS, anna.id)
    with pytest.raises(errors.PersonNotFound):
        await people.delete(ANONYMOUS, anna.id)


async def test_concurrent_changes_of_a_speaker_are_all_kept(place: Place) -> None:
    people = place.open()
    anna = await people.add(ANONYMOUS, "Anna", heard(0))
    changes = [people.change(ANONYMOUS, anna.id, embedding=heard(one)) for one in range(1, 8)]
    await asyncio.gather(*changes, people.change(ANONYMOUS, anna.id, "Änna"))
    (now,) = await people.all(ANONYMOUS)
    assert now.name == "Änna"
    assert {one.print.vector for one in now.samples} == {heard(one).vector for one in range(8)}


async def test_disk_of_speakers_that_hangs_keeps_neither_a_change_nor_the_close_waiting(
    tmp_path: Path,
) -> None:
    back = threading.Event()

    def hang(speakers: Sequence[speaker_store.EnrolledSpeaker]) -> speaker_store.EnrolledSpeaker:
        assert back.wait(PATIENCE_S)
        return speaker_store.EnrolledSpeaker("id", "owner", "Anna", 0.0, ())

    store = speaker_store.SqliteSpeakerStore(tmp_path, SECRET, commit_timeout_s=-1.0)
    with pytest.raises(errors.StorageUnreachable):
        await store.keep("owner", hang)
    store.close_s = -1.0
    await store.close()
    back.set()
    store.close_s = PATIENCE_S
    await store.close()


async def test_change_that_python_itself_refuses_is_an_error_of_the_service_and_changes_nothing(
    tmp_path: Path,
) -> None:
    """Its own errors have no code of SQLite, as that of a file which is closed."""
    store = speaker_store.SqliteSpeakerStore(tmp_path, SECRET)
    await store.close()
    anna = speaker_store.EnrolledSpeaker("id", "owner", "Anna", 0.0, ())
    with pytest.raises(errors.SidecarError, match="could not be written"):
        await store.keep("owner", lambda _: anna)
    assert await store.of("owner") == []


async def test_speaker_file_is_private_to_its_user(in_file: InFile) -> None:
    await in_file.open().add(ANONYMOUS, "Anna", heard(1))
    assert is_private(in_file.folder)
    assert is_private(in_file.folder / speaker_store.SPEAKER_FILE)


async def test_speaker_file_in_use_or_damaged_is_refused(in_file: InFile) -> None:
    people = in_file.open()
    await people.add(ANONYMOUS, "Anna", heard(1))
    with pytest.raises(errors.SettingsInvalid, match="cannot be opened"):
        speaker_store.SqliteSpeakerStore(in_file.folder, SECRET, lock_timeout_s=0.0)
    await people.close()
    (in_file.folder / speaker_store.SPEAKER_FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(errors.SettingsInvalid):
        in_file.open()


def test_sample_over_limit_replaces_the_one_with_least_speech() -> None:
    person = speaker_store.EnrolledSpeaker("p", "o", "Anna", 0.0, ())
    for number in range(speaker_store.MAX_SAMPLES):
        person = person.hearing(
            speaker_store.SpeakerSample(number, heard(number, 2.0 if number == 4 else 9.0))
        )
    assert person.hearing(speaker_store.SpeakerSample(99.0, heard(4, 2.0))) == person
    person = person.hearing(speaker_store.SpeakerSample(100.0, heard(200, 6.0)))
    assert len(person.samples) == speaker_store.MAX_SAMPLES
    assert heard(4, 2.0) not in [one.print for one in person.samples]
    assert person.samples[-1].print == heard(200, 6.0)


@pytest.mark.parametrize("name", ["", "  \n", None, 7, "x" * 201])
def test_invalid_speaker_name_is_refused_and_white_space_of_a_valid_one_normalized(
    name: object,
) -> None:
    with pytest.raises(errors.FieldInvalid):
        speaker_store.parse_speaker_name(name)
    assert speaker_store.parse_speaker_name(" Anna \n Livia\x00 ") == "Anna Livia"

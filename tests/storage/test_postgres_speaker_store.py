"""People in a database that several services share: the same for all, also while it is away."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from speaker_stores import SECRET, InDatabase, InFile, closing, heard

from sidecar import errors
from sidecar.auth.identity import EVERYBODY, Identity, Proof
from sidecar.cli import run
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.interfaces.live_engine import LiveOptions
from sidecar.server.service_process import EXIT_CODES
from sidecar.service import enrolled_speakers
from sidecar.service.enrolled_speakers import KnownVoices
from sidecar.storage import postgres_database, postgres_speaker_store, speaker_store
from sidecar.storage.speaker_store import Person
from sidecar.transcripts.speaker_embeddings import KnownVoice
from sidecar.workers.audio_probe import Intake

OTHER = Identity("other", Proof.TOKEN)


def voices_of(place: InDatabase, *, people: bool) -> KnownVoices:
    """What jobs are told at a service that has these people; ``people``: its own setting."""
    settings = Settings(journal=place.journal, journal_key=SECRET, people=people)
    return KnownVoices(settings, Intake(60.0))


def names(known: tuple[KnownVoice, ...]) -> list[str]:
    return [one.name for one in known]


async def test_what_one_service_changes_is_so_for_another_at_once(in_database: InDatabase) -> None:
    one, another = in_database.open(), in_database.open()
    anna = await one.add(EVERYBODY, "Anna", heard(1))
    assert await another.all(EVERYBODY) == [anna]
    await another.change(EVERYBODY, anna.id, "Änna")
    assert names(await one.known(EVERYBODY.owner)) == ["Änna"]
    added = (each.add(EVERYBODY, "Ben", heard(2)) for each in (one, another, one, another))
    (ben,) = {person.id for person in await asyncio.gather(*added)}
    await one.delete(EVERYBODY, anna.id)
    assert [person.id for person in await another.all(EVERYBODY)] == [ben]


async def test_who_is_deleted_while_another_confirms_them_does_not_come_back(
    in_database: InDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, another = in_database.open(), in_database.open()
    anna = await one.add(EVERYBODY, "Anna", heard(0))
    deleting = []
    write = postgres_speaker_store.SharedPeople._write

    async def meanwhile(
        self: postgres_speaker_store.SharedPeople, cursor: object, person: Person
    ) -> None:
        deleting.append(asyncio.create_task(one.delete(EVERYBODY, anna.id)))
        await asyncio.wait(deleting, timeout=0.3)  # it waits for what is changed here
        await write(self, cursor, person)

    monkeypatch.setattr(postgres_speaker_store.SharedPeople, "_write", meanwhile)
    await another.change(EVERYBODY, anna.id, heard=heard(1))
    await deleting[0]
    assert await another.all(EVERYBODY) == []


async def test_who_is_deleted_waits_for_whoever_still_sees_them(
    in_database: InDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    people = in_database.open()
    anna = await people.add(EVERYBODY, "Anna", heard(1))
    ben = await people.add(EVERYBODY, "Ben", heard(2))
    traces = {one.id: in_database.sealed(one.id)[0][:32] for one in (anna, ben)}
    with in_database.connected() as other:
        other.autocommit = False
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ  # as a dump has it
        other.execute("SELECT 1")
        deleting = asyncio.create_task(people.delete(EVERYBODY, anna.id))
        while len(await people.all(EVERYBODY)) == 2:
            assert not deleting.done()
        assert not deleting.done()
        other.commit()
        await deleting
        assert traces[anna.id] not in in_database.written()
        other.execute("SELECT 1")
        with monkeypatch.context() as impatient:
            impatient.setattr(postgres_speaker_store, "OLDER_S", 0.0)
            await people.delete(EVERYBODY, ben.id)
    assert "until it is vacuumed" in caplog.text
    assert await people.all(EVERYBODY) == []
    carla = await people.add(EVERYBODY, "Carla", heard(3))
    await people.delete(EVERYBODY, carla.id)
    assert traces[ben.id] not in in_database.written()


async def test_of_several_who_are_deleted_at_once_nothing_is_left(
    in_database: InDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    people = in_database.open()
    who = [await people.add(EVERYBODY, f"person {number}", heard(number)) for number in range(4)]
    traces = [in_database.sealed(one.id)[0][:32] for one in who]
    await asyncio.gather(*(people.delete(EVERYBODY, one.id) for one in who))
    written = in_database.written()
    assert not any(trace in written for trace in traces)
    assert "did not rewrite" not in caplog.text


async def test_a_row_of_one_owner_is_nobody_among_anothers(in_database: InDatabase) -> None:
    people = in_database.open()
    await people.add(EVERYBODY, "Anna", heard(1))
    with in_database.connected() as look:
        look.execute("UPDATE vibevoice.people SET owner = %s", (OTHER.owner,))
    assert await people.known(OTHER.owner) == ()
    assert await people.delete_all(OTHER) == 1, "it goes all the same"
    assert await people.delete_all(OTHER) == 0


async def test_a_change_whose_answer_is_lost_is_done_once(
    in_database: InDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = in_database.open()
    await people.all(EVERYBODY)
    lost: list[str] = []
    read = postgres_speaker_store.SharedPeople._read

    async def cut_off(self: postgres_speaker_store.SharedPeople, cursor: Any, owner: str) -> object:
        if not lost:
            lost.append(owner)
            await cursor.connection.close()
        return await read(self, cursor, owner)

    monkeypatch.setattr(postgres_speaker_store.SharedPeople, "_read", cut_off)
    anna = await people.add(EVERYBODY, "Anna", heard(1))
    assert lost
    assert await people.all(EVERYBODY) == [anna]


async def test_the_job_says_whether_people_are_kept_and_not_who_works_on_it(
    in_database: InDatabase,
) -> None:
    await in_database.open().add(EVERYBODY, "Anna", heard(1))
    async with closing(voices_of(in_database, people=False)) as node:
        with pytest.raises(errors.PeopleOff):
            _ = node.people
        taken_in = TranscribeOptions(voiceprints=True)
        told = await node.with_people(taken_in, EVERYBODY.owner, kept=True)
        assert (names(told.known_voices), told.voiceprints) == (["Anna"], True)
        told = await node.with_people(taken_in, EVERYBODY.owner, kept=False)
        assert (names(told.known_voices), told.voiceprints) == (["Anna"], False)
        for unasked in (TranscribeOptions(), TranscribeOptions(voiceprints=True, recognise=False)):
            told = await node.with_people(unasked, EVERYBODY.owner, kept=True)
            assert (told.known_voices, told.voiceprints) == ((), False)


async def test_while_the_database_is_away_a_job_waits_and_who_speaks_live_does_not(
    in_database: InDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolled_speakers, "ASK_AGAIN_S", 0.05)
    people = in_database.open()
    anna = await people.add(EVERYBODY, "Anna", heard(1))
    async with closing(voices_of(in_database, people=True)) as voices:
        in_database.cluster.stop()
        try:
            with monkeypatch.context() as soon:
                soon.setattr(postgres_database, "CALL_S", 0.5)
                for asked in (
                    people.all(EVERYBODY),
                    people.add(EVERYBODY, "Ben", heard(2)),
                    people.change(EVERYBODY, anna.id, "Ben"),
                    people.delete(EVERYBODY, anna.id),
                ):
                    with pytest.raises(errors.JournalUnreachable):
                        await asked
            live = await voices.with_people_live(LiveOptions(), EVERYBODY.owner)
            assert live.known_voices == ()
            begins = asyncio.create_task(
                voices.with_people(TranscribeOptions(), EVERYBODY.owner, kept=True)
            )
            await asyncio.wait({begins}, timeout=0.2)
            assert not begins.done()
        finally:
            in_database.cluster.start()
        assert names((await begins).known_voices) == ["Anna"]
        live = await voices.with_people_live(LiveOptions(), EVERYBODY.owner)
        assert names(live.known_voices) == ["Anna"]
    assert await people.all(EVERYBODY) == [anna]


async def test_a_live_session_knows_nobody_where_the_database_hangs(
    in_database: InDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolled_speakers, "LIVE_S", 0.2)
    await in_database.open().add(EVERYBODY, "Anna", heard(1))
    async with closing(voices_of(in_database, people=True)) as front:
        other = in_database.connected()
        other.autocommit = False
        other.execute("LOCK TABLE vibevoice.people")
        job = front.with_people(TranscribeOptions(), EVERYBODY.owner, kept=False)
        begins = asyncio.create_task(job)
        asyncio.get_running_loop().call_later(1.0, other.rollback)
        told = await front.with_people_live(LiveOptions(), EVERYBODY.owner)
        assert told.known_voices == ()
        assert names((await begins).known_voices) == ["Anna"]
        other.close()


def test_people_of_a_file_come_into_the_database_as_they_are_and_once(
    in_file: InFile,
    in_database: InDatabase,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VIBEVOICE_JOURNAL_KEY", SECRET)
    carry = ["people", "carry-over", "--people-dir", str(in_file.folder)]

    async def fill() -> list[Person]:
        await people.add(EVERYBODY, "Anna", heard(1))
        await people.add(OTHER, "Ben", heard(2))
        return [*await people.all(EVERYBODY), *await people.all(OTHER)]

    async def in_it() -> list[Person]:
        async with closing(in_database.open()) as people:
            return [*await people.all(EVERYBODY), *await people.all(OTHER)]

    def refused(why: str) -> None:
        assert run(carry) == EXIT_CODES[errors.SettingsInvalid.code]
        assert why in capsys.readouterr().err

    refused("No database is named")
    monkeypatch.setenv("VIBEVOICE_JOURNAL", in_database.journal)
    refused("There is no file of people")
    monkeypatch.delenv("VIBEVOICE_JOURNAL")
    people = in_file.open()
    everybody = asyncio.run(fill())
    monkeypatch.setenv("VIBEVOICE_JOURNAL", in_database.journal)
    monkeypatch.setattr(speaker_store, "ANOTHER_S", 0.1)
    refused("Stop the other service that has it")
    asyncio.run(people.close())
    assert run(carry) == 0
    assert asyncio.run(in_it()) == everybody
    assert "carried over: 2; there already: 0" in capsys.readouterr().err

    async def rename() -> None:
        async with closing(in_database.open()) as people:
            await people.change(OTHER, everybody[1].id, "Benjamin")

    asyncio.run(rename())
    assert run(carry) == 0
    assert [one.name for one in asyncio.run(in_it())] == ["Anna", "Benjamin"]
    assert "carried over: 0; there already: 2" in capsys.readouterr().err

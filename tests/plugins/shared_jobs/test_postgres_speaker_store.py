"""People in a database that several services share: the same for all, also while it is away."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
import pytest
from service_process import until
from speaker_stores import SECRET, InDatabase, InFile, closing, heard, speakers_of

from sidecar import errors
from sidecar.auth.identity import ANONYMOUS, AuthMethod, Identity
from sidecar.cli import run
from sidecar.cli.output import EXIT_CODES
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.interfaces.live_options import LiveOptions
from sidecar.plugins import settings_class
from sidecar.plugins.shared_jobs.postgres_speaker_store import PostgresSpeakerStore
from sidecar.service.enrolled_speakers import EnrolledSpeakers
from sidecar.storage import speaker_store
from sidecar.storage.speaker_store import EnrolledSpeaker, SqliteSpeakerStore
from sidecar.transcripts.transcript import SpeakerCandidate

Settings = settings_class()

OTHER = Identity("other", AuthMethod.TOKEN)
HOLD_WRITES = """
    CREATE FUNCTION vibevoice.held() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END';
    CREATE TRIGGER held BEFORE INSERT ON vibevoice.people
        FOR EACH ROW EXECUTE FUNCTION vibevoice.held();
    SELECT pg_advisory_lock(1)"""


def voices_of(place: InDatabase, *, people: bool) -> EnrolledSpeakers:
    """What jobs are told at a service that has these people; ``people``: its own setting."""
    settings = Settings(journal=place.journal, journal_key=SECRET, people=people)
    return speakers_of(settings)


def names(known: tuple[SpeakerCandidate, ...]) -> list[str]:
    return [one.name for one in known]


@contextmanager
def held_writes(place: InDatabase) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Each write of a speaker waits in the database, after what its change has read."""
    with place.connected() as holder:
        holder.execute(HOLD_WRITES)
        yield holder


async def test_speaker_added_changed_or_deleted_by_one_service_is_so_at_the_other(
    in_database: InDatabase,
) -> None:
    one, another = in_database.open(), in_database.open()
    anna = await one.add(ANONYMOUS, "Anna", heard(1))
    assert await another.all(ANONYMOUS) == [anna]
    await another.change(ANONYMOUS, anna.id, "Änna")
    assert [person.name for person in await one.all(ANONYMOUS)] == ["Änna"]
    await one.delete(ANONYMOUS, anna.id)
    assert await another.all(ANONYMOUS) == []


async def test_speaker_added_by_two_services_at_once_is_stored_once(
    in_database: InDatabase,
) -> None:
    one, another = in_database.open(), in_database.open()
    waiting = partial(in_database.cluster.waiting_for_locks, in_database.journal)
    with held_writes(in_database):  # the first has read that there is none
        added = [
            asyncio.create_task(each.add(ANONYMOUS, "Ben", heard(2)))
            for each in (one, another, one, another)
        ]
        await until(lambda: waiting() >= 2)
    (ben,) = {person.id for person in await asyncio.gather(*added)}
    assert [person.id for person in await another.all(ANONYMOUS)] == [ben]


async def test_speaker_deleted_during_another_change_stays_deleted(in_database: InDatabase) -> None:
    one, another = in_database.open(), in_database.open()
    anna = await one.add(ANONYMOUS, "Anna", heard(0))
    waiting = partial(in_database.cluster.waiting_for_locks, in_database.journal)
    with held_writes(in_database):
        changing = asyncio.create_task(another.change(ANONYMOUS, anna.id, embedding=heard(1)))
        await until(lambda: waiting() == 1)
        deleting = asyncio.create_task(one.delete(ANONYMOUS, anna.id))
        await until(lambda: deleting.done() or waiting() == 2)
    await asyncio.gather(changing, deleting)
    assert await another.all(ANONYMOUS) == []


async def test_speaker_row_moved_to_another_owner_is_not_read_and_is_deleted_with_its_data(
    in_database: InDatabase,
) -> None:
    people = in_database.open()
    await people.add(ANONYMOUS, "Anna", heard(1))
    with in_database.connected() as look:
        look.execute("UPDATE vibevoice.people SET owner = %s", (OTHER.owner,))
    assert await people.all(OTHER) == []
    assert await people.delete_all(OTHER) == 1, "it goes all the same"
    assert await people.delete_all(OTHER) == 0


async def test_speaker_added_over_a_connection_that_breaks_is_stored_once(
    in_database: InDatabase,
) -> None:
    people = in_database.open()
    with held_writes(in_database) as holder:
        adding = asyncio.create_task(people.add(ANONYMOUS, "Anna", heard(1)))
        await until(lambda: in_database.cluster.waiting_for_locks(in_database.journal))
        cut_off = """SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'"""
        assert holder.execute(cut_off).fetchall() == [(True,)]
    anna = await adding
    assert await people.all(ANONYMOUS) == [anna]


async def test_identification_of_speakers_is_decided_by_job_and_not_by_node(
    in_database: InDatabase,
) -> None:
    await in_database.open().add(ANONYMOUS, "Anna", heard(1))
    async with closing(voices_of(in_database, people=False)) as node:
        with pytest.raises(errors.PeopleOff):
            await node.all(ANONYMOUS)
        taken_in = TranscribeOptions(voiceprints=True)
        told = await node.with_enrolled_speakers(taken_in, ANONYMOUS.owner, kept=True)
        assert (names(told.known_voices), told.voiceprints) == (["Anna"], True)
        told = await node.with_enrolled_speakers(taken_in, ANONYMOUS.owner, kept=False)
        assert (names(told.known_voices), told.voiceprints) == (["Anna"], False)
        for unasked in (TranscribeOptions(), TranscribeOptions(voiceprints=True, recognise=False)):
            told = await node.with_enrolled_speakers(unasked, ANONYMOUS.owner, kept=True)
            assert (told.known_voices, told.voiceprints) == ((), False)


@pytest.mark.slow
async def test_job_waits_for_speakers_while_database_is_away_and_live_does_not(
    in_database: InDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    people, of, tried = in_database.open(), PostgresSpeakerStore.of, list[str]()

    async def noted(self: PostgresSpeakerStore, owner: str) -> object:
        tried.append(owner)
        return await of(self, owner)

    anna = await people.add(ANONYMOUS, "Anna", heard(1))
    async with closing(voices_of(in_database, people=True)) as voices:
        with in_database.cluster.stopped():
            answers = await asyncio.gather(
                people.all(ANONYMOUS),
                people.add(ANONYMOUS, "Ben", heard(2)),
                people.change(ANONYMOUS, anna.id, "Ben"),
                people.delete(ANONYMOUS, anna.id),
                return_exceptions=True,
            )
            assert [type(one) for one in answers] == [errors.JournalUnreachable] * 4
            live = await voices.with_enrolled_speakers_live(LiveOptions(), ANONYMOUS.owner)
            assert live.known_voices == ()
            monkeypatch.setattr(PostgresSpeakerStore, "of", noted)
            begins = asyncio.create_task(
                voices.with_enrolled_speakers(TranscribeOptions(), ANONYMOUS.owner, kept=True)
            )
            await until(lambda: begins.done() or len(tried) >= 2)
            assert not begins.done()
        assert names((await begins).known_voices) == ["Anna"]
        live = await voices.with_enrolled_speakers_live(LiveOptions(), ANONYMOUS.owner)
        assert names(live.known_voices) == ["Anna"]
    assert await people.all(ANONYMOUS) == [anna]


async def test_live_session_starts_without_speakers_while_database_hangs(
    in_database: InDatabase,
) -> None:
    await in_database.open().add(ANONYMOUS, "Anna", heard(1))
    async with closing(voices_of(in_database, people=True)) as front:
        other = in_database.connected()
        other.autocommit = False
        other.execute("LOCK TABLE vibevoice.people")
        job = front.with_enrolled_speakers(TranscribeOptions(), ANONYMOUS.owner, kept=False)
        begins = asyncio.create_task(job)
        told = await front.with_enrolled_speakers_live(LiveOptions(), ANONYMOUS.owner)
        assert told.known_voices == ()
        other.rollback()
        assert names((await begins).known_voices) == ["Anna"]
        other.close()


def test_speakers_of_file_are_carried_over_to_database_once(
    in_file: InFile,
    in_database: InDatabase,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VIBEVOICE_JOURNAL_KEY", SECRET)
    carry = ["people", "carry-over", "--people-dir", str(in_file.folder)]

    async def fill() -> list[EnrolledSpeaker]:
        await people.add(ANONYMOUS, "Anna", heard(1))
        await people.add(OTHER, "Ben", heard(2))
        return [*await people.all(ANONYMOUS), *await people.all(OTHER)]

    async def in_it() -> list[EnrolledSpeaker]:
        async with closing(in_database.open()) as people:
            return [*await people.all(ANONYMOUS), *await people.all(OTHER)]

    def refused(why: str) -> None:
        assert run(carry) == EXIT_CODES[errors.SettingsInvalid.code]
        assert why in capsys.readouterr().err

    refused("No database is named")
    monkeypatch.setenv("VIBEVOICE_JOURNAL", in_database.journal)
    refused("There is no file of enrolled speakers")
    monkeypatch.delenv("VIBEVOICE_JOURNAL")
    people = in_file.open()
    everybody = asyncio.run(fill())
    monkeypatch.setenv("VIBEVOICE_JOURNAL", in_database.journal)
    with monkeypatch.context() as patch:
        impatient = partial(SqliteSpeakerStore, lock_timeout_s=0.0)
        patch.setattr(speaker_store, "SqliteSpeakerStore", impatient)
        refused("Stop the other service that uses it")
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

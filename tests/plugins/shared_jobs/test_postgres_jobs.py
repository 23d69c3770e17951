"""Shared jobs in PostgreSQL: submissions without an answer, outages, and what the tables show."""

import asyncio
import os
import re
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from job_event_histories import taken
from object_storage import BUCKET, Given
from postgres import KEY, Cluster
from recordings import wav
from service_process import until
from shared_job_services import DONE, Service, Services, service, services, submitted, watched
from uploads import upload

from sidecar import errors
from sidecar.audio.audio_source import ClientFileRef, StoredRecordingRef
from sidecar.auth.identity import ANONYMOUS
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_event_log import DuplicateRequestKey
from sidecar.jobs.job_record import (
    EditedChange,
    IdempotencyKey,
    JobRecord,
    JobState,
    ReportedChange,
    StartedChange,
)
from sidecar.jobs.job_runner import Job
from sidecar.jobs.job_store import JobFilter
from sidecar.jobs.persistent_recordings import PersistentRecordings
from sidecar.jobs.recovery import JobPersistence
from sidecar.plugins import load_settings, settings_class
from sidecar.plugins.shared_jobs.checks import check_shared_jobs
from sidecar.plugins.shared_jobs.postgres_database import (
    PostgresDatabase,
    migrate_postgres,
    retry_while_unavailable,
)
from sidecar.plugins.shared_jobs.s3_storage import PART_BYTES, S3Client, S3Unavailable
from sidecar.server.app import create_service
from sidecar.service.facade import Service as FrontService
from sidecar.transcripts.transcript import ResumePoint, Segment, SegmentReady, Transcript
from sidecar.transcripts.transcript_edits import RenameSpeaker

SECRETS = "a word that is only said here", "Antarctica", "Lovelace", "private.wav"
"""What is said, asked for, written by hand, and the name of a file."""
BLOCKED_PIDS = """SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'"""
BLOCKED = f"SELECT count(*) FROM ({BLOCKED_PIDS}) blocked"
RESTED = """DELETE FROM vibevoice.put_offs;
    NOTIFY vibevoice_waiting"""
DELETE_ALL = "DELETE FROM vibevoice.jobs"
EVERYTHING = "SELECT string_agg(row_to_json(t)::text, ' ') FROM vibevoice.{} t"


@pytest.fixture
async def shared(journal: str, tmp_path: Path) -> AsyncIterator[Services]:
    """A front and a node."""
    async with services(journal, tmp_path, works=False) as shared:
        await shared.more()
        yield shared


@pytest.fixture
def front(shared: Services) -> Service:
    return shared.all[0]


@pytest.fixture
def node(shared: Services) -> Service:
    return shared.all[1]


def segment(index: int) -> ReportedChange:
    return ReportedChange(SegmentReady(index, Segment(float(index), index + 1.0, f"said {index}")))


async def there(one: Service) -> list[str]:
    """Ids of all jobs."""
    return [str(row[0]) for row in await one.database.fetch("SELECT id FROM vibevoice.jobs")]


async def idle(one: Service) -> None:
    """Return once nothing is done in the background."""
    await until(lambda: one.jobs.ending.idle)


def kill(journal: str) -> None:
    """Every connection to a database."""
    with psycopg.connect(journal) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_submission_over_shared_queue_limit_is_refused(journal: str, tmp_path: Path) -> None:
    async with service(journal, tmp_path, queue_limit=3) as one:
        jobs = [submitted(f"owner {index}") for index in range(4)]
        for job in jobs[:3]:
            await one.jobs.submit(job)
        with pytest.raises(errors.QueueFull):
            await one.jobs.submit(jobs[3])
        await one.claimed()
        assert len(await there(one)) == 3


ROWS_READ = """SELECT (seq_tup_read + idx_tup_fetch)::int FROM pg_stat_xact_user_tables
    WHERE schemaname = 'vibevoice' AND relname = 'jobs'"""
MANY = """INSERT INTO vibevoice.jobs (id, owner, submitted, urgent, work_s, state, ended)
    SELECT md5(%s || i), 'many', ''::bytea, true, 60, %s, %s FROM generate_series(1, %s) i"""
SUBMIT = """SELECT outcome FROM vibevoice.submit_1(gen_random_uuid()::text, 'me', NULL, '', true,
    true, 'auto', '{}', 3, 3, 3, NULL, NULL, NULL, NULL, %s)"""


async def test_submission_reads_waiting_jobs_only_when_queue_is_nearly_full(
    front: Service, journal: str
) -> None:
    with psycopg.connect(journal, autocommit=True) as look:
        look.execute(MANY, ("e", "done", "now", 3000))
        look.execute(MANY, ("w", "queued", None, 3000))
        look.execute("ANALYZE vibevoice.jobs")
        await front.membership.recount()
        for limit, outcome, most in (
            (10_000, "accepted", 50),
            (3001, "accepted", 3150),
            (3000, "queue_full", 3150),
            (100, "queue_full", 3150),
        ):
            with psycopg.connect(journal) as front_s:  # its statistics are of this call only
                assert front_s.execute(SUBMIT, (limit,)).fetchall() == [(outcome,)]
                ((read,),) = front_s.execute(ROWS_READ).fetchall()
                front_s.rollback()
            assert read <= most, limit
        for _ in range(3):  # and so do those that came since the last count
            assert look.execute(SUBMIT, (3003,)).fetchall() == [("accepted",)]
        assert look.execute(SUBMIT, (3003,)).fetchall() == [("queue_full",)]


async def test_services_share_a_count_of_jobs_until_it_is_outdated(
    front: Service, node: Service, journal: str
) -> None:
    await front.submit("me", "me")
    claim = await node.claimed()
    await node.report(claim, claim.record, StartedChange())
    await front.membership.recount()
    await front.submit("me")
    await node.membership.recount(60.0)
    assert (node.membership.waiting, node.membership.running) == (1, 1)
    with psycopg.connect(journal) as look:
        assert look.execute("SELECT * FROM vibevoice.count_1(60)").fetchall() == [(1, 1)]
        assert look.execute(ROWS_READ).fetchall() == [(0,)]
    await front.database.fetch("UPDATE vibevoice.sweeps SET at = at - interval '61 s'")
    await node.membership.recount(60.0)
    assert (node.membership.waiting, node.membership.running) == (2, 1)


async def test_predicted_start_of_waiting_jobs_follows_work_and_running_jobs(
    front: Service, node: Service
) -> None:
    """From their work, the pace of this service (a tenth of the audio) and how many run."""
    assert front.jobs.begun_in_s(1) is None
    for index in range(4):
        await front.submit(f"owner {index}", seconds=100.0)

    def each_s() -> float | None:
        return front.jobs.begun_in_s(1)

    await until(lambda: each_s() == pytest.approx(10.0))
    assert front.jobs.begun_in_s(3) == pytest.approx(30.0)
    for _ in range(2):
        claim = await node.claimed()
        await node.report(claim, claim.record, StartedChange())
    await until(lambda: each_s() == pytest.approx(5.0))


async def test_submission_of_disconnected_client_leaves_no_job(
    front: Service, journal: str, postgres_cluster: Cluster
) -> None:
    await front.submit("me")
    job = submitted("me")
    with psycopg.connect(journal) as client:
        client.execute("SELECT FROM vibevoice.owners FOR UPDATE")
        submitting = asyncio.ensure_future(front.jobs.submit(job))
        await until(lambda: postgres_cluster.waiting_for_locks(journal))
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        await idle(front)  # the job is deleted before there is one
    await until(lambda: not postgres_cluster.executing(journal, "submit_1"))
    await idle(front)
    assert job.id not in await there(front)


async def test_background_cancel_of_a_deleted_job_ends_without_a_retry_or_a_log_line(
    front: Service, caplog: pytest.LogCaptureFixture
) -> None:
    (job,) = await front.submit("owner")
    await front.jobs.delete(job.id)
    front.jobs.cancel_soon(job.id)
    await until(lambda: front.jobs.ending.idle or caplog.text)
    assert not caplog.text


@pytest.mark.parametrize("key", [None, IdempotencyKey("a key", "digest")])
async def test_unanswered_submission_is_undone_unless_it_has_a_key(
    front: Service, monkeypatch: pytest.MonkeyPatch, key: IdempotencyKey | None
) -> None:
    call = front.database.call

    async def unanswered(function: str, *values: object) -> object:
        await call(function, *values)
        raise errors.JournalUnreachable()

    job = submitted("me", key=key)
    with monkeypatch.context() as severed:
        severed.setattr(front.database, "call", unanswered)
        with pytest.raises(errors.JournalUnreachable):
            await front.jobs.submit(job)
    await idle(front)
    assert await there(front) == [job.id] * (key is not None)
    if key is not None:
        with pytest.raises(DuplicateRequestKey):
            await front.jobs.submit(submitted("me", key=key))


async def test_submission_executed_after_its_deletion_leaves_no_job(
    front: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was frozen, and answers others first."""
    call, late = front.database.call, list[asyncio.Task[object]]()
    deleted = asyncio.Event()

    async def carried_out(*values: object) -> object:
        await deleted.wait()
        return await call("submit_1", *values)

    async def answered(function: str, *values: object) -> object:
        if function == "submit_1":
            late.append(asyncio.create_task(carried_out(*values)))
            raise errors.JournalUnreachable()
        rows = await call(function, *values)
        deleted.set()
        return rows

    monkeypatch.setattr(front.database, "call", answered)
    unwanted = submitted("me")
    with pytest.raises(errors.JournalUnreachable):
        await front.jobs.submit(unwanted)
    await idle(front)
    assert [await one for one in late] == [[("deleted", unwanted.id)]]
    assert await there(front) == []


async def test_submission_whose_repetition_meets_a_full_queue_fails_and_gets_a_tombstone(
    journal: str, tmp_path: Path
) -> None:
    """The first attempt is on a connection that broke: its recording stays, or it is none."""
    async with service(journal, tmp_path, queue_limit=1) as one:
        job = submitted("me")
        with psycopg.connect(journal) as other, psycopg.connect(journal, autocommit=True) as look:
            other.execute("SELECT vibevoice.buried_1(%s)", (job.id,))
            submitting = asyncio.ensure_future(one.jobs.submit(job))
            await until(lambda: look.execute(BLOCKED).fetchone() == (1,))
            await one.submit("other")
            look.execute(f"SELECT pg_terminate_backend(pid, 60000) FROM ({BLOCKED_PIDS}) blocked")
        with pytest.raises(errors.JournalUnreachable):
            await submitting
        await idle(one)
        assert await one.database.fetch("SELECT id FROM vibevoice.tombstones") == [(job.id,)]


async def test_calls_executed_twice_take_effect_once(front: Service, node: Service) -> None:
    """As where a connection breaks after the commit and before the answer."""
    call = node.database.call

    async def twice(function: str, *values: object) -> object:
        await call(function, *values)
        return await call(function, *values)

    for each in (front, node):
        each.database.call = twice  # type: ignore[method-assign, assignment]
    (job,) = await front.submit("me")
    claim = await node.claimed()
    done = await node.run(claim)
    edited = await front.jobs.edit(done, EditedChange((RenameSpeaker(0, "Ada"),)))
    assert [event.seq for event in await node.events(job.id)] == [1, 2, 3, 4]
    assert (await node.jobs.get(job.id)).history == edited.history
    had = await node.database.fetch("SELECT had_s FROM vibevoice.owners")
    assert had == [(3.0,)]
    await front.jobs.delete(job.id)
    assert await there(front) == []


async def test_lost_connections_lose_and_repeat_no_event(
    front: Service, node: Service, journal: str
) -> None:
    (job,) = await front.submit("me")
    with await front.jobs.subscribe(job.id) as told:
        claim = await node.claimed()
        record = await node.report(claim, claim.record, StartedChange())
        for index in range(30):
            assert record is not None
            record = await node.report(claim, record, segment(index))
            if index % 10 == 5:
                kill(journal)
        assert record is not None
        await node.report(claim, record, DONE)
        kill(journal)
        await front.submit("me")
        assert [event.seq async for event in taken(told)] == [*range(1, 33)]
    assert [event.seq for event in await front.events(job.id)] == [*range(1, 33)]


async def test_close_ends_while_database_is_away(front: Service, postgres_cluster: Cluster) -> None:
    front.jobs.close_s = 0.2
    (job,) = await front.submit("me")
    with postgres_cluster.stopped("immediate"):
        front.jobs.delete_soon(job.id)
        await front.jobs.close()
        assert front.jobs.ending.idle


async def test_services_report_and_accept_jobs_at_a_promoted_standby_with_the_replicated_events(
    journal: str, tmp_path: Path, postgres_cluster: Cluster
) -> None:
    with postgres_cluster.standby() as standby:
        place, database = journal.rsplit("/", 1)
        both = f"{place},127.0.0.1:{standby.port}/{database}?target_session_attrs=read-write"
        events = "SELECT count(*) FROM vibevoice.events"
        async with services(both, tmp_path, 2) as shared:
            front, node = shared.all
            (job,) = await front.submit("me")
            claim = await node.claimed()
            record = await node.report(claim, claim.record, StartedChange())
            assert record is not None
            await until(lambda: _asked(standby.address(database), events) == 1)
            with postgres_cluster.stopped("immediate"):
                await asyncio.to_thread(standby.promote)
                done = await retry_while_unavailable(lambda: node.report(claim, record, DONE))
                assert done is not None
                assert (await front.jobs.get(job.id)).state is JobState.DONE
                (later,) = await front.submit("me")
                assert (await node.claimed()).record.id == later.id
        assert _asked(standby.address(database), events) == 2


def _asked(address: str, query: str) -> object:
    with suppress(psycopg.Error), psycopg.connect(address) as connection:
        row = connection.execute(query).fetchone()  # type: ignore[arg-type]
        return row and row[0]
    return None


async def secret_job(front: Service, node: Service) -> JobRecord:
    """A job of which everything was persisted that there is: refused, heard, ended and edited."""
    options = TranscribeOptions(prompt=SECRETS[1])
    audio = ClientFileRef(f"/recordings/{SECRETS[3]}", 4, 0)
    record = replace(submitted("me"), options=options, audio=audio)
    await front.jobs.submit(record)
    await node.refuse(errors.AudioTooLong(SECRETS[0]), record)
    await node.claims.end_unschedulable(1e6)
    await node.accept(record)
    claim = await node.claimed()
    words = Segment(0.0, 1.0, SECRETS[0], 0)
    resume_point = ReportedChange(ResumePoint(1.0, "scripted", (words,), {"state": SECRETS[0]}))
    done = replace(DONE.event, transcript=Transcript((words,), "en", 3.0, "scripted", "fp32"))
    heard = ReportedChange(SegmentReady(0, words))
    after = await node.report(
        claim, claim.record, StartedChange(), heard, resume_point, ReportedChange(done)
    )
    assert after is not None
    return await front.jobs.edit(after, EditedChange((RenameSpeaker(0, SECRETS[2]),)))


async def test_no_table_has_plaintext_of_transcripts_or_requests(
    front: Service, node: Service
) -> None:
    waiting, *_ = await front.submit("me")
    await node.refuse(errors.AudioTooLong(SECRETS[0]), waiting)
    job = await secret_job(front, node)
    tables = await front.database.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'vibevoice'"
    )
    seen = ""
    for (table,) in tables:
        ((rows,),) = await front.database.fetch(EVERYTHING.format(table))
        seen += rows or ""
    assert job.id in seen
    for secret in SECRETS:
        assert secret not in seen
        assert secret.encode().hex() not in seen, "bytea is shown as hex"


@pytest.mark.parametrize(
    "swap",
    [
        "UPDATE vibevoice.jobs j SET submitted = o.submitted FROM vibevoice.jobs o"
        " WHERE o.id <> j.id",
        "UPDATE vibevoice.events e SET change = o.change FROM vibevoice.events o"
        " WHERE o.job <> e.job AND o.seq = e.seq",
        "UPDATE vibevoice.events e SET change = o.change FROM vibevoice.events o"
        " WHERE o.job = e.job AND o.seq = CASE e.seq WHEN 1 THEN 2 WHEN 2 THEN 1 END",
        "UPDATE vibevoice.jobs SET submitted = 'x'",
    ],
    ids=["records of two jobs", "events of two jobs", "events of one job", "no records"],
)
async def test_jobs_of_swapped_or_damaged_rows_are_not_found_and_delay_no_other_job(
    front: Service, node: Service, swap: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = await front.submit("me", "me")
    for claim in [await node.claimed() for _ in jobs]:
        assert await node.report(claim, claim.record, StartedChange(), segment(0))
        await node.claims.release(claim.token)
    await front.database.fetch(swap)
    (other,) = await front.submit("me")
    for _ in jobs:
        assert await node.claim() is None
    assert (await node.claimed()).record.id == other.id
    for job in jobs:
        with pytest.raises(errors.JobNotFound):
            await front.jobs.get(job.id)
        assert f"job {job.id} in the database cannot be decoded" in caplog.text
    assert [record.id for record in await front.jobs.list("me")] == [other.id]


async def test_deleted_job_leaves_no_row(front: Service, node: Service) -> None:
    (job,) = await front.submit("me")
    claim = await node.claimed()
    assert await node.report(claim, claim.record, StartedChange(), segment(0))
    await front.jobs.delete(job.id)
    for table in ("jobs", "events"):
        rows = await front.database.fetch(f"SELECT count(*) FROM vibevoice.{table}")
        assert rows == [(0,)], table
    assert await node.claims.mine() == frozenset()


@pytest.mark.parametrize("locked", [False, True])
async def test_job_deleted_by_two_calls_at_once_is_deleted_without_an_error(
    front: Service, journal: str, locked: bool
) -> None:
    """``locked``: the other call has only locked the job when this one comes."""
    (job,) = await front.submit("me")
    with psycopg.connect(journal) as other, psycopg.connect(journal, autocommit=True) as look:
        other.execute("SET LOCAL deadlock_timeout = '1ms'")  # it would find a deadlock first
        other.execute("SELECT FROM vibevoice.jobs FOR UPDATE" if locked else DELETE_ALL)
        deleting = asyncio.ensure_future(front.jobs.delete(job.id))
        await until(lambda: look.execute(BLOCKED).fetchone() != (0,))
        other.execute(DELETE_ALL)
        other.commit()
        await deleting
    assert await there(front) == []


async def test_recordings_in_shared_folder_are_sealed_opened_by_all_and_deleted_with_their_jobs(
    journal: str, tmp_path: Path
) -> None:
    """The folder is at another path for each, as mounts are."""
    folder = tmp_path / "shared"
    folder.mkdir()
    (tmp_path / "mounted").symlink_to(folder)
    async with (
        service(journal, folder) as one,
        service(journal, tmp_path / "mounted", "other") as other,
    ):
        seal = migrate_postgres(journal, KEY)
        here, there = (
            PersistentRecordings(load_settings(journal_key=KEY), each.storage, seal, shared=True)
            for each in (one, other)
        )
        with upload(b"sound" * 1000) as source:
            recording = here.store(source, "a recording")
        job = replace(submitted("me"), audio=recording)
        await one.jobs.submit(job)
        claim = await other.claimed()
        with there.open(claim.record) as found:
            assert os.pread(found.fd, 5, 0) == b"sound"
        (name,) = one.storage.ages()
        assert b"sound" not in (folder / "uploads" / name).read_bytes()
        await other.run(claim)
        assert not one.storage.ages()


async def test_job_that_just_started_counts_in_predicted_wait_of_next(
    front: Service, node: Service
) -> None:
    await front.membership.recount()  # while nothing runs
    _, waits = await front.submit("me", "me")
    claim = await node.claimed()
    assert await node.report(claim, claim.record, StartedChange())
    turn = (await front.jobs.positions([waits]))[waits.id]
    assert turn.position == 0
    assert turn.wait_s > 0


async def test_queue_order_is_computed_once_per_interval_for_all_clients(
    front: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    front.jobs.positions_interval_s = 600.0
    jobs = await front.submit(*["me"] * 3)
    called = watched(front.database, monkeypatch)
    for job in jobs:
        assert (await front.jobs.positions([job]))[job.id].position == jobs.index(job)
    assert len(called) == 1
    jobs += await front.submit("me")
    assert (await front.jobs.positions(jobs[-1:]))[jobs[-1].id].position == 3, "the queue is short"
    front.jobs.positions_interval_s, front.jobs.long_queue = 600.0, 3
    jobs += await front.submit("me")
    await front.jobs.delete(jobs[0].id)
    called.clear()
    assert (await front.jobs.positions(jobs)).keys() == {job.id for job in jobs[:-1]}
    assert called == []
    front.jobs.positions_interval_s = 0.0
    assert (await front.jobs.positions(jobs)).keys() == {job.id for job in jobs[1:]}


async def test_front_holds_few_bytes_per_waiting_job_and_knows_its_position(front: Service) -> None:
    (first,) = await front.submit("me")
    await front.jobs.positions([first])
    await front.database.fetch(
        """INSERT INTO vibevoice.jobs (id, owner, submitted, urgent, work_s, state)
        SELECT md5(n::text), 'me', '', true, 1, 'queued' FROM generate_series(1, 3000) n"""
    )
    (last,) = await front.submit("me")
    tracemalloc.start()
    try:
        turns = await front.jobs.positions([first, last])
        await asyncio.sleep(0)  # the event loop lets go of the rows
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [turns[one.id].position for one in (first, last)] == [0, 3001]
    assert turns[last.id].wait_s > turns[first.id].wait_s
    assert held < 3000 * 100, "a job of which only its position is known: an id and a number"


async def test_job_list_omits_a_damaged_row_and_has_the_others(front: Service) -> None:
    good, bad = [await front.submit("me") for _ in range(2)]
    for _ in range(2):
        await front.run(await front.claimed())
    await front.database.fetch(
        "UPDATE vibevoice.jobs SET summary = '\\x00' WHERE id = %s", (bad[0].id,)
    )
    assert [job.id for job in await front.jobs.list("me")] == [good[0].id]


async def test_job_id_with_a_nul_character_is_not_found(front: Service) -> None:
    for ask in (front.jobs.get, front.jobs.subscribe):
        with pytest.raises(errors.JobNotFound):
            await ask("nobody\0")
    with pytest.raises(errors.JobNotFound):
        await front.jobs.list("me", JobFilter(after="nobody\0"))


@asynccontextmanager
async def opened_front(journal: str, tmp_path: Path, **more: Any) -> AsyncIterator[FrontService]:
    """A whole service that accepts jobs, and runs none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIBEVOICE_JOURNAL", journal)
        settings = load_settings(
            engine="scripted",
            journal_key=KEY,
            data_dir=tmp_path / "data",
            spool_dir=tmp_path,
            **{"role": "front", **more},
        )
    front = await asyncio.to_thread(create_service, settings)
    await front.open()
    try:
        yield front
    finally:
        await front.close()


async def sent(front: FrontService, voice: bytes, *, kept: bool = True) -> Job:
    """A job that a client submits to it."""
    with upload(voice) as source:
        return await front.submissions.submit(ANONYMOUS, source, TranscribeOptions(), kept=kept)


async def test_service_started_while_share_is_unmounted_refuses_jobs_until_it_is_back(
    journal: str, tmp_path: Path, voice: bytes
) -> None:
    share, away = tmp_path / "share", tmp_path / "away"
    share.mkdir()
    async with opened_front(journal, tmp_path, uploads=str(share)) as front:
        await sent(front, voice)
    share.rename(away)
    share.mkdir()
    async with opened_front(journal, tmp_path, uploads=str(share)) as front:
        with pytest.raises(errors.StorageUnreachable):
            await sent(front, voice)
        assert [*share.iterdir()] == []
        share.rmdir()
        away.rename(share)
        await sent(front, voice)
        assert len([*share.glob("*/*")]) == 2


async def test_data_folder_of_shared_jobs_is_refused_to_kept_jobs_and_to_another_database(
    journal: str, tmp_path: Path, voice: bytes, postgres_cluster: Cluster
) -> None:
    keep_jobs = Settings(keep_jobs=True, journal_key=KEY, data_dir=tmp_path / "data")
    other = postgres_cluster.new_database()
    async with opened_front(journal, tmp_path) as front:
        await sent(front, voice)
        stored = {*(tmp_path / "data" / "jobs" / "uploads").iterdir()}
        with pytest.raises(errors.FolderTaken):
            JobPersistence(keep_jobs)
        with pytest.raises(errors.FolderTaken):
            async with opened_front(other, tmp_path):
                pass
    async with opened_front(journal, tmp_path):
        assert {*(tmp_path / "data" / "jobs" / "uploads").iterdir()} == stored


async def test_data_folder_of_kept_jobs_is_refused_to_shared_jobs(
    journal: str, tmp_path: Path
) -> None:
    keep_jobs = Settings(keep_jobs=True, journal_key=KEY, data_dir=tmp_path / "data")
    JobPersistence(keep_jobs).close()
    with pytest.raises(errors.FolderTaken):
        async with opened_front(journal, tmp_path):
            pass
    settings = settings_class()(journal=journal, journal_key=KEY, data_dir=tmp_path / "data")
    found = await asyncio.to_thread(check_shared_jobs, settings)
    assert "another store" in found.text
    JobPersistence(keep_jobs).close()


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_ended_job_of_which_answers_are_lost_behind_their_commit_is_there_once(
    front: Service, monkeypatch: pytest.MonkeyPatch, lost: int, taken: bool
) -> None:
    answers, call = [True] * lost, PostgresDatabase.call

    async def call_without_answer(database: PostgresDatabase, name: str, *values: Any) -> Any:
        found = await call(database, name, *values)
        if name == "import_1" and answers and answers.pop():
            raise errors.JournalUnreachable()
        return found

    monkeypatch.setattr(PostgresDatabase, "call", call_without_answer)
    front.jobs.save_pauses_s = ()
    other = (await front.submit("ada"))[0] if taken else submitted()
    with pytest.raises(errors.JournalUnreachable):
        await front.jobs.import_ended(
            replace(submitted("bob"), id=other.id), [StartedChange(), DONE]
        )
    await idle(front)
    (job,) = await front.jobs.list("bob")
    assert (job.id == other.id) is not taken
    assert job.state is JobState.DONE


@pytest.mark.parametrize("kept", [True, False])
async def test_recording_file_is_fsynced_if_job_is_kept_and_not_if_client_waits(
    journal: str, tmp_path: Path, voice: bytes, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """A client that waits for its answer loses its connection with the power of the machine."""
    synced, fsync = list[object](), os.fsync

    def counted(file: object) -> None:
        synced.append(file)
        fsync(file)  # type: ignore[arg-type]

    async with opened_front(journal, tmp_path) as front:
        monkeypatch.setattr(os, "fsync", counted)
        job = await sent(front, voice, kept=kept)
        assert isinstance(job.record.audio, StoredRecordingRef)
        assert len(synced) == (2 if kept else 0), "the file and its folder"


@pytest.mark.slow
@pytest.mark.parametrize("executed", [False, True])
async def test_each_statement_that_fails_once_ends_no_job_and_costs_no_attempt(
    journal: str, tmp_path: Path, voice: bytes, monkeypatch: pytest.MonkeyPatch, executed: bool
) -> None:
    """As where the database has no space for a moment, or only its answer is lost."""
    seen, failing, fetch = dict[str, None](), list[str](), PostgresDatabase.fetch

    async def fetch_or_fail(database: PostgresDatabase, sql: str, *values: Any, **how: Any) -> Any:
        seen[sql] = None
        fails = sql in failing
        failing[:] = [] if fails else failing
        if fails and not executed:
            raise errors.JournalUnreachable()
        found = await fetch(database, sql, *values, **how)
        if fails:
            raise errors.JournalUnreachable()
        return found

    monkeypatch.setattr(PostgresDatabase, "fetch", fetch_or_fail)
    async with opened_front(journal, tmp_path, role="all") as service:
        said = (await (await sent(service, voice, kept=False)).result()).text
        failed = list[str]()
        for sql in list(seen):
            failing[:], job = [sql], None
            while job is None:
                with suppress(errors.JournalUnreachable):
                    job = await sent(service, voice, kept=False)
            assert (await job.result()).text == said, sql
            assert job.record.attempts == 1, sql
            failed += [sql] if not failing else []
        assert {"claim_1", "report_1", "submit_1"} <= {
            *re.findall(r"vibevoice\.(\w+_1)", str(failed))
        }


@pytest.mark.slow
@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
async def test_each_request_to_a_bucket_that_fails_once_ends_no_job_and_leaves_no_object(
    journal: str, bucket: str, any_storage_server: Given, tmp_path: Path, voice: bytes,
    monkeypatch: pytest.MonkeyPatch, executed: bool, parts: int,
) -> None:  # fmt: skip
    """As where its server is busy for a moment, or only its answer is lost."""
    requests, failing, ask = list[tuple[str, int]](), ("", 0), S3Client.ask

    def ask_or_fail(client: S3Client, call: str, **what: Any) -> Any:
        requests.append((call, sum(one == call for one, _ in requests)))
        fails = requests[-1] == failing
        if fails and not executed:
            raise S3Unavailable("ReadTimeoutError")
        found = ask(client, call, **what)
        if fails:
            raise S3Unavailable("ReadTimeoutError")
        return found

    monkeypatch.setattr(S3Client, "ask", ask_or_fail)
    audio = voice if parts == 1 else wav(bytes(PART_BYTES), rate=96_000, channels=8)
    client, said, due = any_storage_server.client(), None, [failing]
    place = {"Bucket": BUCKET, "Prefix": bucket.removeprefix(f"s3://{BUCKET}/")}

    def left() -> list[object]:
        lists = client.list_objects_v2(**place), client.list_multipart_uploads(**place)
        return [*lists[0].get("Contents", ()), *lists[1].get("Uploads", ())]

    opened = opened_front(journal, tmp_path, role="all", uploads=bucket)
    with psycopg.connect(journal, autocommit=True) as database:
        async with opened as service:
            while due:
                failing = due.pop()
                requests.clear()
                job = None
                while job is None:
                    with suppress(errors.StorageUnreachable):
                        job = await sent(service, audio, kept=False)
                result = asyncio.ensure_future(job.result())
                while not (await asyncio.wait({result}, timeout=0.05))[0]:
                    # One whose recording was not opened would rest for 30 s.
                    await asyncio.to_thread(database.execute, RESTED)
                text = (await result).text
                await until(lambda: not left(), f"{failing}: {requests}")
                if said is None:
                    said, due = text, [*requests]
                    assert {"put_object" if parts == 1 else "upload_part", "get_object"} <= {
                        call for call, _ in requests
                    }
                assert (text, job.record.attempts) == (said, 1), requests

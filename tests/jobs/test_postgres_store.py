"""Services that share a PostgreSQL: what one does the others know, and what nobody does twice."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from histories import submitted
from postgres import KEY, Cluster
from serving import PATIENCE_S, until
from sidecar.database.asking import Asking
from sidecar.database.link import Link, Unreachable
from sidecar.jobs.claims import LEASE_S
from sidecar.jobs.postgres import claiming
from sidecar.jobs.postgres import store as store_module
from sidecar.jobs.postgres.batch import Part
from sidecar.jobs.postgres.deciding import Said
from sidecar.jobs.postgres.rows import Found, Rows
from sidecar.jobs.postgres.store import PostgresStore

from sidecar import errors
from sidecar.audio.ref import Kept
from sidecar.audio.source import Spool
from sidecar.database import link
from sidecar.database.schema import look
from sidecar.jobs.events import Begun, Cancelled, Crashed, Edited, PutBack, Reported
from sidecar.jobs.keeping import Keeping
from sidecar.jobs.log import Entry, KeyTaken, MemoryLog
from sidecar.jobs.order import Moment, Priority, Shares, Waiting, turns
from sidecar.jobs.record import JobRecord, JobState, RequestKey
from sidecar.jobs.retention import Retention
from sidecar.settings import load_settings
from sidecar.speech.edits import Rename
from sidecar.speech.engine import Precision
from sidecar.speech.transcript import (
    Checkpoint,
    Finished,
    Progress,
    Segment,
    SegmentReady,
    Transcript,
)

SAID = Segment(0.0, 1.0, "a word that is only said here")
DONE = Reported(Finished(Transcript((SAID,), "en", 3.0, "scripted", "fp32")))
Open = Callable[..., PostgresStore]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gives up a database that is busy."""
    monkeypatch.setitem(link.PATIENCE, "connect_timeout", round(PATIENCE_S))
    monkeypatch.setattr(link, "STATEMENT_MS", round(1000 * PATIENCE_S))
    monkeypatch.setattr(store_module, "CATCH_UP_S", PATIENCE_S)


@pytest.fixture
def long_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is its service's for as long as the test takes."""
    monkeypatch.setattr(claiming, "LEASE_S", PATIENCE_S)


@pytest.fixture
def opened(journal: str, tmp_path: Path) -> Iterator[Open]:
    """Opens stores on one database, and closes them."""
    stores: list[PostgresStore] = []

    def opened(secret: str = KEY) -> PostgresStore:
        stores.append(PostgresStore(journal, secret, tmp_path))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


async def two(opened: Open) -> tuple[PostgresStore, PostgresStore]:
    stores = opened(), opened()
    for store in stores:
        await store.open()
    return stores


def anything(record: JobRecord) -> bool:
    return True


def said(index: int) -> Reported:
    return Reported(SegmentReady(index, Segment(float(index), index + 1.0, f"said {index}")))


def settled(at: float) -> Reported:
    return Reported(Checkpoint(at, "form", (SAID,), {"state": at}))


async def added(store: PostgresStore, **more: object) -> JobRecord:
    record = submitted(durable=True, **more)
    store.add(record)
    await store.written(record.id)
    return record


def same(one: PostgresStore, other: PostgresStore, job_id: str) -> bool:
    try:
        return one.get(job_id) == other.get(job_id) and one.events(job_id) == other.events(job_id)
    except errors.JobNotFound:
        return False


async def test_who_is_asked_knows_what_happens_at_another(opened: Open) -> None:
    front, node = await two(opened)
    job = await added(front)
    claimed = await node.claim(anything)
    assert claimed is not None
    assert claimed.id == job.id
    heard_there: list[int] = []
    heard_here: list[int] = []
    front.listen(lambda record, event: heard_there.append(event.seq))
    front.listen(lambda record, event: heard_here.append(event.seq), here=True)
    with front.subscribe(job.id) as heard:
        for change in (Begun(), said(0), Reported(Progress(1.0, 3.0)), said(1), settled(2.0), DONE):
            node.append(job.id, change)
        told = [event.seq async for event in heard]
    assert told == sorted({*told})
    assert {1, 2, 4, 5, 6} <= {*told}
    assert (heard_there, heard_here) == (told, [])
    await until(lambda: same(front, node, job.id))
    again = opened()
    assert same(again, node, job.id)
    assert again.get(job.id).transcript is not None
    assert "'state'" not in str(again.events(job.id))


async def test_a_job_that_ends_elsewhere_is_worked_on_no_more_whatever_its_node_says(
    opened: Open,
) -> None:
    front, node = await two(opened)
    job = await added(front)
    assert await node.claim(anything)
    node.append(job.id, Begun())
    await node.written(job.id)
    await until(lambda: front.get(job.id).state is JobState.RUNNING)
    node.append(job.id, said(0))
    ended = front.append(job.id, Cancelled())
    node.append(job.id, said(1))
    assert ended.state is JobState.CANCELLED
    await front.written(job.id)
    await until(lambda: node.get(job.id).over)
    node.append(job.id, DONE)
    await node.written(job.id)
    await until(lambda: same(front, node, job.id))
    assert front.get(job.id).state is JobState.CANCELLED
    assert front.get(job.id).seq == ended.seq  # as whoever asked was told
    assert list(await node.beat()) == [job.id]
    assert same(opened(), node, job.id)


async def test_what_is_forgotten_at_one_is_nowhere(opened: Open, journal: str) -> None:
    front, node = await two(opened)
    job = await added(front)
    await until(lambda: node.all())
    assert await node.claim(anything)
    node.append(job.id, Begun())
    await node.written(job.id)
    front.forget(job.id)
    await front.written(job.id)
    await until(lambda: not node.all())
    assert list(await node.beat()) in ([], [job.id])
    with psycopg.connect(journal) as connection:
        for table in ("jobs", "events"):
            assert connection.execute(f"SELECT count(*) FROM vibevoice.{table}").fetchone() == (0,)


async def test_who_waits_only_once_it_was_written_hears_what_went_wrong(opened: Open) -> None:
    one, other = opened(), opened()
    key = RequestKey("a key", "digest")
    jobs = [submitted(durable=True, owner="me", key=key) for _ in range(2)]
    for store, job in zip((one, other), jobs, strict=True):
        store.add(job)
        store._flush()
        await until(lambda store=store, job=job: not store._writer.pending(job.id))
    await one.written(jobs[0].id)
    other._writer.put([Part(jobs[1].id)])  # as where the listener finds that the job is gone
    await until(lambda: not other._writer.pending(jobs[1].id))
    with pytest.raises(KeyTaken):
        await other.written(jobs[1].id)
    await other.written(jobs[1].id)  # it is said once
    assert other._writer._untold == {}


async def test_of_two_requests_by_one_key_at_two_services_one_is_a_job(opened: Open) -> None:
    one, other = await two(opened)
    key = RequestKey("a key", "digest")
    jobs = [submitted(durable=True, owner="me", key=key) for _ in range(2)]
    one.add(jobs[0])
    other.add(jobs[1])
    told = await asyncio.gather(
        one.written(jobs[0].id), other.written(jobs[1].id), return_exceptions=True
    )
    assert [type(each) for each in told].count(KeyTaken) == 1
    lost = isinstance(told[1], KeyTaken)
    loser, winner = (other, jobs[0]) if lost else (one, jobs[1])
    loser.append(jobs[lost].id, Cancelled())
    loser.forget(jobs[lost].id)
    await loser.written()
    for store in (one, other, opened()):
        await until(lambda store=store: [each.id for each in store.all()] == [winner.id])
        known = store.by_key("me", "a key")
        assert known is not None
    assert known.id == winner.id


@pytest.mark.usefixtures("long_leases")
async def test_three_hundred_jobs_are_claimed_by_three_each_once_and_fairly(opened: Open) -> None:
    stores = [opened() for _ in range(3)]
    for index in range(300):
        stores[0].add(submitted(durable=True, owner=f"owner {index // 100}"))
    await stores[0].written()
    got: list[JobRecord] = []

    async def work(store: PostgresStore) -> None:
        while (job := await store.claim(anything)) is not None:
            got.append(job)

    await asyncio.gather(*map(work, stores))
    assert len(got) == len({job.id for job in got}) == 300
    early = [job.owner for job in got[:60]]
    assert {early.count(f"owner {index}") for index in range(3)} <= {*range(17, 24)}
    assert not any([await store.beat() for store in stores])


async def test_who_is_next_is_what_the_order_of_one_service_says(opened: Open) -> None:
    store, chance = opened(), random.Random(7)
    waiting: list[Waiting] = []
    jobs: list[JobRecord] = []
    for _ in range(60):
        owner, work_s = f"owner {chance.randrange(5)}", chance.uniform(1.0, 900.0)
        priority = chance.choice([*Priority])
        job = submitted(durable=True, owner=owner, priority=priority)
        jobs.append(replace(job, facts=replace(job.facts, total_s=work_s)))
        waiting.append(Waiting(owner, Precision.AUTO, work_s, priority=priority))
        store.add(jobs[-1])
    await store.written()
    claimed = [await store.claim(anything) for _ in jobs]
    turn = [jobs[one.index].id for one in turns(waiting, Shares(), Moment())]
    assert [job.id for job in claimed if job is not None] == turn


async def test_nobody_saves_up_and_what_is_given_back_was_not_had(opened: Open) -> None:
    store = opened()
    for _ in range(4):
        await added(store, owner="early")
    first = await store.claim(anything)
    assert first is not None
    await store.claim(anything)
    for _ in range(4):
        await added(store, owner="late")
    turn = [job.owner for _ in range(4) if (job := await store.claim(anything)) is not None]
    assert sorted(turn) == ["early"] * 2 + ["late"] * 2
    await store.give_back(first.id)
    assert await store.claim(anything) == store.get(first.id)


async def test_what_a_node_does_not_take_is_left_to_another(opened: Open) -> None:
    store = opened()
    await added(store, owner="first")
    wanted = await added(store, owner="second")
    claimed = await store.claim(lambda job: job.owner == "second")
    assert claimed is not None
    assert claimed.id == wanted.id
    assert await store.claim(lambda job: job.owner == "second") is None


@pytest.mark.usefixtures("long_leases")
async def test_a_job_that_is_given_back_is_another_s_at_once_from_what_is_settled(
    opened: Open,
) -> None:
    one, other = await two(opened)
    job = await added(one)
    assert await one.claim(anything)
    assert await other.claim(anything) is None
    for change in (Begun(), settled(2.0), said(1)):
        one.append(job.id, change)
    waiting = asyncio.ensure_future(other.news())
    await one.give_back(job.id)
    await waiting
    taken = await other.claim(anything)
    assert taken is not None
    assert taken.state is JobState.QUEUED
    assert (taken.attempts, taken.interruptions, len(taken.settled)) == (0, 0, 1)
    assert not await one.beat()


def lapse(journal: str) -> None:
    """As if nobody had said anything for as long as a lease lasts; a server that was just started
    has everybody come back first."""
    with psycopg.connect(journal) as connection:
        connection.execute(
            "SELECT pg_sleep(extract(epoch FROM pg_postmaster_start_time() - now()) + %s)",
            (LEASE_S + 0.1,),
        )
        connection.execute("UPDATE vibevoice.jobs SET leased_until = now() - interval '1 s'")


async def test_who_lost_his_lease_is_refused_and_told_so(opened: Open, journal: str) -> None:
    late, heir = await two(opened)
    job = await added(late)
    assert await late.claim(anything)
    for change in (Begun(), settled(1.0), said(1)):
        late.append(job.id, change)
    await late.written(job.id)
    lapse(journal)
    taken = await heir.claim(anything)
    assert taken is not None
    assert taken.id == job.id
    assert (taken.state, taken.interruptions, len(taken.segments)) == (JobState.QUEUED, 1, 1)
    late.append(job.id, said(2))
    late.append(job.id, DONE)
    heir.append(job.id, Begun())
    heir.append(job.id, said(1))
    await heir.written(job.id)
    await late.written(job.id)
    assert list(await late.beat()) in ([], [job.id])  # its own end is its own
    await until(lambda: same(late, heir, job.id))
    assert late.append(job.id, said(3)) == heir.get(job.id)
    heir.append(job.id, DONE)
    await heir.written(job.id)
    await until(lambda: same(late, heir, job.id))
    assert [event.seq for event in heir.events(job.id)][-3:] == sorted(
        event.seq for event in heir.events(job.id)
    )[-3:]
    assert heir.get(job.id).state is JobState.DONE


async def test_a_job_in_which_services_die_ends_unless_it_gets_further(
    opened: Open, journal: str
) -> None:
    store = opened()
    job = await added(store)
    for attempt in range(6):
        node = opened()
        taken = await node.claim(anything)
        assert taken is not None, attempt
        node.append(job.id, Begun())
        if attempt == 1:  # what died before that is forgotten
            node.append(job.id, settled(1.0))
            node.append(job.id, Crashed())
        await node.written(job.id)
        lapse(journal)
    assert await opened().claim(anything) is None
    await store.open()
    await until(lambda: store.get(job.id).over)
    error = store.get(job.id).error
    assert error is not None
    assert error.code == "engine_crashed"
    assert "5 services" in error.detail


async def test_of_two_edits_of_one_revision_the_second_is_refused(opened: Open) -> None:
    one, other = await two(opened)
    job = await added(one)
    one.append(job.id, Begun())
    one.append(job.id, DONE)
    await until(lambda: job.id in {each.id for each in other.all()} and other.get(job.id).over)
    one.append(job.id, Edited((Rename(0, "Ada"),)))
    other.append(job.id, Edited((Rename(0, "Bob"),)))
    told = await asyncio.gather(one.written(job.id), other.written(job.id), return_exceptions=True)
    assert [type(each) for each in told].count(errors.TranscriptChanged) == 1
    await until(lambda: same(one, other, job.id))
    assert one.get(job.id).history.revision == 1


async def test_an_id_that_another_gave_out_just_now_is_found(opened: Open) -> None:
    one, other = opened(), opened()
    job = submitted(durable=True)
    one.add(job)
    await one.written(job.id)
    with pytest.raises(errors.JobNotFound):
        other.get(job.id)
    await other.seek(job.id)
    await other.seek("another")
    assert other.get(job.id) == job


async def test_what_was_read_of_a_job_before_it_was_claimed_undoes_nothing_of_it(
    opened: Open,
) -> None:
    """Who listens has a thread of its own: what it read may come when the engine is at work."""
    front, node = await two(opened)
    await until(lambda: node._hears)
    hearing, read, goes_on = node._hearing, threading.Event(), threading.Event()
    assert hearing is not None

    class Late(Rows):
        def find(self, cursor: Any, wanted: Mapping[str, int | None]) -> list[Found]:
            found = super().find(cursor, wanted)
            read.set()
            goes_on.wait(PATIENCE_S)
            return found

    hearing._rows = Late(node.seal)
    job = await added(front)
    await until(read.is_set)
    assert await node.claim(anything)
    node.append(job.id, Begun())
    node.append(job.id, said(0))
    goes_on.set()
    await node.catch_up()
    assert node.get(job.id).state is JobState.RUNNING
    assert node.append(job.id, DONE).state is JobState.DONE
    await until(lambda: front.get(job.id).over and same(front, node, job.id))
    assert [type(event.change) for event in front.events(job.id)] == [Begun, Reported, Reported]


async def test_what_is_about_to_be_written_is_not_taken_for_written(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who listens has a thread of its own, and compares what is known here with the database when
    its line was lost: that may be at any moment, also in the middle of what is said here."""
    store, seen = opened(), list[bool]()
    await store.open()
    job = submitted(durable=True)

    def looks(of: type, name: str) -> None:
        does = getattr(of, name)

        def looked(*given: Any) -> Any:
            done = does(*given)
            seen.append(job.id in store._known())
            return done

        monkeypatch.setattr(of, name, looked)

    for of, name in ((MemoryLog, "_enter"), (Entry, "take"), (Said, "__init__")):
        looks(of, name)
    put = store._writer.put

    def putting(parts: Sequence[Part]) -> None:
        seen.append(job.id in store._known())
        put(parts)

    monkeypatch.setattr(store._writer, "put", putting)
    store.add(job)
    store._flush()
    store.append(job.id, Begun())
    store._flush()
    assert len(seen) == 5
    assert not any(seen)
    await store.written(job.id)
    assert store._known() == {job.id: 1}


async def test_a_claim_that_is_written_while_it_is_told_that_its_service_is_there_is_not_lost(
    opened: Open, journal: str
) -> None:
    store = opened()
    job, ask = await added(store), store.ask
    with psycopg.connect(journal) as other:
        other.execute("SELECT FROM vibevoice.jobs FOR UPDATE")
        store.append(job.id, Begun())  # which nobody claimed before

        async def meanwhile(work: Callable[[Any], Any]) -> Any:
            told = await ask(work)
            other.rollback()
            await store.written(job.id)
            return told

        store.ask = meanwhile  # type: ignore[method-assign]
        assert list(await store.beat()) == []
    store.append(job.id, DONE)
    await store.written(job.id)
    assert opened().get(job.id).state is JobState.DONE


async def test_a_connection_is_let_go_of_once_nobody_is_at_it(journal: str) -> None:
    asking, asked, goes_on = Asking(journal, "asks"), list[str](), threading.Event()

    def work(cursor: Any) -> str:
        asked.append("once")
        goes_on.wait(PATIENCE_S)
        return str(cursor.execute("SELECT 'answered'").fetchone()[0])

    answer = asyncio.ensure_future(asking.ask(work))
    await until(lambda: asked)
    asking.close()
    goes_on.set()
    assert await answer == "answered"
    assert asked == ["once"]
    await until(lambda: not asking.link.open)


@pytest.mark.skipif(os.name == "nt", reason="descriptors of POSIX")
async def test_who_has_a_thousand_files_open_hears_of_others(opened: Open) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 3000 if hard == resource.RLIM_INFINITY else min(3000, hard)
    if most < 1500:
        pytest.skip("THIS PROCESS MAY NOT OPEN A THOUSAND FILES: not tested")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        front, node = await two(opened)
        await until(lambda: node._hears)
        job = await added(front)
        await until(lambda: same(front, node, job.id))
        assert node._hears
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_who_has_caught_up_has_what_others_wrote_and_not_what_they_deleted(
    opened: Open,
) -> None:
    one, other = opened(), opened()
    await asyncio.gather(one.open(), other.open())
    await until(lambda: one._hears and other._hears)
    for _ in range(20):
        job = submitted(durable=True)
        one.add(job)
        await one.written(job.id)
        await other.catch_up()
        assert [each.id for each in other.all()] == [job.id]
        one.forget(job.id)
        await one.written()
        await other.catch_up()
        assert other.all() == []
    assert other._reached == {}


async def test_who_follows_a_job_that_is_deleted_elsewhere_hears_its_end_and_nothing_counts_it(
    opened: Open,
) -> None:
    """Its end and that it is gone are written in one."""
    one, other = await two(opened)
    results = Retention(other, retention_s=60.0, limit_bytes=1 << 20, limit=2)
    stays, *goes = [await added(one) for _ in range(4)]
    one.append(stays.id, Begun())
    one.append(stays.id, DONE)
    for job in goes:
        await other.seek(job.id)
        with other.subscribe(job.id) as told:
            one.append(job.id, Cancelled())
            one.forget(job.id)
            assert [event.change async for event in told] == [Cancelled()]
    await until(lambda: [each.id for each in other.all()] == [stays.id])
    assert other.get(stays.id).over
    assert results._count[stays.owner] == 1
    results.close()


def kill(journal: str) -> None:
    """Every connection to it."""
    with psycopg.connect(journal) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_connections_that_are_lost_in_the_middle_cost_nothing(
    opened: Open, journal: str
) -> None:
    front, node = await two(opened)
    job = await added(front)
    assert await node.claim(anything)
    node.append(job.id, Begun())
    for index in range(30):
        node.append(job.id, said(index))
        if index % 10 == 5:
            kill(journal)
        if index % 3 == 0:
            await node.written(job.id)
    assert not await node.beat()
    kill(journal)
    other = await added(front)
    node.append(job.id, DONE)
    await node.written(job.id)
    await until(lambda: same(front, node, job.id) and same(front, node, other.id))
    assert [event.seq for event in front.events(job.id)] == [*range(1, 33)]


def test_a_machine_that_slept_in_the_middle_of_a_transaction_has_lost_its_connection(
    journal: str,
) -> None:
    def sleeps() -> None:
        pid = [link.connection().info.backend_pid]
        with link.transaction() as cursor, psycopg.connect(journal, autocommit=True) as look:
            cursor.execute("SELECT 1")
            there = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
            while look.execute(there, pid).fetchone() != (0,):
                pass
            cursor.execute("SELECT 1")

    with closing(Link(journal)) as link:
        link.connection().execute("SET idle_in_transaction_session_timeout = 50")
        with pytest.raises(Unreachable):
            sleeps()
        assert not link.open


async def test_while_the_database_is_away_jobs_go_on_and_nothing_is_accepted(
    opened: Open, journal: str, postgres_cluster: Cluster
) -> None:
    front, node = await two(opened)
    job, other = await added(front), await added(front)
    assert await node.claim(anything)
    node.append(job.id, Begun())
    await node.written(job.id)
    await until(lambda: front.get(job.id).state is JobState.RUNNING)
    postgres_cluster.stop("immediate")
    try:
        node.append(job.id, said(0))
        writing = asyncio.ensure_future(node.written(job.id))
        for refused in (
            node.beat,
            lambda: node.claim(anything),
            lambda: added(front),
            lambda: added(front, key=RequestKey("k", "digest")),
        ):
            with pytest.raises(errors.JournalUnreachable):
                await refused()
        for record in front.all():
            if record not in (job, other, front.get(job.id), front.get(other.id)):
                front.forget(record.id)
        assert front.get(job.id).state is JobState.RUNNING
        assert not writing.done()
    finally:
        postgres_cluster.start()
    await writing
    assert not await node.beat()
    await until(lambda: same(front, node, job.id))
    third = await added(front)
    await until(lambda: third.id in {one.id for one in node.all()})
    assert [one.id for one in opened().all()] == [job.id, other.id, third.id]
    assert {one.id for one in node.all()} == {job.id, other.id, third.id}


async def test_when_a_standby_takes_over_what_it_has_counts_and_all_go_on_there(
    journal: str, tmp_path: Path, postgres_cluster: Cluster
) -> None:
    with postgres_cluster.standby() as standby, ExitStack() as open_stores:
        place, database = journal.rsplit("/", 1)
        both = f"{place},127.0.0.1:{standby.port}/{database}?target_session_attrs=read-write"
        stores = [PostgresStore(both, KEY, tmp_path) for _ in range(2)]
        front, node = (open_stores.enter_context(closing(store)) for store in stores)
        await front.open()
        job = await added(front)
        assert await node.claim(anything)
        node.append(job.id, Begun())
        await node.written(job.id)
        there, count = standby.address(database), "SELECT count(*) FROM vibevoice.events"
        await until(lambda: rows(there, count) == [(1,)])
        postgres_cluster.stop("immediate")
        try:
            node.append(job.id, said(0))
            standby.promote()
            node.append(job.id, DONE)
            await node.written(job.id)
            await until(lambda: same(front, node, job.id))
            later = await added(front)
            claimed = await node.claim(anything)
            assert claimed is not None
            assert claimed.id == later.id
        finally:
            postgres_cluster.start()
        assert rows(there, count) == [(3,)]


def rows(address: str, query: str) -> list[Any]:
    try:
        with psycopg.connect(address) as connection:
            return connection.execute(query).fetchall()  # type: ignore[arg-type]
    except psycopg.Error:
        return []


class Severed(Link):
    """A line that breaks when all was done and before that was heard."""

    def __init__(self, address: str, times: int) -> None:
        super().__init__(address)
        self.times = times

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[Any]]:
        with super().transaction() as cursor:
            yield cursor
        if self.times:
            self.times -= 1
            raise Unreachable("severed")


async def test_what_was_written_though_nobody_heard_of_it_is_there_once(
    opened: Open, journal: str
) -> None:
    front = opened()
    job = await added(front)
    for times in (1, 3):
        front._writer._link = Severed(journal, times)
        front.append(job.id, Begun())
        front.append(job.id, said(0))
        await front.written(job.id)
        front.append(job.id, PutBack())
    front._writer._link = Severed(journal, 2)
    keyed, other = (submitted(durable=True, key=key) for key in (RequestKey("k", "d"), None))
    for record in (keyed, other):
        front.add(record)
    told = await asyncio.gather(
        front.written(keyed.id), front.written(other.id), return_exceptions=True
    )
    assert [type(each) for each in told] == [errors.JournalUnreachable] * 2
    for record in (keyed, other):
        front.append(record.id, Cancelled())
        front.forget(record.id)
    await front.written(job.id)
    elsewhere = opened()
    assert same(front, elsewhere, job.id)
    assert [event.seq for event in front.events(job.id)] == [1, 2, 3, 4, 5, 6]
    known = elsewhere.by_key(keyed.owner, "k")
    assert known == keyed
    assert {one.id for one in elsewhere.all()} == {job.id, keyed.id}


async def test_a_job_whose_lease_ran_out_with_the_database_is_not_taken_from_its_node(
    opened: Open, journal: str, postgres_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, other = await two(opened)
    await added(node)
    assert await node.claim(anything)
    lapse(journal)
    monkeypatch.setattr(claiming, "LEASE_S", PATIENCE_S)  # a start of the server takes its time
    postgres_cluster.stop("immediate")
    postgres_cluster.start()
    assert await other.claim(anything) is None
    assert not await node.beat()


def test_services_that_start_at_once_make_the_tables_once(journal: str, tmp_path: Path) -> None:
    opened: list[PostgresStore | Exception] = []

    def start() -> None:
        try:
            opened.append(PostgresStore(journal, KEY, tmp_path))
        except Exception as error:
            opened.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [type(one) for one in opened] == [PostgresStore] * 6
    for one in opened:
        assert isinstance(one, PostgresStore)
        one.close()


def test_another_key_a_later_version_and_what_is_no_address_are_refused(
    opened: Open, journal: str, tmp_path: Path
) -> None:
    opened()
    with pytest.raises(errors.SettingsInvalid, match="another key"):
        opened("another-key-that-is-long-enough")
    with psycopg.connect(journal) as connection:
        connection.execute("UPDATE vibevoice.version SET version = 99")
    with pytest.raises(errors.SettingsInvalid, match="later version"):
        opened()
    for address in ("mysql://u:secret@h/d", "postgresql://u:secret@h:port/d?nonsense=1"):
        with pytest.raises(errors.SettingsInvalid) as refused:
            PostgresStore(address, KEY, tmp_path)
        assert "secret" not in str(refused.value.to_wire())


async def test_of_what_is_said_nothing_is_readable_in_the_database(
    opened: Open, journal: str
) -> None:
    store = opened()
    job = await added(store)
    for change in (Begun(), said(0), settled(1.0), DONE):
        store.append(job.id, change)
    await store.written(job.id)
    with psycopg.connect(journal) as connection:
        rows = connection.execute(
            "SELECT submitted, change FROM vibevoice.jobs JOIN vibevoice.events ON job = id"
        ).fetchall()
    assert len(rows) == 4
    everything = b"".join(submitted + change for submitted, change in rows)
    assert b"said" not in everything
    assert b"voice.wav" not in everything


def test_recordings_in_the_folder_that_all_see_are_found_by_all_and_kept_until_they_are_jobs(
    journal: str, tmp_path: Path
) -> None:
    """The folder is at another path for each, as mounts are."""
    shared = tmp_path / "shared"
    shared.mkdir()
    keepings = []
    for name in ("one", "other"):
        (tmp_path / name).symlink_to(shared)
        file = tmp_path / f"{name}.address"
        file.write_text(journal)
        file.chmod(0o600)
        given = {"journal_file": file, "journal_key": KEY, "jobs_dir": tmp_path / name}
        keepings.append(Keeping(load_settings(**given)))
    one, other = keepings
    with closing(one.store), closing(other.store), closing(Spool(None)) as spool:
        spool.add(b"sound" * 1000)
        with spool.finish() as source:
            kept = one.keep(source, "a name")
            left = one.keep(source, "of no job")
        assert isinstance(kept, Kept)
        assert isinstance(left, Kept)
        one.store.add(job := replace(submitted(durable=True), audio=kept))
        for old in (kept, left):
            path = shared / "uploads" / old.name
            hour_ago = path.stat().st_mtime - 3700
            os.utime(path, (hour_ago, hour_ago))
        asyncio.run(one.store.written(job.id))
        asyncio.run(other.seek(job.id))
        with other.open(other.store.get(job.id)) as found:
            assert os.pread(found.fd, 5, 0) == b"sound"
        with one.open(job) as source:
            one.keep(source, "young")
        third = Keeping(load_settings(**given))
        third.store.close()
        assert {path.name for path in (shared / "uploads").iterdir()} == {"a name", "young"}


@pytest.mark.parametrize("way", ["flag", "both", "open file", "empty file"])
def test_an_address_that_others_could_read_is_refused_and_not_repeated(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "postgresql://vibevoice:not-for-logs@127.0.0.1/jobs"
    monkeypatch.setenv("VIBEVOICE_JOURNAL_KEY", KEY)
    file = tmp_path / "address"
    file.write_text("" if way == "empty file" else address)
    file.chmod(0o644 if way == "open file" else 0o600)
    if way == "both":
        monkeypatch.setenv("VIBEVOICE_JOURNAL", address)
    given = {"journal": address} if way == "flag" else {"journal_file": file}
    with pytest.raises(errors.SettingsInvalid) as refused:
        Keeping(load_settings(**given))
    assert "not-for-logs" not in str(refused.value.to_wire())


def test_a_database_that_does_not_let_in_is_said_without_the_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres_cluster: Cluster
) -> None:
    nowhere = postgres_cluster.address("nowhere")
    monkeypatch.setenv("VIBEVOICE_JOURNAL", nowhere)
    settings = load_settings(journal_key=KEY, jobs_dir=tmp_path)
    assert "not-for-logs" not in f"{settings!r}"
    with pytest.raises(errors.SettingsInvalid, match="does not exist") as refused:
        look(nowhere)
    assert "not-for-logs" not in str(refused.value.to_wire())


async def test_keda_wants_nodes_for_what_waits_and_for_what_runs(
    opened: Open, journal: str
) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra 'vibevoice'")
    cluster = Path(__file__).parents[2] / "deploy/k8s/overlays/cluster/scaledobject.yaml"
    scaled, _ = yaml.safe_load_all(cluster.read_text("utf-8"))
    (trigger,) = scaled["spec"]["triggers"]
    store, counts = opened(), []
    first, second = (submitted(durable=True) for _ in range(2))
    with psycopg.connect(journal, autocommit=True) as database:
        for change in (lambda: None, lambda: store.add(first), lambda: store.add(second)):
            change()
            await store.written()
            counts.append(database.execute(trigger["metadata"]["query"]).fetchone())
        assert await store.claim(lambda record: True)
        counts.append(database.execute(trigger["metadata"]["query"]).fetchone())
        store.append(second.id, Cancelled())
        await store.written()
        counts.append(database.execute(trigger["metadata"]["query"]).fetchone())
    assert counts == [(0,), (1,), (2,), (2,), (1,)]

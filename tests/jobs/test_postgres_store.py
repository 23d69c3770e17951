"""Services that share a PostgreSQL: what one does the others know, and what nobody does twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from histories import submitted
from postgres import KEY, Cluster
from serving import PATIENCE_S

from sidecar import errors
from sidecar.jobs.claims import ATTEMPTS, LEASE_S
from sidecar.jobs.postgres.store import PostgresStore
from sidecar.jobs.record import (
    Begun,
    Cancelled,
    Edited,
    JobRecord,
    JobState,
    Reported,
    RequestKey,
)
from sidecar.jobs.store import KeyTaken
from sidecar.speech.edits import Rename
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


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


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


async def test_what_a_node_does_not_take_is_left_to_another(opened: Open) -> None:
    store = opened()
    await added(store, owner="first")
    wanted = await added(store, owner="second")
    claimed = await store.claim(lambda job: job.owner == "second")
    assert claimed is not None
    assert claimed.id == wanted.id
    assert await store.claim(lambda job: job.owner == "second") is None


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
    for attempt in range(ATTEMPTS + 1):
        node = opened()
        taken = await node.claim(anything)
        assert taken is not None, attempt
        node.append(job.id, Begun())
        if attempt == 1:
            node.append(job.id, settled(1.0))
        await node.written(job.id)
        lapse(journal)
    assert await opened().claim(anything) is None
    await store.open()
    await until(lambda: store.get(job.id).over)
    error = store.get(job.id).error
    assert error is not None
    assert error.code == "engine_crashed"


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


async def test_a_job_whose_lease_ran_out_with_the_database_is_not_taken_from_its_node(
    opened: Open, journal: str, postgres_cluster: Cluster
) -> None:
    node, other = await two(opened)
    await added(node)
    assert await node.claim(anything)
    lapse(journal)
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

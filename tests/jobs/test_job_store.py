"""What every store of jobs does for owners and wires: one in `KINDS` is held to all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_claims import ANYTHING
from instrumented_slot import FACTS, OverheardSlot, queue_on
from job_event_histories import submitted, taken
from postgres import Cluster
from retention_of_jobs import job_metrics
from service_process import PATIENCE_S
from shared_job_services import LIMITS, Service, service, until_told
from uploads import upload

from sidecar import errors
from sidecar.jobs.job_event_log import JobEventLog, JobIdTaken
from sidecar.jobs.job_queue import Dispatcher, JobQueue
from sidecar.jobs.job_record import (
    CancelledChange,
    EditedChange,
    FailedChange,
    IdempotencyKey,
    JobChange,
    JobEvent,
    JobFailure,
    JobRecord,
    JobState,
    ReportedChange,
    StartedChange,
)
from sidecar.jobs.job_runner import Job
from sidecar.jobs.job_store import JobFilter, JobStore, OwnerLoad
from sidecar.jobs.local_jobs import LocalJobStore
from sidecar.jobs.reservations import UNKNOWN_AUDIO_CHARGE_S
from sidecar.jobs.retention import JOB_BYTES, Retention
from sidecar.jobs.sqlite_event_log import SqliteJobEventLog
from sidecar.plugins.shared_jobs.claims import Claim, ClaimPreferences
from sidecar.transcripts.diarized_pieces import (
    DiarizedPiece,
    DiarizedPieces,
    SegmentPart,
    WordRange,
)
from sidecar.transcripts.transcript import (
    KEPT_DIARIZATION,
    Finished,
    Peaks,
    Progress,
    ResumePoint,
    Segment,
    SegmentReady,
    Transcript,
)
from sidecar.transcripts.transcript_edits import (
    DiarizeAgain,
    RenameSpeaker,
    RewriteSegment,
    UndoStep,
)

SAID = Transcript((Segment(0.0, 1.0, "said"),), "en", 3.0, "scripted", "fp32")
FINISHED = ReportedChange(Finished(SAID))
BROKEN = FailedChange(JobFailure.of(errors.EngineFailed()))
RESUME_POINT = ReportedChange(ResumePoint(1.0, "scripted", (), {"large": "state"}))


def segment(at: int) -> ReportedChange:
    return ReportedChange(SegmentReady(at, Segment(float(at), at + 1.0, f"line {at}")))


@dataclass
class Held:
    """A run whose engine says what a test has it say."""

    job: Job
    lane: Dispatcher

    def stop(self) -> None:
        if self.job.ended:
            self.lane.run = None
            self.lane.wait_queue.finish(self.job, self.lane.number)


class Local:
    """`LocalJobStore` over a log, with its ways in: for those who send recordings, and engines."""

    def __init__(self, log: JobEventLog, queue: JobQueue, space_bytes: int) -> None:
        self._log, self._queue, self.metrics = log, queue, job_metrics()
        self.retention = Retention(log, 600.0, space_bytes, self.metrics)
        self.store = LocalJobStore(log, queue, self.retention)

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Nothing can be persisted meanwhile."""
        if not isinstance(self._log, SqliteJobEventLog):
            pytest.skip("memory has nothing that breaks")
        connection = self._log.journal.connection
        connection.execute("PRAGMA query_only = ON")
        try:
            yield
        finally:
            connection.execute("PRAGMA query_only = OFF")

    async def submit(self, record: JobRecord) -> None:
        """Have a job accepted."""
        await self._queue.submit(Job(upload(b"a recording"), record))

    async def work(self, job_id: str, *changes: JobChange) -> None:
        """Have these happen to a job, as an engine does; `StartedChange` is the first."""
        lanes = self._queue.dispatchers
        runs = (one for one in lanes if one.run and one.run.job.id == job_id)
        lane = next(runs, None) or next(one for one in lanes if one.run is None)
        for change in changes:
            if isinstance(change, StartedChange):
                job = self._queue.live(job_id)
                assert job is not None
                lane.wait_queue.begin(job, lane.number)
                lane.run = Held(job, lane)  # type: ignore[assignment]
            self._log.append(job_id, change)
            if lane.run is not None:
                lane.run.stop()

    async def events(self, job_id: str) -> Sequence[JobEvent]:
        """The events of a job as they are kept for those who go on with it."""
        return self._log.events(job_id)

    async def settled(self) -> None:
        """Results that go for others are gone already."""


@asynccontextmanager
async def local(log: JobEventLog, space_bytes: int) -> AsyncIterator[Opened]:
    async with queue_on(OverheardSlot(), event_log=log, concurrency=2) as queue:  # type: ignore[arg-type]
        opened = Local(log, queue, space_bytes)
        yield opened
        opened.retention.close()
    log.close()


class Shared:
    """`PostgresJobStore` over a database; what works is a node that claims the job it is told.
    It has the ways in that `Local` has."""

    def __init__(self, one: Service, server: Cluster) -> None:
        self._one, self._server = one, server
        self.store, self.metrics = one.jobs, one.tally
        self._running: dict[str, tuple[Claim, JobRecord]] = {}

    @contextmanager
    def broken(self) -> Iterator[None]:
        usual_s, self._one.database.call_timeout_s = self._one.database.call_timeout_s, 0.05
        self._server.stop()
        try:
            yield
        finally:
            self._server.start()
            self._one.database.call_timeout_s = usual_s

    async def submit(self, record: JobRecord) -> None:
        await self._one.jobs.submit(record)

    async def work(self, job_id: str, *changes: JobChange) -> None:
        if not changes:
            return
        if isinstance(changes[0], StartedChange):
            await self._one.database.fetch(
                "UPDATE vibevoice.jobs SET claim = id, node = 'one' WHERE id = %s", (job_id,)
            )
            claim = await self._one.claims.claim(job_id, ClaimPreferences(ANYTHING))
            assert claim is not None
            self._running[job_id] = claim, claim.record
        claim, before = self._running[job_id]
        after = await self._one.report(claim, before, *changes)
        assert after is not None
        self._running[job_id] = claim, after

    async def events(self, job_id: str) -> Sequence[JobEvent]:
        return await self._one.events(job_id)

    async def settled(self) -> None:
        await self._one.retention.sweep()


@asynccontextmanager
async def shared(
    journal: str, folder: Path, server: Cluster, space_bytes: int
) -> AsyncIterator[Opened]:
    limits = replace(LIMITS, result_bytes=space_bytes)
    async with service(journal, folder, limits=limits) as one:
        yield Shared(one, server)


Opened = Local | Shared
Place = Callable[[str], Any]
KINDS: dict[str, Callable[[Place, int], AbstractAsyncContextManager[Opened]]] = {
    "memory": lambda place, space_bytes: local(JobEventLog(), space_bytes),
    "sqlite": lambda place, space_bytes: local(
        SqliteJobEventLog(place("tmp_path") / "jobs", "a-key-of-a-test"), space_bytes
    ),
    "postgresql": lambda place, space_bytes: shared(
        place("journal"), place("tmp_path"), place("postgres_cluster"), space_bytes
    ),
}
"""How to open a store, at a place of its own (a fixture's name)."""
SPACE_BYTES = 9 * JOB_BYTES // 2
"""Space of an owner for four short results, and not for five."""


@pytest.fixture(params=KINDS)
async def opened(request: pytest.FixtureRequest) -> AsyncGenerator[Opened, None]:
    space_bytes = SPACE_BYTES if "cramped" in request.fixturenames else 1 << 30
    async with KINDS[request.param](request.getfixturevalue, space_bytes) as opened:
        yield opened


@pytest.fixture
def cramped(opened: Opened) -> Opened:
    """A store whose owners have `SPACE_BYTES` each."""
    return opened


@pytest.fixture
def store(opened: Opened) -> JobStore:
    return opened.store


async def accepted(opened: Opened, owner: str = "ada", **more: Any) -> JobRecord:
    record = submitted(owner=owner, durable=True, **more)
    await opened.submit(record)
    return record


async def done(opened: Opened, owner: str = "ada", **more: Any) -> JobRecord:
    """A job with a transcript."""
    record = await accepted(opened, owner, **more)
    await opened.work(record.id, StartedChange(), segment(0), FINISHED)
    return await opened.store.get(record.id)


async def told(store: JobStore, job_id: str, after: int = 0) -> list[JobEvent]:
    """All events of a job up to its end."""
    return [event async for event in taken(await store.subscribe(job_id, after))]


async def following(store: JobStore, job_id: str) -> asyncio.Task[list[JobEvent]]:
    """Whoever follows a job that goes on."""
    subscription = await store.subscribe(job_id)

    async def taken() -> list[JobEvent]:
        async with aclosing(subscription.batches(PATIENCE_S)) as batches:
            return [event async for batch in batches for event in batch]

    return asyncio.ensure_future(taken())


async def is_gone(store: JobStore, job_id: str) -> bool:
    try:
        await store.get(job_id)
    except errors.JobNotFound:
        return True
    return False


def ids(records: Sequence[JobRecord]) -> list[str]:
    return [record.id for record in records]


async def test_stored_job_goes_from_queued_to_running_with_segments_to_done(
    opened: Opened, store: JobStore
) -> None:
    record = await accepted(opened)
    assert await store.get(record.id) == record
    await opened.work(record.id, StartedChange(), segment(0))
    running = await store.get(record.id)
    assert (running.state, running.attempts) == (JobState.RUNNING, 1)
    assert [one.text for one in running.segments] == ["line 0"]
    await opened.work(record.id, FINISHED)
    ended = await store.get(record.id)
    assert (ended.state, ended.transcript) == (JobState.DONE, SAID)
    with pytest.raises(errors.JobNotFound):
        await store.get("another")


async def test_idempotency_key_finds_the_job_of_its_owner_until_that_is_deleted(
    opened: Opened, store: JobStore
) -> None:
    key = IdempotencyKey("a key", "digest")
    hers, his = [await accepted(opened, owner, key=key) for owner in ("ada", "bob")]
    assert await store.by_key("ada", "a key") == hers
    assert await store.by_key("bob", "a key") == his
    assert await store.by_key("ada", "another") is None
    await store.delete(hers.id)
    assert await store.by_key("ada", "a key") is None
    again = await accepted(opened, key=key)
    assert await store.by_key("ada", "a key") == again


async def test_only_jobs_of_the_owner_are_listed_oldest_first_by_state_and_in_pages(
    opened: Opened, store: JobStore
) -> None:
    jobs = [await accepted(opened) for _ in range(5)]
    theirs = await accepted(opened, "bob")
    await opened.work(jobs[3].id, StartedChange())
    await opened.work(jobs[1].id, StartedChange(), FINISHED)
    every = ids(jobs)
    assert ids(await store.list("ada")) == every
    assert ids(await store.list("ada", JobFilter(limit=2))) == every[:2]
    assert ids(await store.list("ada", JobFilter(after=every[1]))) == every[2:]
    assert ids(await store.list("ada", JobFilter(after=every[1], limit=2))) == every[2:4]
    assert await store.list("ada", JobFilter(after=every[4])) == []
    assert await store.list("nobody") == []
    waiting = frozenset({JobState.QUEUED})
    assert ids(await store.list("ada", JobFilter(states=waiting))) == [
        every[at] for at in (0, 2, 4)
    ]
    assert ids(await store.list("ada", JobFilter(states=waiting, after=every[1], limit=1))) == [
        every[2]
    ]
    some = frozenset({JobState.RUNNING, JobState.DONE})
    assert ids(await store.list("ada", JobFilter(states=some))) == [every[1], every[3]]
    for unknown in ("another", theirs.id):
        with pytest.raises(errors.JobNotFound):
            await store.list("ada", JobFilter(after=unknown))


async def test_private_jobs_are_listed_only_on_request(opened: Opened, store: JobStore) -> None:
    private, kept = await accepted(opened, kept=False), await accepted(opened)
    assert ids(await store.list("ada")) == [kept.id]
    assert ids(await store.list("ada", JobFilter(private=True))) == [private.id, kept.id]
    assert ids(await store.list("ada", JobFilter(private=True, after=private.id))) == [kept.id]
    with pytest.raises(errors.JobNotFound):
        await store.list("ada", JobFilter(after=private.id))


async def test_subscription_yields_events_from_any_number_to_the_end(
    opened: Opened, store: JobStore
) -> None:
    record = await accepted(opened)
    early = await following(store, record.id)
    await opened.work(record.id, StartedChange(), segment(0))
    late = await following(store, record.id)
    await opened.work(record.id, segment(1), FINISHED)
    every = await told(store, record.id)
    assert [event.change for event in every] == [StartedChange(), segment(0), segment(1), FINISHED]
    numbers = [event.seq for event in every]
    assert numbers == sorted({*numbers}), "they ascend"
    assert numbers[-1] == (await store.get(record.id)).seq
    assert [await one for one in (early, late)] == [every, every]
    for at, event in enumerate(every, 1):
        assert await told(store, record.id, event.seq) == every[at:]
    with pytest.raises(errors.JobNotFound):
        await store.subscribe("another")


@pytest.mark.parametrize("changes", [(), (StartedChange(), segment(0))], ids=["waits", "runs"])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "private"])
async def test_cancelled_waiting_or_running_job_ends_for_its_subscriber_and_no_other_job_does(
    changes: Sequence[JobChange], kept: bool, opened: Opened, store: JobStore
) -> None:
    record, other = await accepted(opened, kept=kept), await accepted(opened)
    await opened.work(record.id, *changes)
    hears = await following(store, record.id)
    cancelled = await store.cancel(record.id)
    assert (cancelled.id, cancelled.state) == (record.id, JobState.CANCELLED)
    assert cancelled.error is not None
    assert cancelled.error.code == errors.JobCancelled.code
    assert [event.change for event in await hears] == [*changes, CancelledChange()]
    if kept:
        assert await store.get(record.id) == cancelled
    assert (await store.get(other.id)).state is JobState.QUEUED
    assert (await store.load("ada")).jobs == 1


@pytest.mark.parametrize("end", [FINISHED, BROKEN, None], ids=["done", "failed", "cancelled"])
async def test_state_of_resume_point_is_deleted_from_store_when_its_job_ends(
    end: JobChange | None, opened: Opened, store: JobStore
) -> None:
    record = await accepted(opened)
    await opened.work(record.id, StartedChange(), RESUME_POINT)
    assert "'large'" in str(await opened.events(record.id))
    await (store.cancel(record.id) if end is None else opened.work(record.id, end))
    assert (await store.get(record.id)).resume_points == ()
    assert "'large'" not in str(await opened.events(record.id))


@pytest.mark.parametrize("end", [FINISHED, BROKEN], ids=["done", "failed"])
async def test_cancel_of_ended_job_changes_nothing(
    end: JobChange, opened: Opened, store: JobStore
) -> None:
    record = await accepted(opened)
    await opened.work(record.id, StartedChange(), end)
    ended = await store.get(record.id)
    assert await store.cancel(record.id) == ended
    store.cancel_soon(record.id)
    assert await store.get(record.id) == ended
    with pytest.raises(errors.JobNotFound):
        await store.cancel("another")


async def test_cancel_soon_ends_waiting_and_running_jobs_also_when_repeated(
    opened: Opened, store: JobStore
) -> None:
    waits, runs = await accepted(opened), await accepted(opened)
    await opened.work(runs.id, StartedChange())
    hears = [await following(store, record.id) for record in (waits, runs)]
    store.cancel_soon("another")
    for record in (waits, runs):
        store.cancel_soon(record.id)
        store.cancel_soon(record.id)
    assert [[*await one][-1].change for one in hears] == [CancelledChange(), CancelledChange()]
    assert {one.state for one in await store.list("ada")} == {JobState.CANCELLED}


@pytest.mark.parametrize("changes", [(), (StartedChange(),), (StartedChange(), FINISHED)], ids=len)
async def test_deleted_job_is_gone_and_its_subscribers_see_its_end(
    changes: Sequence[JobChange], opened: Opened, store: JobStore
) -> None:
    record, other = await accepted(opened), await accepted(opened)
    await opened.work(record.id, *changes)
    hears = await following(store, record.id)
    await asyncio.gather(*(store.delete(record.id) for _ in range(2)))
    await store.delete(record.id)
    last = (await hears)[-1].change
    assert last == (FINISHED if FINISHED in changes else CancelledChange())
    assert await is_gone(store, record.id)
    with pytest.raises(errors.JobNotFound):
        await store.subscribe(record.id)
    assert ids(await store.list("ada", JobFilter(private=True))) == [other.id]
    assert await store.positions([record]) == {}


async def test_delete_all_ends_and_deletes_all_jobs_of_that_owner_and_none_of_another(
    opened: Opened, store: JobStore
) -> None:
    waits, runs, private = [await accepted(opened, kept=at < 2) for at in range(3)]
    await opened.work(runs.id, StartedChange())
    ended, theirs = await done(opened), await accepted(opened, "bob")
    hears = [await following(store, one.id) for one in (waits, runs, private)]
    assert await store.delete_owner("ada") == 4
    assert [(await one)[-1].change for one in hears] == [CancelledChange()] * 3
    assert await store.list("ada", JobFilter(private=True)) == []
    assert await is_gone(store, ended.id)
    assert await store.load("ada") == OwnerLoad(0, 0, 0.0)
    assert ids(await store.list("bob")) == [theirs.id]
    assert await store.delete_owner("ada") == 0


async def test_edit_is_stored_as_new_revision_and_edit_of_older_revision_is_refused(
    opened: Opened, store: JobStore
) -> None:
    record = await done(opened)
    edited = await store.edit(
        record, EditedChange((RenameSpeaker(0, "Nell"), RewriteSegment(0, "Said.")))
    )
    assert edited == await store.get(record.id)
    assert [one.text for one in edited.segments] == ["Said."]
    assert edited.history.revision == 1
    with pytest.raises(errors.TranscriptChanged):
        await store.edit(record, EditedChange((RewriteSegment(0, "Other."),)))
    assert await store.get(record.id) == edited
    same = await store.edit(edited, EditedChange((RewriteSegment(0, "Said."),)))
    assert same == await store.get(record.id) == edited, "what changes nothing is not kept"
    undone = await store.edit(edited, EditedChange(UndoStep()))
    assert (undone.transcript, undone.history.revision) == (SAID, 2)
    steps = [event.change for event in await told(store, record.id, record.seq)]
    assert steps == [
        EditedChange((RenameSpeaker(0, "Nell"), RewriteSegment(0, "Said."))),
        EditedChange(UndoStep()),
    ]
    await store.delete(record.id)
    with pytest.raises(errors.JobNotFound):
        await store.edit(undone, EditedChange(UndoStep()))


async def test_job_is_deleted_by_the_number_of_its_last_event_and_by_an_older_one_refused(
    opened: Opened, store: JobStore
) -> None:
    seen = await done(opened)
    edited = await store.edit(seen, EditedChange((RewriteSegment(0, "Said."),)))
    with pytest.raises(errors.TranscriptChanged):
        await store.delete(seen.id, seen.seq)
    assert await store.get(seen.id) == edited
    await store.delete(seen.id, edited.seq)
    await store.delete(seen.id, edited.seq)  # again: the answer may have been lost
    assert await is_gone(store, seen.id)


async def test_last_reported_diarization_is_found_after_the_end_of_its_job_and_after_an_edit(
    opened: Opened, store: JobStore
) -> None:
    def kept(data: str) -> ReportedChange:
        return ReportedChange(ResumePoint(3.0, KEPT_DIARIZATION, state={"data": data}))

    record = await accepted(opened)
    await opened.work(record.id, StartedChange(), RESUME_POINT, kept("first"), kept("last"))
    running = await store.get(record.id)
    assert [one.form for one in running.resume_points] == ["scripted"], "no attempt begins there"
    await opened.work(record.id, FINISHED)
    ended = await store.get(record.id)
    assert await store.kept_diarization(ended) == "last"
    edited = await store.edit(ended, EditedChange((RewriteSegment(0, "Said."),)))
    assert await store.kept_diarization(edited) == "last"
    assert await store.kept_diarization(await done(opened)) is None


async def test_diarization_by_an_edit_is_stored_and_undone(opened: Opened, store: JobStore) -> None:
    parts = (SegmentPart(0, 0, 2, 0, 0, False),), (SegmentPart(0, 2, 4, 0, 0, False),)
    pieces = tuple(
        DiarizedPiece(at * 1.0, at + 1.0, at, None, WordRange(0, at, at + 1), part)
        for at, part in enumerate(parts)
    )
    record = await done(opened)
    result = DiarizedPieces(pieces, ()).to_bytes()
    edited = await store.edit(record, EditedChange((DiarizeAgain(result, 2),)))
    assert edited == await store.get(record.id)
    assert [(one.speaker, one.text) for one in edited.segments] == [(0, "sa"), (1, "id")]
    undone = await store.edit(edited, EditedChange(UndoStep()))
    assert undone.transcript == SAID
    assert undone == await store.get(record.id)


async def test_exactly_one_of_concurrent_edits_of_a_revision_is_applied_and_others_refused(
    opened: Opened, store: JobStore
) -> None:
    record = await done(opened)
    edits = [EditedChange((RewriteSegment(0, f"said {number}"),)) for number in range(4)]
    tried = await asyncio.gather(
        *(store.edit(record, one) for one in edits), return_exceptions=True
    )
    assert sum(isinstance(one, JobRecord) for one in tried) == 1
    assert sum(isinstance(one, errors.TranscriptChanged) for one in tried) == 3
    assert (await store.get(record.id)).history.revision == 1


async def test_ended_live_session_is_imported_as_done_job(store: JobStore) -> None:
    record = submitted(owner="ada", durable=True)
    changes = [StartedChange(), segment(0), ReportedChange(Peaks(0, b"\x01\x02")), FINISHED]
    imported = await store.import_ended(record, changes)
    assert imported == await store.get(record.id)
    assert (imported.state, imported.transcript) == (JobState.DONE, SAID)
    assert imported.peaks == b"\x01\x02"
    assert [event.change for event in await told(store, record.id)] == changes
    assert ids(await store.list("ada")) == [record.id]
    assert await store.positions([imported]) == {}
    assert await store.load("ada") == OwnerLoad(0, 0, 0.0)


async def test_import_with_the_id_of_another_job_is_refused_and_changes_nothing(
    opened: Opened, store: JobStore
) -> None:
    there = await done(opened)
    record = replace(submitted(owner="bob", durable=True), id=there.id)
    with pytest.raises(JobIdTaken):
        await store.import_ended(record, [StartedChange(), FINISHED])
    assert await store.get(there.id) == there
    assert await store.list("bob") == []


async def test_live_session_that_ends_while_the_store_is_unwritable_is_imported_afterwards(
    opened: Opened, store: JobStore
) -> None:
    tried = asyncio.Event()

    def pauses() -> Iterator[float]:
        yield 0.01
        while True:
            tried.set()
            yield 0.01

    opened.store.save_pauses_s = pauses()
    live = submitted(owner="ada", durable=True)
    with opened.broken():
        saving = asyncio.ensure_future(store.import_ended(live, [StartedChange(), FINISHED]))
        await tried.wait()
    imported = await saving
    assert (imported.state, imported.transcript) == (JobState.DONE, SAID)
    assert imported == await store.get(live.id)


async def test_live_session_that_the_store_does_not_take_in_time_is_told_and_persisted_later(
    opened: Opened, store: JobStore
) -> None:
    opened.store.save_pauses_s = (0.01,)
    live = submitted(owner="ada", durable=True)
    with opened.broken(), pytest.raises(errors.SidecarError) as said:  # who has the sound, keeps it
        await store.import_ended(live, [StartedChange(), FINISHED])
    assert said.value.code in ("spool_unwritable", "journal_unreachable")

    async def is_there() -> bool:
        with suppress(errors.SidecarError):
            return (await store.get(live.id)).transcript == SAID
        return False

    await until_told(is_there)


async def test_live_session_that_is_persisted_later_gets_another_id_if_its_own_is_another_jobs(
    opened: Opened, store: JobStore
) -> None:
    opened.store.save_pauses_s = (0.01,)
    there = await done(opened)
    live = replace(submitted(owner="bob", durable=True), id=there.id)
    with opened.broken(), pytest.raises((errors.JournalUnreachable, JobIdTaken)) as said:
        await store.import_ended(live, [StartedChange(), FINISHED])
    if said.type is JobIdTaken:  # it is known at once, and who has the words gives another
        return

    async def is_there() -> bool:
        with suppress(errors.SidecarError):
            return [(await store.get(one.id)).transcript for one in await store.list("bob")] == [
                SAID
            ]
        return False

    await until_told(is_there)
    assert await store.get(there.id) == there


async def test_change_that_cannot_be_persisted_fails_and_can_be_repeated(
    opened: Opened, store: JobStore
) -> None:
    cancelled, deleted, edited = await accepted(opened), await accepted(opened), await done(opened)
    refused = submitted(owner="ada", durable=True)
    step = EditedChange((RewriteSegment(0, "Said."),))
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.cancel(cancelled.id),
        lambda: store.delete(deleted.id),
        lambda: opened.submit(refused),
        lambda: store.edit(edited, step),
    ]
    with opened.broken():
        for call in calls:
            with pytest.raises(errors.SidecarError) as said:
                await call()
            assert said.value.code in ("spool_unwritable", "journal_unreachable")
    await until_told(partial(is_gone, store, refused.id))  # a server may have to be told first
    for _ in range(2):
        assert (await store.cancel(cancelled.id)).state is JobState.CANCELLED
        await store.delete(deleted.id)
    now = await store.get(edited.id)
    if now.seq == edited.seq:
        now = await store.edit(edited, step)
    assert [one.text for one in now.segments] == ["Said."]
    assert [event.change for event in await told(store, cancelled.id)] == [CancelledChange()]
    assert ids(await store.list("ada")) == [cancelled.id, edited.id]


async def test_only_waiting_jobs_have_queue_position_and_expected_wait(
    opened: Opened, store: JobStore
) -> None:
    assert await store.positions([]) == {}
    ended = await done(opened)
    runs, *wait = [await accepted(opened) for _ in range(4)]
    await opened.work(runs.id, StartedChange())
    turns = await store.positions([ended, runs, *wait])
    assert [turns[record.id].position for record in wait] == [0, 1, 2]
    assert turns.keys() == {*ids(wait)}
    waits_s = [turns[record.id].wait_s for record in wait]
    assert waits_s == sorted(waits_s)
    assert waits_s[0] < waits_s[-1]
    assert (await store.positions(wait[1:2])).keys() == {wait[1].id}
    await store.cancel(wait[0].id)
    moved = await store.positions(wait)
    assert [moved[record.id].position for record in wait[1:]] == [0, 1]


async def test_load_of_owner_counts_only_its_waiting_and_running_jobs(
    opened: Opened, store: JobStore
) -> None:
    assert await store.load("ada") == OwnerLoad(0, 0, 0.0)
    runs = await accepted(opened)
    await opened.work(runs.id, StartedChange())
    await done(opened)
    await accepted(opened, kept=False)
    facts = replace(FACTS, total_s=None, channels=2)
    unknown = replace(submitted(owner="ada", durable=True), audio_info=facts)
    await opened.submit(unknown)
    await accepted(opened, "bob")
    assert await store.load("ada") == OwnerLoad(3, 2, 3.0 + 2 * UNKNOWN_AUDIO_CHARGE_S)
    await store.cancel(unknown.id)
    assert await store.load("ada") == OwnerLoad(2, 1, 3.0)


@pytest.mark.parametrize("over", [False, True], ids=["as it runs", "at its end"])
async def test_next_job_of_owner_whose_recording_far_exceeded_its_header_counts_as_unknown_length(
    over: bool, opened: Opened, store: JobStore
) -> None:
    for owner, decoded_s in (("ada", 100.0), ("bob", 60.0)):  # each header says 3 s
        long = await accepted(opened, owner)
        finished = Finished(replace(SAID, duration=decoded_s))
        heard = finished if over else Progress(decoded_s, 3.0)
        await opened.work(long.id, StartedChange(), ReportedChange(heard))
        await accepted(opened, owner)
        if not over:
            await store.cancel(long.id)
    assert await store.load("bob") == OwnerLoad(1, 1, 3.0)
    assert await store.load("ada") == OwnerLoad(
        1, 1, UNKNOWN_AUDIO_CHARGE_S, UNKNOWN_AUDIO_CHARGE_S
    )


GONE = "gone"
EDIT = EditedChange((RewriteSegment(0, "an hour of work"),))


async def used(opened: Opened, uses: str) -> list[JobRecord]:
    """Results of an owner, one after the other: as they were transcribed (t), or edited (e)."""
    records = list[JobRecord]()
    for use in uses:
        records.append(await done(opened))
        if use == "e":
            await opened.store.edit(records[-1], EDIT)
        await opened.settled()
    return records


@pytest.mark.parametrize(
    ("uses", "left"),
    [
        ("t", [7 / 9]),
        ("tt", [5 / 9, 7 / 9]),
        ("et", [None, 5 / 9]),
        ("te", [5 / 9, None]),
        ("ttttt", [GONE, 1 / 9, 3 / 9, 5 / 9, 7 / 9]),
        ("ettttt", [None, GONE, GONE, 1 / 9, 3 / 9, 5 / 9]),
        ("teeee", [GONE, None, None, None, None]),
        ("eeeee", [None] * 5),
        ("eeeeett", [None, None, None, None, None, GONE, 0.0]),
    ],
)
async def test_results_beyond_the_space_go_oldest_first_as_space_left_said_and_edited_ones_never(
    uses: str, left: list[float | str | None], cramped: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    other = await done(cramped, "bob")
    records = await used(cramped, uses)
    expiries = await cramped.store.expiries(records)
    found = [expiries[one.id].space_left if one.id in expiries else GONE for one in records]
    gone = [one.id for one in records if one.id not in expiries]
    assert ids(await cramped.store.list("ada")) == [one.id for one in records if one.id in expiries]
    assert not await is_gone(cramped.store, other.id)
    assert [
        pytest.approx(one, abs=0.03) if isinstance(one, float) else one for one in left
    ] == found
    logged = [one.getMessage() for one in caplog.records if "nobody edited" in one.getMessage()]
    assert [any(job in line for line in logged) for job in gone] == [True] * len(logged)
    assert cramped.metrics.displaced.total == len(logged)


async def test_edit_is_refused_while_edited_transcripts_fill_their_owners_space(
    cramped: Opened,
) -> None:
    edited = await used(cramped, "eeeee")
    late, other = await done(cramped), await done(cramped, "bob")
    with pytest.raises(errors.EditsFull, match="Your edited transcripts"):
        await cramped.store.edit(late, EDIT)
    assert (await cramped.store.get(late.id)) == late
    await cramped.store.edit(other, EDIT)
    await cramped.store.delete(edited[0].id)
    assert (await cramped.store.edit(late, EDIT)).history.revision == 1


async def test_result_that_ended_last_stays_although_others_that_fill_the_space_were_used_since(
    cramped: Opened,
) -> None:
    *edited, last = await used(cramped, "eeeet")
    await cramped.store.renew(edited[0])
    await cramped.store.edit(
        await cramped.store.get(edited[1].id), EditedChange((RewriteSegment(0, "more work"),))
    )
    await cramped.settled()
    assert not await is_gone(cramped.store, last.id)


async def test_transcript_with_all_its_edits_undone_is_still_one_that_a_person_edited(
    cramped: Opened,
) -> None:
    record = await done(cramped)
    after = await cramped.store.edit(record, EDIT)
    await cramped.store.edit(after, EditedChange(UndoStep()))
    await used(cramped, "tttttt")
    assert not await is_gone(cramped.store, record.id)

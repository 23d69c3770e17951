"""What every implementation of claims keeps to."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import reduce
from typing import Any
from uuid import uuid4

import pytest
from fake_claims import ANYTHING, FakeClaims, SharedJobs
from job_event_histories import submitted
from service_process import until
from shared_job_services import Services, listening, services

from sidecar import errors
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_record import (
    CountsAs,
    JobChange,
    JobEvent,
    JobRecord,
    JobState,
    ReportedChange,
    RequeuedChange,
    StartedChange,
    apply_event,
)
from sidecar.plugins.shared_jobs.claims import Claim, ClaimPreferences, ClaimStore
from sidecar.plugins.shared_jobs.job_needs import NodeCapabilities
from sidecar.transcripts.transcript import Finished, Progress, ResumePoint, Transcript

LONG = errors.AudioTooLong("It has 9.0 h.", hint="Cut it.")
ENGLISH = replace(ANYTHING, words=("engine:moonshine", "language:en", "storage:folder", "long"))
NEVER_S = 1e6
RESUME_POINT = ResumePoint(1.0, "scripted", (), {"bytes": 1})
DONE = ReportedChange(Finished(Transcript((), "", 3.0, "scripted", "fp32")))


class MemoryJobs:
    """The fake, and what a test does to shared jobs beside claims."""

    def __init__(self) -> None:
        self.shared = SharedJobs()

    async def add(self, record: JobRecord) -> None:
        """Accept a job, as a front does."""
        self.shared.add(record)

    async def get(self, job_id: str) -> JobRecord:
        """Return a job as it is persisted."""
        return self.shared.get(job_id)

    async def events(self, job_id: str) -> Sequence[JobEvent]:
        """Return its events as they are persisted."""
        return self.shared.events(job_id)

    async def end(self, job_id: str) -> None:
        """Cancel a job, as a front does."""
        self.shared.cancel(job_id)

    async def lose(self, job_id: str) -> None:
        """Have the claim on a job expire."""
        self.shared.lose(job_id)

    async def later(self, seconds: float) -> None:
        """Have all that is noted lie so much further back."""
        self.shared.now_s += seconds

    async def node(self, can: NodeCapabilities = ANYTHING) -> ClaimStore:
        """Return the claims of one more live node."""
        node = FakeClaims(self.shared)
        node.can = can
        return node

    async def front(self) -> ClaimStore:
        """Return the claims of a service that is no node."""
        return FakeClaims(self.shared, works=False)

    async def leave(self, node: ClaimStore) -> None:
        """Have a node gone."""
        assert isinstance(node, FakeClaims)
        node.leave()

    async def listens(self) -> None:
        """Return once all nodes hear what they asked to be told of: at once."""


class DatabaseJobs:
    """`ClaimStore` of several services over one database; it has the methods of `MemoryJobs`."""

    def __init__(self, all_services: Services) -> None:
        self._services, self._one = all_services, all_services.one

    async def add(self, record: JobRecord) -> None:
        await self._one.jobs.submit(record)

    async def get(self, job_id: str) -> JobRecord:
        return await self._one.jobs.get(job_id)

    async def events(self, job_id: str) -> Sequence[JobEvent]:
        return await self._one.events(job_id)

    async def end(self, job_id: str) -> None:
        await self._one.jobs.cancel(job_id)

    async def lose(self, job_id: str) -> None:
        fetch = self._one.database.fetch
        await fetch("SELECT vibevoice.beat_1('a dead node', true, false)")
        await fetch("UPDATE vibevoice.jobs SET node = 'a dead node' WHERE id = %s", (job_id,))
        await self._one.membership.expire({"a dead node": None})

    async def later(self, seconds: float) -> None:
        for shift in SHIFTS:
            await self._one.database.fetch(shift, (seconds,))

    async def node(self, can: NodeCapabilities = ANYTHING) -> ClaimStore:
        made = await self._services.more()
        made.can = can
        await made.membership.register()
        return made.claims

    async def front(self) -> ClaimStore:
        return (await self._services.more(works=False)).claims

    async def leave(self, node: ClaimStore) -> None:
        await next(one for one in self._services.all if one.claims is node).membership.leave()

    async def listens(self) -> None:
        await listening(*(one.database for one in self._services.all))


SHIFTS = (
    "UPDATE vibevoice.services SET since = since - make_interval(secs => %s)",
    "UPDATE vibevoice.jobs SET refused_since = refused_since - make_interval(secs => %s)",
    "UPDATE vibevoice.put_offs SET at = at - make_interval(secs => %s)",
)
Store = MemoryJobs | DatabaseJobs


@asynccontextmanager
async def in_memory(place: Callable[[str], Any]) -> AsyncIterator[Store]:
    yield MemoryJobs()


@asynccontextmanager
async def in_database(place: Callable[[str], Any]) -> AsyncIterator[Store]:
    async with services(place("journal"), place("tmp_path"), works=False) as all_services:
        yield DatabaseJobs(all_services)


Kind = Callable[[Callable[[str], Any]], AbstractAsyncContextManager[Store]]
STORES: dict[str, Kind] = {"memory": in_memory, "postgres": in_database}


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with STORES[request.param](request.getfixturevalue) as store:
        yield store


async def added(store: Store, owner: str = "a", **options: Any) -> str:
    record = replace(submitted(durable=True), owner=owner, options=TranscribeOptions(**options))
    await store.add(record)
    return record.id


async def asked(node: ClaimStore, can: NodeCapabilities = ANYTHING) -> Claim | None:
    return await node.claim(uuid4().hex, ClaimPreferences(can))


async def claimed(node: ClaimStore) -> Claim:
    found = await asked(node)
    assert found is not None
    return found


async def put_off(node: ClaimStore, error: errors.SidecarError, for_s: float = NEVER_S) -> str:
    """Have a node claim the next job and leave it to others; the job's id."""
    found = await claimed(node)
    await node.put_off(found.token, found.record.id, error, for_s)
    return found.record.id


async def at_work(store: Store) -> tuple[ClaimStore, str, Claim]:
    """A node, and a job that it has claimed."""
    node, job_id = await store.node(), await added(store)
    return node, job_id, await claimed(node)


def then(record: JobRecord, *changes: JobChange, gap: int = 1) -> tuple[JobRecord, list[JobEvent]]:
    """The events that follow, and the job after them."""
    events = [
        JobEvent(record.seq + gap * (number + 1), 100.0 + number, change)
        for number, change in enumerate(changes)
    ]
    return reduce(apply_event, events, record), events


async def says(node: ClaimStore, claim: Claim, *changes: JobChange, gap: int = 1) -> JobRecord:
    """Report changes of a claimed job, which are persisted."""
    record, events = then(claim.record, *changes, gap=gap)
    assert await node.report(claim.token, claim.record.seq, record, events)
    return record


async def test_jobs_are_claimed_in_order_and_none_twice_by_two_nodes(store: Store) -> None:
    one, other = await store.node(), await store.node()
    ids = [await added(store) for _ in range(3)]
    claims = [await claimed(node) for node in (one, other, one)]
    assert [claim.record.id for claim in claims] == ids
    assert len({claim.token for claim in claims}) == 3
    for node in (one, other):
        assert await asked(node) is None


async def test_job_of_second_owner_is_claimed_before_second_job_of_first_owner(
    store: Store,
) -> None:
    node = await store.node()
    ids = [await added(store, owner) for owner in "aab"]
    assert [(await claimed(node)).record.id for _ in ids] == [ids[0], ids[2], ids[1]]


async def test_claim_says_whether_more_jobs_are_queued(store: Store) -> None:
    node = await store.node()
    for _ in range(3):
        await added(store)
    assert [(await claimed(node)).more for _ in range(3)] == [True, True, False]


async def test_claim_repeated_with_its_token_returns_the_same_job(store: Store) -> None:
    node, token = await store.node(), uuid4().hex
    await added(store)
    await added(store)
    first = await node.claim(token, ClaimPreferences(ANYTHING))
    assert first is not None
    assert await node.claim(token, ClaimPreferences(ANYTHING, frozenset({"fp16"}), 3.0)) == first
    assert (await claimed(node)).record.id != first.record.id


async def test_claimed_record_includes_events_reported_under_an_earlier_claim(store: Store) -> None:
    one, other = await store.node(), await store.node()
    await added(store)
    claim = await claimed(one)
    record = await says(
        one, claim, StartedChange(), ReportedChange(RESUME_POINT), RequeuedChange(CountsAs.CRASH)
    )
    await one.release(claim.token)
    again = await claimed(other)
    assert again.record == record
    assert again.record.resume_points == (RESUME_POINT,)
    assert again.token != claim.token


async def test_report_appends_events_with_gaps_in_their_seq_and_updates_the_record(
    store: Store,
) -> None:
    node, job_id, claim = await at_work(store)
    record = await says(node, claim, StartedChange(), ReportedChange(Progress(1.0, 3.0)), gap=4)
    assert record.seq == claim.record.seq + 8
    assert await store.get(job_id) == record
    assert [event.seq for event in await store.events(job_id)] == [4, 8]
    assert record.state is JobState.RUNNING


async def test_repeated_report_is_persisted_once(store: Store) -> None:
    node, job_id, claim = await at_work(store)
    record, events = then(claim.record, StartedChange(), ReportedChange(RESUME_POINT))
    for _ in range(3):
        assert await node.report(claim.token, 0, record, events)
    assert await store.events(job_id) == events
    ended, end = then(record, DONE)
    for _ in range(3):
        assert await node.report(claim.token, record.seq, ended, end)
    assert await store.get(job_id) == ended


async def test_report_with_wrong_base_seq_is_refused_and_requeues_its_job_as_interrupted(
    store: Store,
) -> None:
    node, job_id, claim = await at_work(store)
    await says(node, claim, StartedChange())
    record, events = then(claim.record, StartedChange(), ReportedChange(RESUME_POINT), gap=3)
    assert not await node.report(claim.token, 0, record, events)
    assert [one.change for one in await store.events(job_id)] == [
        StartedChange(),
        RequeuedChange(CountsAs.DEATH),
    ]
    assert await node.mine() == frozenset()
    assert (await claimed(node)).record.id == job_id


async def test_report_with_a_lost_claim_is_refused(store: Store) -> None:
    one, job_id, claim = await at_work(store)
    other = await store.node()
    begun = await says(one, claim, StartedChange())
    await store.lose(job_id)
    record, events = then(begun, DONE)
    assert not await one.report(claim.token, begun.seq, record, events)
    again = await claimed(other)
    assert (again.record.id, again.record.interruptions) == (job_id, 1)
    assert not await one.report(claim.token, begun.seq, record, events)
    assert not await one.report(claim.token, again.record.seq, *then(again.record, DONE))
    assert (await store.get(job_id)).state is JobState.QUEUED
    await says(other, again, StartedChange(), DONE)


async def test_report_for_job_cancelled_elsewhere_is_refused_and_changes_nothing(
    store: Store,
) -> None:
    node, job_id, claim = await at_work(store)
    begun = await says(node, claim, StartedChange())
    await store.end(job_id)
    before = await store.get(job_id)
    assert not await node.report(claim.token, begun.seq, *then(begun, DONE))
    assert await store.get(job_id) == before
    assert before.state is JobState.CANCELLED


async def test_reported_end_is_final_and_ends_the_claim(store: Store) -> None:
    node, job_id, claim = await at_work(store)
    record = await says(node, claim, StartedChange(), DONE)
    assert not await node.mine()
    assert not await node.report(claim.token, record.seq, record, then(record, DONE)[1])
    await store.end(job_id)
    await node.release(claim.token)
    assert (await store.get(job_id)).state is JobState.DONE
    assert await asked(node) is None


async def test_released_job_is_claimed_by_another_node_and_its_earlier_claim_is_void(
    store: Store,
) -> None:
    one, job_id, claim = await at_work(store)
    other = await store.node()
    assert await asked(other) is None
    await one.release(claim.token)
    await one.release(claim.token)
    again = await claimed(other)
    assert again.record == claim.record
    await one.release(claim.token)  # which is another's now
    assert await other.mine() == {again.token}
    assert not await one.report(claim.token, 0, *then(claim.record, StartedChange()))
    assert (await store.get(job_id)).attempts == 0


async def test_requeued_job_without_a_release_stays_claimed(store: Store) -> None:
    one, other = await store.node(), await store.node()
    await added(store)
    claim = await claimed(one)
    record = await says(one, claim, StartedChange(), RequeuedChange(CountsAs.CRASH))
    assert record.state is JobState.QUEUED
    assert await asked(other) is None
    assert await one.mine() == {claim.token}


async def test_claim_is_valid_until_it_is_lost_or_released_or_its_job_is_cancelled(
    store: Store,
) -> None:
    node = await store.node()
    ids = [await added(store) for _ in range(4)]
    kept, lost, released, ended = [await claimed(node) for _ in ids]
    tokens = [kept.token, lost.token, released.token, ended.token]
    assert await node.mine() == {*tokens}
    await store.lose(lost.record.id)
    await node.release(released.token)
    await store.end(ended.record.id)
    assert await node.mine() == {kept.token}


async def test_job_that_a_node_put_off_is_claimed_only_by_others_until_it_has_rested(
    store: Store,
) -> None:
    one, other = await store.node(), await store.node()
    rests, fit = await added(store), await added(store)
    assert await put_off(one, errors.EngineStuck(), 60.0) == rests
    assert (await claimed(one)).record.id == fit
    assert await asked(one) is None
    found = await claimed(other)
    assert (found.record.id, found.tries) == (rests, 0)
    await other.release(found.token)
    assert await asked(one) is None
    await store.later(61.0)
    again = await claimed(one)
    assert (again.record.id, again.tries) == (rests, 1)


async def test_job_that_a_node_cannot_do_is_left_to_others_for_as_long_as_one_may_do_it(
    store: Store,
) -> None:
    one, other, unable = await store.node(), await store.node(), await store.node(ENGLISH)
    job_id = await added(store, language="el")
    await put_off(one, LONG, 60.0)
    await store.later(61.0)
    assert await asked(one) is None, "the other is busy, but may do it"
    found = await claimed(other)
    await other.put_off(found.token, job_id, errors.EngineStuck(), 60.0, unable=True)
    again = await asked(one)
    assert again is not None, "no other may do it any more"
    assert (again.record.id, again.tries) == (job_id, 1)
    assert await asked(unable, ENGLISH) is None


async def test_job_left_to_others_for_no_time_is_claimed_again_by_the_only_node_and_not_refused(
    store: Store,
) -> None:
    one, other = await store.node(), await store.node()
    job_id = await added(store)
    await put_off(one, errors.EngineCrashed(), 0.0)
    assert await asked(one) is None, "the other goes first"
    await put_off(other, errors.EngineCrashed(), 0.0)
    await one.end_unschedulable(0.0)
    assert (await store.get(job_id)).refused is None
    assert (await claimed(one)).record.id == job_id


async def test_job_left_to_others_for_no_time_is_claimed_again_while_they_meet_a_fault(
    store: Store,
) -> None:
    one, other = await store.node(), await store.node()
    job_id = await added(store)
    await put_off(one, errors.EngineCrashed(), 0.0)
    await put_off(other, errors.DiskFull(), 60.0)
    assert (await claimed(one)).record.id == job_id


async def test_job_that_its_node_left_to_others_is_none_of_the_fresh_ones(store: Store) -> None:
    one = await store.node()
    tried, fresh = await added(store), await added(store)
    await put_off(one, errors.DiskFull(), 60.0)
    await store.later(61.0)
    for expected in (fresh, None):
        found = await one.claim(uuid4().hex, ClaimPreferences(ANYTHING, fresh=True))
        assert (found and found.record.id) == expected
    assert (await claimed(one)).record.id == tried


async def test_progress_makes_a_job_fresh_again(store: Store) -> None:
    one, other = await store.node(), await store.node()
    job_id = await added(store)
    await put_off(one, LONG, 60.0)
    claim = await claimed(other)
    progress = StartedChange(), ReportedChange(RESUME_POINT), RequeuedChange()
    await says(other, claim, *progress)
    await other.release(claim.token)
    again = await claimed(one)
    assert (again.record.id, again.tries) == (job_id, 0)


async def test_put_off_with_a_lost_claim_changes_nothing(store: Store) -> None:
    node, job_id, lost = await at_work(store)
    await node.release(lost.token)
    await node.put_off(lost.token, job_id, LONG, NEVER_S)
    assert (await claimed(node)).tries == 0


async def test_job_is_claimed_only_by_a_node_that_can_do_what_it_needs(store: Store) -> None:
    node = await store.node()
    german = await added(store, language="de-AT")
    greek = await added(store, language="el", translate=True)
    english = await added(store, language="en")
    found = await asked(node, ENGLISH)
    assert found is not None
    assert found.record.id == english
    assert await asked(node, ENGLISH) is None
    assert await asked(node, replace(ANYTHING, longest_s=1.0)) is None
    able = replace(ENGLISH, words=(*ENGLISH.words, "language:el", "translate"))
    found = await asked(node, able)
    assert found is not None
    assert found.record.id == greek
    assert (await claimed(node)).record.id == german


async def test_job_that_no_node_can_do_is_marked_refused_and_later_fails_as_unschedulable(
    store: Store,
) -> None:
    one, other = await store.node(ENGLISH), await store.node()
    job_id = await added(store, language="el")
    await one.end_unschedulable(0.0)
    assert (await store.get(job_id)).refused is None, "the other can do it"
    await put_off(other, LONG, 60.0)
    await other.end_unschedulable(NEVER_S)
    refused = (await store.get(job_id)).refused
    assert refused is not None
    assert "audio_too_long" in refused.detail
    assert "language_unsupported" in refused.detail
    count = len(await store.events(job_id))
    await one.end_unschedulable(NEVER_S)
    assert len(await store.events(job_id)) == count, "it was told again"
    able = await store.node()
    await one.end_unschedulable(NEVER_S)
    assert (await store.get(job_id)).refused is None
    await put_off(able, LONG)
    await one.end_unschedulable(NEVER_S)
    await store.later(3600.0)
    await one.end_unschedulable(7200.0)
    assert (await store.get(job_id)).state is JobState.QUEUED
    await one.end_unschedulable(1800.0)
    record = await store.get(job_id)
    assert record.state is JobState.FAILED
    assert record.error is not None
    assert record.error.code == "unschedulable"


async def test_time_in_which_another_node_came_counts_from_then(store: Store) -> None:
    one = await store.node(ENGLISH)
    job_id = await added(store, language="el")
    await one.end_unschedulable(NEVER_S)
    await store.later(3600.0)
    await store.node(ENGLISH)
    await one.end_unschedulable(1800.0)
    record = await store.get(job_id)
    assert record.state is JobState.QUEUED
    assert record.refused is not None
    assert "2 × language_unsupported" in record.refused.detail
    await store.later(3600.0)
    await one.end_unschedulable(1800.0)
    assert (await store.get(job_id)).state is JobState.FAILED


async def test_job_that_a_node_puts_off_for_a_temporary_fault_stays_queued(store: Store) -> None:
    one, other = await store.node(), await store.node()
    job_id = await added(store)
    await put_off(one, errors.EngineStuck(), 7200.0)
    await put_off(other, LONG)
    await one.end_unschedulable(NEVER_S)
    await store.later(3600.0)
    await one.end_unschedulable(60.0)
    count = len(await store.events(job_id))
    await one.end_unschedulable(60.0)
    assert len(await store.events(job_id)) == count, "it was told again"
    waiting = await store.get(job_id)
    assert waiting.state is JobState.QUEUED
    assert waiting.refused is not None
    await store.later(7200.0)
    await one.end_unschedulable(60.0)
    assert (await store.get(job_id)).refused is None, "it may be over"


async def test_job_stays_queued_and_is_not_marked_refused_while_no_node_is_live(
    store: Store,
) -> None:
    front, node = await store.front(), await store.node(ENGLISH)
    job_id = await added(store, language="el")
    await store.leave(node)
    await front.end_unschedulable(0.0)
    record = await store.get(job_id)
    assert (record.state, record.refused) == (JobState.QUEUED, None)


async def test_claimed_job_that_no_node_can_do_does_not_end_as_unschedulable(
    store: Store,
) -> None:
    node = await store.node(ENGLISH)
    job_id = await added(store, language="el")
    await claimed(node)
    await node.end_unschedulable(0.0)
    record = await store.get(job_id)
    assert (record.state, record.refused) == (JobState.QUEUED, None)


async def test_nodes_are_notified_of_claimable_jobs_and_of_jobs_ended_elsewhere(
    store: Store,
) -> None:
    one, other = await store.node(), await store.node()
    waiting, ended = list[None](), list[str]()
    for node in (one, other):  # of nodes that do nothing, at least one is told
        node.on_waiting(lambda: waiting.append(None))
    one.on_ended(ended.append)
    await store.listens()
    waiting.clear()
    job_id = await added(store)
    await until(lambda: waiting)
    claim = await claimed(one)
    waiting.clear()
    await one.release(claim.token)
    await until(lambda: waiting)
    await claimed(one)
    waiting.clear()
    await store.lose(job_id)
    await until(lambda: waiting)
    await claimed(one)
    await store.end(job_id)
    await until(lambda: job_id in ended)

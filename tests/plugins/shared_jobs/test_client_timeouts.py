"""Jobs whose clients timed out, between services that share them: taken over once, or ended."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from postgres import Cluster
from service_process import until
from shared_job_services import Service, submitted
from uploads import upload

from sidecar import errors
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.jobs.job_store import JobFilter
from sidecar.plugins.shared_jobs.front_queue import SharedJobQueue

ABSENCE_S = 900
"""Seconds for which the clients' jobs of a service that is cut off stay (docs/journal.md)."""


class Front(SharedJobQueue):
    """A service at which clients wait."""

    def __init__(self, one: Service) -> None:
        super().__init__(one.jobs, one.follower, 1000, one.membership)
        self.service = one

    async def accepted(self) -> Job:
        """A job whose client waits."""
        job = Job(upload(b"a recording"), submitted("me", kept=False))
        await self.submit(job)
        return job

    async def left(self, job: Job, digest: str = "sent") -> None:
        """The client of a job times out."""
        self.leave(job, digest)
        await until(lambda: self.service.jobs.ending.idle)

    async def taken(self, owner: str = "me", digest: str = "sent") -> Job | None:
        """The job that a request takes over."""
        with upload(b"a recording") as source:
            return await self.take(owner, digest, source)

    async def all_jobs(self) -> list[str]:
        """Ids of all jobs."""
        return [one.id for one in await self.service.jobs.list("me", JobFilter(private=True))]


@pytest.fixture
def here(one: Service) -> Front:
    return Front(one)


@pytest.fixture
def there(other: Service) -> Front:
    return Front(other)


async def later(one: Service, seconds: float) -> None:
    """As if all clients had timed out so much earlier."""
    back = "UPDATE vibevoice.jobs SET left_until = left_until - make_interval(secs => %s)"
    await one.database.fetch(back, (seconds,))


async def test_repeated_request_takes_over_its_timed_out_job_once_and_only_for_its_owner(
    here: Front, there: Front
) -> None:
    job = await here.accepted()
    assert await there.taken() is None, "its client still waits"
    await here.left(job)
    assert await there.taken("somebody else") is None
    assert await there.taken(digest="another") is None
    both = await asyncio.gather(there.taken(), there.taken(), here.taken())
    (again,) = [each for each in both if each is not None]
    assert again.id == job.id
    await (there if again in both[:2] else here).left(again)
    found = await here.taken()
    assert found is not None, "a client may time out more than once"
    assert found.id == job.id


async def test_two_equal_requests_that_timed_out_take_over_a_job_each(
    here: Front, there: Front
) -> None:
    jobs = [await here.accepted(), await here.accepted()]
    for job in jobs:
        await here.left(job)
    both = await asyncio.gather(here.taken(), there.taken())
    assert {job.id for job in both if job is not None} == {job.id for job in jobs}
    assert await here.taken() is None


async def test_owner_has_left_a_job_from_its_timeout_until_a_request_takes_it_over(
    here: Front, there: Front
) -> None:
    job = await here.accepted()
    assert not await there.has_left("me")
    await here.left(job)
    assert await there.has_left("me")
    assert not await there.has_left("somebody else")
    assert await there.taken() is not None
    assert not await there.has_left("me")


async def test_job_of_timed_out_client_without_retry_is_deleted_and_job_taken_over_stays(
    one: Service, here: Front
) -> None:
    lost, kept = await here.accepted(), await here.accepted()
    await here.left(kept, "kept")
    assert await here.taken(digest="kept") is not None
    await here.left(lost, "left")
    await one.retention.delete_overdue()
    assert await here.all_jobs() == [lost.id, kept.id], "its client may come again"
    await later(one, 31)
    await one.retention.sweep()
    assert await here.all_jobs() == [kept.id]
    assert await here.taken(digest="left") is None
    assert one.tally.ended.of("cancelled") == 1


@pytest.mark.slow
async def test_client_timeout_during_database_outage_is_recorded_when_the_database_is_back(
    here: Front, postgres_cluster: Cluster
) -> None:
    job = await here.accepted()
    with postgres_cluster.stopped():
        here.leave(job, "sent")
        with pytest.raises(errors.JournalUnreachable):
            await here.taken()
    await until(lambda: here.service.jobs.ending.idle)
    found = await here.taken()
    assert found is not None
    assert found.id == job.id


Call = Callable[..., Awaitable[object]]


def first_answer_lost(
    one: Service,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    then: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """The answer to the first call of a function is lost; ``then``: what happens next."""
    call: Call = one.database.call
    calls = 0

    async def unanswered(function: str, *values: object) -> object:
        nonlocal calls
        found = await call(function, *values)
        if function == name and (calls := calls + 1) == 1:
            if then is not None:
                await then()
            raise errors.JournalUnreachable()
        return found

    monkeypatch.setattr(one.database, "call", unanswered)


@pytest.mark.parametrize("again", [False, True], ids=["it waits there", "it timed out there, too"])
async def test_repeated_timeout_call_does_not_undo_a_takeover_by_another_front(
    one: Service, here: Front, there: Front, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """The second front takes the job over before the first repeats its call."""
    job = await here.accepted()

    async def taken() -> None:
        taken = await there.taken()
        assert taken is not None
        if again:
            await there.left(taken, "sent later")

    first_answer_lost(one, monkeypatch, "leave_1", taken)
    await here.left(job)
    assert (await there.service.jobs.get(job.id)).error is None
    assert await here.taken() is None, "its client waits at the other, or sent another request"
    assert (await here.taken(digest="sent later") is not None) is again


async def test_job_taken_over_by_an_unanswered_call_is_left_to_the_next_request(
    one: Service, here: Front, there: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await here.accepted()
    await here.left(job)
    first_answer_lost(one, monkeypatch, "take_1")
    with pytest.raises(errors.JournalUnreachable):
        await here.taken()
    await until(lambda: one.jobs.ending.idle)
    again = await there.taken()
    assert again is not None
    assert again.id == job.id


async def test_takeover_executed_after_the_call_that_gave_it_up_takes_no_job(
    one: Service, here: Front, there: Front
) -> None:
    job = await here.accepted()
    await here.left(job)
    one.jobs.leave_soon("late", "sent")
    await until(lambda: one.jobs.ending.idle)
    assert await one.jobs.take("me", "sent", "late") is None, "nobody waits for it"
    again = await there.taken()
    assert again is not None
    assert again.id == job.id


async def test_repeated_takeover_call_returns_the_same_job(one: Service, here: Front) -> None:
    jobs = [await here.accepted() for _ in range(2)]
    for job in jobs:
        await here.left(job)
    first, repeated = [await one.jobs.take("me", "sent", "token") for _ in range(2)]
    assert first is not None
    assert repeated == first


async def test_job_cancelled_after_its_client_timed_out_is_not_taken_over(
    one: Service, here: Front
) -> None:
    job = await here.accepted()
    await here.left(job)
    await one.jobs.cancel(job.id)
    assert await here.taken() is None, "the request gets a job of its own"


async def test_job_deleted_as_it_is_taken_over_is_no_answer_to_the_request(
    one: Service, here: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.left(await here.accepted())
    get = one.jobs.get

    async def late(job_id: str) -> JobRecord:
        await one.jobs.delete(job_id)
        return await get(job_id)

    monkeypatch.setattr(one.jobs, "get", late)
    assert await here.taken() is None


async def test_job_whose_client_waited_at_a_dead_service_is_deleted_when_overdue(
    one: Service, other: Service, here: Front, there: Front
) -> None:
    job = await there.accepted()
    kept = submitted("me")
    await other.jobs.submit(kept)
    await other.membership.leave()
    await one.retention.sweep()
    for _ in range(ABSENCE_S // 60):
        await one.retention.sweep()
        assert await here.all_jobs() == [job.id, kept.id], "its service may only be cut off"
        await later(one, 60)
    await one.retention.sweep()
    assert await here.all_jobs() == [kept.id]


async def test_one_check_deletes_all_overdue_jobs_in_batches_longest_overdue_first(
    one: Service, here: Front
) -> None:
    one.retention.max_jobs = 2
    jobs = [submitted("me", kept=False) for _ in range(5)]
    for ago, job in enumerate(jobs, 1):
        await one.jobs.submit(job)
        await one.database.fetch(
            """UPDATE vibevoice.jobs SET awaited_as = NULL, left_until = clock_timestamp()
                - make_interval(secs => %s) WHERE id = %s""",
            (ago, job.id),
        )
    assert len(await one.database.call("delete_overdue_1", 2)) == 2
    assert await here.all_jobs() == [job.id for job in jobs[:3]]
    await one.retention.delete_overdue()
    assert await here.all_jobs() == []


@pytest.mark.parametrize("answered", [True, False])
async def test_service_wrongly_taken_for_dead_keeps_the_jobs_of_its_clients(
    one: Service, other: Service, here: Front, there: Front, answered: bool
) -> None:
    await there.accepted()
    await one.membership.expire({"other": None})
    await one.retention.delete_overdue()
    await later(one, 35)  # the line to the database was cut for so long
    await one.retention.delete_overdue()
    if not answered:  # its first heartbeat was executed, but the answer is lost
        await other.database.call("beat_1", "other", True, False)
    await other.membership.register()
    await later(one, ABSENCE_S)
    await one.retention.delete_overdue()
    assert len(await here.all_jobs()) == 1


async def test_overdue_job_of_a_client_at_a_service_that_is_there_is_not_deleted(
    one: Service, there: Front, here: Front
) -> None:
    job = await there.accepted()
    # as left by a sweep that ran beside the registration of its service
    await one.database.fetch(
        "UPDATE vibevoice.jobs SET left_until = now() - interval '1 s' WHERE id = %s RETURNING 1",
        (job.id,),
    )
    await one.retention.delete_overdue()
    assert await here.all_jobs() == [job.id]


async def test_job_whose_submission_is_executed_after_its_service_left_is_deleted_when_overdue(
    one: Service, other: Service, here: Front, there: Front
) -> None:
    """As by a server that was frozen and executes the call when the service has gone."""
    await other.membership.leave()
    await there.accepted()
    await one.retention.sweep()
    await later(one, ABSENCE_S + 1)
    await one.retention.sweep()
    assert await here.all_jobs() == []


async def test_end_of_a_job_that_its_client_left_deletes_it_nowhere(
    one: Service, here: Front
) -> None:
    job = await here.accepted()
    here.leave(job, "sent")
    claim = await one.claimed()
    await one.run(claim)
    await until(lambda: one.jobs.ending.idle)
    again = await here.taken()
    assert again is not None
    assert (await again.result()).text == "hello"


async def test_front_that_follows_all_jobs_follows_one_that_its_client_left(
    one: Service, here: Front
) -> None:
    here.follows_all = True
    job = await here.accepted()
    await here.left(job)
    await one.run(await one.claimed())
    await until(lambda: job.ended)
    assert job.error is None

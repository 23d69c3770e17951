"""Jobs whose clients timed out, between services that share them: taken over once, or ended."""

import asyncio

import pytest
from postgres import KEY, Cluster
from service_process import until
from shared_job_services import Service, stop, submitted, until_told
from uploads import upload

from sidecar import errors
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.jobs.job_store import JobFilter
from sidecar.plugins.shared_jobs.front_queue import SharedClientTimeouts
from sidecar.plugins.shared_jobs.postgres_database import migrate_postgres


class Front:
    """A service, and the clients that wait at it: those of the jobs that are ``awaited``."""

    follows_all = False

    def __init__(self, one: Service, journal: str) -> None:
        self.jobs, self.awaited = one.jobs, list[str]()
        seal = migrate_postgres(journal, KEY)
        self.timeouts = SharedClientTimeouts(
            one.database, seal, one.membership.id, one.jobs, self, 0.05
        )

    def expect(self, job: Job) -> None:
        self.awaited.append(job.id)

    def give_up(self, job: Job) -> None:
        self.awaited.remove(job.id)

    async def accepted(self) -> Job:
        """A job whose client waits."""
        job = Job(upload(b"a recording"), submitted("me", kept=False))
        await self.jobs.submit(job.record)
        self.expect(job)
        return job

    async def left(self, job: Job, digest: str = "sent", for_s: float = 60) -> None:
        """The client of a job times out."""
        self.timeouts.leave(job, digest, for_s)
        await until(lambda: self.timeouts.leaving.idle)

    async def taken(self, owner: str = "me", digest: str = "sent") -> Job | None:
        """The job that a request takes over."""
        with upload(b"a recording") as source:
            return await self.timeouts.take(owner, digest, source)

    async def all_jobs(self) -> list[str]:
        """Ids of all jobs."""
        return [one.id for one in await self.jobs.list("me", JobFilter(private=True))]


@pytest.fixture
def here(one: Service, journal: str) -> Front:
    return Front(one, journal)


@pytest.fixture
def there(other: Service, journal: str) -> Front:
    return Front(other, journal)


async def later(one: Service, column: str, seconds: float) -> None:
    """As if a time of all jobs lay so much further back."""
    back = f"UPDATE vibevoice.jobs SET {column} = {column} - make_interval(secs => %s)"
    await one.database.fetch(back, (seconds,))


async def test_repeated_request_takes_over_its_timed_out_job_once_and_only_for_its_owner(
    here: Front, there: Front
) -> None:
    job = await here.accepted()
    assert await there.taken() is None, "its client still waits"
    await here.left(job)
    assert here.awaited == []
    assert await there.taken("somebody else") is None
    assert await there.taken(digest="another") is None
    both = await asyncio.gather(there.taken(), there.taken(), here.taken())
    (again,) = [each for each in both if each is not None]
    assert again.id == job.id
    assert here.awaited + there.awaited == [job.id]
    await (here if here.awaited else there).left(again)
    found = await here.taken()
    assert found is not None, "a client may time out more than once"
    assert found.id == job.id


async def test_job_of_timed_out_client_without_retry_is_deleted_and_job_taken_over_stays(
    one: Service, here: Front
) -> None:
    lost, kept = await here.accepted(), await here.accepted()
    await here.left(kept, "kept")
    assert await here.taken(digest="kept") is not None
    await here.left(lost, "left")
    await later(one, "left_until", 61)
    looking = asyncio.create_task(here.timeouts.end_in_time())

    async def gone() -> bool:
        return await here.all_jobs() == [kept.id]

    await until_told(gone)
    assert await here.taken(digest="left") is None
    await stop([looking])


@pytest.mark.slow
async def test_client_timeout_during_database_outage_is_recorded_when_the_database_is_back(
    here: Front, postgres_cluster: Cluster
) -> None:
    job = await here.accepted()
    with postgres_cluster.stopped():
        here.timeouts.leave(job, "sent", 60)
        with pytest.raises(errors.JournalUnreachable):
            await here.taken()
    await until(lambda: here.timeouts.leaving.idle)
    found = await here.taken()
    assert found is not None
    assert found.id == job.id


@pytest.mark.parametrize("again", [False, True], ids=["it waits there", "it timed out there, too"])
async def test_repeated_timeout_call_does_not_undo_a_takeover_by_another_front(
    one: Service, here: Front, there: Front, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """The second front takes the job over before the first repeats its call."""
    job, call, calls = await here.accepted(), one.database.call, 0

    async def unanswered(function: str, *values: object) -> object:
        nonlocal calls
        found = await call(function, *values)
        if function == "leave_1" and (calls := calls + 1) == 1:
            taken = await there.taken()
            assert taken is not None
            if again:
                await there.left(taken, "sent later")
            raise errors.JournalUnreachable()
        return found

    monkeypatch.setattr(one.database, "call", unanswered)
    await here.left(job)
    assert calls == 2
    assert (await there.jobs.get(job.id)).error is None
    assert await here.taken() is None, "its client waits at the other, or sent another request"
    assert (await here.taken(digest="sent later") is not None) is again


async def test_job_cancelled_after_its_client_timed_out_is_not_taken_over(
    one: Service, here: Front
) -> None:
    job = await here.accepted()
    await here.left(job)
    await one.jobs.cancel(job.id)
    assert await here.taken() is None, "the request gets a job of its own"


async def test_job_taken_over_by_an_unanswered_call_can_be_taken_over_again_after_a_delay(
    one: Service, here: Front
) -> None:
    job = await here.accepted()
    await here.left(job)
    await one.database.fetch("UPDATE vibevoice.jobs SET left_taker = 'a call'")
    await one.database.fetch("UPDATE vibevoice.jobs SET left_taken = clock_timestamp()")
    assert await here.taken() is None, "its answer may be on its way"
    await later(one, "left_taken", 13)
    assert await here.taken() is not None


async def test_job_whose_client_waited_at_a_dead_service_is_deleted_when_overdue(
    one: Service, other: Service, here: Front, there: Front
) -> None:
    job = await there.accepted()
    kept = submitted("me")
    await other.jobs.submit(kept)
    await other.membership.leave()
    await here.timeouts.end_overdue()
    assert await here.all_jobs() == [job.id, kept.id], "its client may come again"
    await later(one, "left_until", 31)
    await here.timeouts.end_overdue()
    assert await here.all_jobs() == [kept.id]


async def test_one_check_deletes_all_overdue_jobs_in_batches_longest_overdue_first(
    one: Service, here: Front
) -> None:
    one.jobs.overdue_jobs = 2
    jobs = [submitted("me", kept=False) for _ in range(5)]
    for ago, job in enumerate(jobs, 1):
        await one.jobs.submit(job)
        await one.database.fetch(
            """UPDATE vibevoice.jobs SET left_until = clock_timestamp()
                - make_interval(secs => %s) WHERE id = %s""",
            (ago, job.id),
        )
    assert await one.jobs.delete_overdue() == 2
    assert await here.all_jobs() == [job.id for job in jobs[:3]]
    await here.timeouts.end_overdue()
    assert await here.all_jobs() == []


@pytest.mark.parametrize("answered", [True, False])
async def test_service_wrongly_taken_for_dead_keeps_the_jobs_of_its_clients(
    one: Service, other: Service, here: Front, there: Front, answered: bool
) -> None:
    await there.accepted()
    await one.membership.expire({"other": None})
    if not answered:  # its first heartbeat was executed, but the answer is lost
        await other.database.call("beat_1", "other", True, False)
    await other.membership.register()
    await later(one, "left_until", 31)
    await here.timeouts.end_overdue()
    assert len(await here.all_jobs()) == 1


async def test_job_whose_submission_is_executed_after_its_service_left_is_deleted_when_overdue(
    one: Service, other: Service, here: Front, there: Front
) -> None:
    """As by a server that was frozen and executes the call when the service has gone."""
    await other.membership.leave()
    await there.accepted()
    await one.retention.sweep()
    await later(one, "left_until", 31)
    await here.timeouts.end_overdue()
    assert await here.all_jobs() == []


async def test_taker_of_a_job_that_timed_out_cannot_await_it_and_the_next_request_can(
    one: Service,
) -> None:
    job = submitted("me", kept=False)
    await one.jobs.submit(job)
    code = ("me", "code")
    await one.database.call("leave_1", job.id, "code", 60.0, None)
    assert await one.database.call("take_1", *code, "first")
    await one.database.call("leave_1", job.id, "code", 30.0, "first")
    assert not await one.database.call("await_1", job.id, "one", "first")
    assert await one.database.call("take_1", *code, "second")
    assert await one.database.call("await_1", job.id, "one", "second")


async def test_slow_takeover_loses_the_job_to_another_front(
    one: Service, here: Front, there: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await here.accepted()
    await here.left(job)
    get, took = one.jobs.get, list[Job | None]()

    async def slowly(job_id: str) -> JobRecord:
        await later(one, "left_taken", 13)
        took.append(await there.taken())
        return await get(job_id)

    monkeypatch.setattr(one.jobs, "get", slowly)
    assert await here.taken() is None
    assert took[0] is not None


async def test_front_gives_up_a_timed_out_client_before_it_tells_the_database(here: Front) -> None:
    job = await here.accepted()
    here.timeouts.leave(job, "sent", 60)
    assert here.awaited == [], "its end would delete it before anything else is done here"


async def test_front_of_timed_out_client_is_no_follower_of_the_job_unless_it_follows_all_jobs(
    one: Service, here: Front, there: Front
) -> None:
    followers = "SELECT followers FROM vibevoice.jobs"
    job = await here.accepted()
    await here.left(job)
    assert await one.database.fetch(followers) == [([],)]
    again = await there.taken()
    assert again is not None
    assert await one.database.fetch(followers) == [(["other"],)]
    there.follows_all = True
    await there.left(again)
    assert await here.taken() is not None
    assert await one.database.fetch(followers) == [(["other", "one"],)], "it counts its events"

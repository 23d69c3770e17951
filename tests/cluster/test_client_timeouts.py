"""Jobs whose clients timed out, between services that share them: taken over once, or ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from postgres import KEY, Cluster
from service_process import until
from shared_job_services import Service, service, stop, submitted, until_told

from sidecar import errors
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.upload_spool import UploadSpool
from sidecar.cluster import front_queue, postgres_jobs
from sidecar.cluster.front_queue import ClientTimeouts
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.jobs.job_store import JobFilter
from sidecar.storage.postgres_database import migrate_postgres


def recording() -> AudioSource:
    spool = UploadSpool(None)
    spool.add(b"a recording")
    return spool.finish()


class Awaited:
    """The jobs that clients of one service wait for."""

    follows_all = False

    def __init__(self) -> None:
        self.jobs: list[str] = []

    def expect(self, job: Job) -> None:
        self.jobs.append(job.id)

    def give_up(self, job: Job) -> None:
        self.jobs.remove(job.id)


def timeouts_of(one: Service, journal: str) -> tuple[ClientTimeouts, Awaited]:
    awaited = Awaited()
    return ClientTimeouts(
        one.database, migrate_postgres(journal, KEY), one.membership.id, one.jobs, awaited
    ), awaited


async def accepted(one: Service, awaited: Awaited) -> Job:
    job = Job(recording(), submitted("me", kept=False))
    await one.jobs.submit(job.record)
    awaited.expect(job)
    return job


async def left(timeouts: ClientTimeouts, job: Job, digest: str, for_s: float) -> None:
    timeouts.leave(job, digest, for_s)
    await until(lambda: not timeouts._leaving._tasks)


async def taken(timeouts: ClientTimeouts, owner: str = "me", digest: str = "sent") -> Job | None:
    source = recording()
    try:
        return await timeouts.take(owner, digest, source)
    finally:
        source.close()


async def test_the_same_request_takes_its_job_over_once_and_no_other_owner_s(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        (here, waits), (there, waits_there) = (timeouts_of(each, journal) for each in (one, other))
        job = await accepted(one, waits)
        assert await taken(there) is None, "its client still waits"
        await left(here, job, "sent", 60)
        assert waits.jobs == []
        assert await taken(there, "somebody else") is None
        assert await taken(there, digest="another") is None
        both = await asyncio.gather(taken(there), taken(there), taken(here))
        (again,) = [one for one in both if one is not None]
        assert again.id == job.id
        assert waits.jobs + waits_there.jobs == [job.id]
        await left(here if waits.jobs else there, again, "sent", 60)
        found = await taken(here)
        assert found is not None, "a client may time out more than once"
        assert found.id == job.id


async def test_a_job_whose_client_does_not_come_back_ends_and_one_that_was_taken_stays(
    journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_queue, "TIMEOUT_POLL_S", 0.05)
    async with service(journal, tmp_path) as one:
        timeouts, waits = timeouts_of(one, journal)
        lost, kept = await accepted(one, waits), await accepted(one, waits)
        await left(timeouts, kept, "kept", 0.3)
        assert await taken(timeouts, digest="kept") is not None
        await left(timeouts, lost, "left", 0.3)
        looking = asyncio.create_task(timeouts.end_in_time())

        async def gone() -> bool:
            found = await one.jobs.list("me", JobFilter(private=True))
            return [record.id for record in found] == [kept.id]

        await until_told(gone)
        assert await taken(timeouts, digest="left") is None
        await stop([looking])


@pytest.mark.slow
async def test_a_job_that_cannot_be_left_is_left_once_the_database_is_back(
    journal: str, tmp_path: Path, postgres_cluster: Cluster
) -> None:
    async with service(journal, tmp_path) as one:
        timeouts, waits = timeouts_of(one, journal)
        job = await accepted(one, waits)
        postgres_cluster.stop()
        try:
            timeouts.leave(job, "sent", 60)
            with pytest.raises(errors.JournalUnreachable):
                await taken(timeouts)
        finally:
            postgres_cluster.start()
        await until(lambda: not timeouts._leaving._tasks)
        found = await taken(timeouts)
        assert found is not None
        assert found.id == job.id


async def test_a_job_that_another_service_took_is_not_ended_by_the_lost_answer_of_the_one_before(
    journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        (here, waits), (there, _) = (timeouts_of(each, journal) for each in (one, other))
        job, call, calls = await accepted(one, waits), one.database.call, 0

        async def unanswered(function: str, *values: object) -> object:
            nonlocal calls
            found = await call(function, *values)
            if function == "leave_1" and (calls := calls + 1) == 1:
                assert await taken(there) is not None
                raise errors.JournalUnreachable()
            return found

        monkeypatch.setattr(one.database, "call", unanswered)
        await left(here, job, "sent", 60)
        assert calls == 2
        assert (await other.jobs.get(job.id)).error is None
        assert await taken(here) is None, "its client waits at the other"


async def test_a_job_that_was_cancelled_after_it_was_left_is_not_taken(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path) as one:
        timeouts, waits = timeouts_of(one, journal)
        job = await accepted(one, waits)
        await left(timeouts, job, "sent", 60)
        await one.jobs.cancel(job.id)
        assert await taken(timeouts) is None, "the request gets a job of its own"


async def test_nobody_waits_any_more_for_a_job_that_is_being_left(
    journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it ends in this moment, the service that is left must not delete it."""
    async with service(journal, tmp_path) as one:
        timeouts, waits = timeouts_of(one, journal)
        job, call, waiting = await accepted(one, waits), one.database.call, []

        async def asked(function: str, *values: object) -> object:
            waiting.append((function, [*waits.jobs]))
            return await call(function, *values)

        monkeypatch.setattr(one.database, "call", asked)
        await left(timeouts, job, "sent", 60)
        assert waiting == [("leave_1", [])]


async def test_a_job_that_was_taken_by_a_call_without_an_answer_is_taken_again(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path) as one:
        timeouts, waits = timeouts_of(one, journal)
        job = await accepted(one, waits)
        await left(timeouts, job, "sent", 60)
        await one.database.fetch("UPDATE vibevoice.jobs SET left_taker = 'a call'")
        await one.database.fetch("UPDATE vibevoice.jobs SET left_taken = clock_timestamp()")
        assert await taken(timeouts) is None, "its answer may be on its way"
        back = "UPDATE vibevoice.jobs SET left_taken = left_taken - interval '13 s'"
        await one.database.fetch(back)
        assert await taken(timeouts) is not None


async def test_a_job_whose_client_waited_at_a_service_that_died_ends_after_a_while(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        timeouts, _ = timeouts_of(one, journal)
        _, waits = timeouts_of(other, journal)
        job = await accepted(other, waits)
        kept = submitted("me")
        await other.jobs.submit(kept)
        await other.membership.leave()
        await timeouts._end_overdue()
        assert len(await one.jobs.list("me", JobFilter(private=True))) == 2, (
            "its client may come again"
        )
        back = "UPDATE vibevoice.jobs SET left_until = left_until - interval '31 s'"
        await one.database.fetch(back)
        await timeouts._end_overdue()
        assert [each.id for each in await one.jobs.list("me", JobFilter(private=True))] == [kept.id]
        assert job.id != kept.id


async def test_all_that_is_overdue_ends_at_one_look_the_longest_overdue_first(
    journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_jobs, "OVERDUE_BATCH", 2)
    async with service(journal, tmp_path) as one:
        timeouts, _ = timeouts_of(one, journal)
        jobs = [submitted("me", kept=False) for _ in range(5)]
        for ago, job in enumerate(jobs, 1):
            await one.jobs.submit(job)
            await one.database.fetch(
                """UPDATE vibevoice.jobs SET left_until = clock_timestamp()
                    - make_interval(secs => %s) WHERE id = %s""",
                (ago, job.id),
            )
        assert await one.jobs.delete_overdue() == 2
        left = [record.id for record in await one.jobs.list("me", JobFilter(private=True))]
        assert left == [job.id for job in jobs[:3]]
        await timeouts._end_overdue()
        assert not await one.jobs.list("me", JobFilter(private=True))


@pytest.mark.parametrize("answered", [True, False])
async def test_a_service_that_was_taken_for_dead_keeps_the_jobs_of_its_clients(
    journal: str, tmp_path: Path, answered: bool
) -> None:
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        (timeouts, _), (_, waits) = (timeouts_of(each, journal) for each in (one, other))
        await accepted(other, waits)
        await one.membership._expire({"other": None})
        if not answered:  # its first heartbeat was executed, but the answer is lost
            await other.database.call("beat_1", "other", True, False)
        await other.membership.register()
        back = "UPDATE vibevoice.jobs SET left_until = left_until - interval '31 s'"
        await one.database.fetch(back)
        await timeouts._end_overdue()
        assert len(await one.jobs.list("me", JobFilter(private=True))) == 1


async def test_a_job_that_is_submitted_after_its_service_left_ends_after_a_while(
    journal: str, tmp_path: Path
) -> None:
    """As by a server that was frozen and executes the call when the service has gone."""
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        (timeouts, _), (_, waits) = (timeouts_of(each, journal) for each in (one, other))
        await other.membership.leave()
        await accepted(other, waits)
        await one.housekeeping._sweep()
        back = "UPDATE vibevoice.jobs SET left_until = left_until - interval '31 s'"
        await one.database.fetch(back)
        await timeouts._end_overdue()
        assert not await one.jobs.list("me", JobFilter(private=True))


async def test_a_call_that_awaits_a_job_after_it_was_left_again_does_not_have_it(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path) as one:
        job = submitted("me", kept=False)
        await one.jobs.submit(job)
        code = ("me", "code")
        await one.database.call("leave_1", job.id, "code", 60.0, None)
        assert await one.database.call("take_1", *code, "first")
        await one.database.call("leave_1", job.id, "code", 30.0, "first")
        assert not await one.database.call("await_1", job.id, "one", "first")
        assert await one.database.call("take_1", *code, "second")
        assert await one.database.call("await_1", job.id, "one", "second")


async def test_a_call_that_took_a_job_too_late_has_it_no_more(
    journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        (here, waits), (there, _) = (timeouts_of(each, journal) for each in (one, other))
        job = await accepted(one, waits)
        await left(here, job, "sent", 60)
        get, took = one.jobs.get, list[Job | None]()

        async def slowly(job_id: str) -> JobRecord:
            back = "UPDATE vibevoice.jobs SET left_taken = left_taken - interval '13 s'"
            await one.database.fetch(back)
            took.append(await taken(there))
            return await get(job_id)

        monkeypatch.setattr(one.jobs, "get", slowly)
        assert await taken(here) is None
        assert took[0] is not None


async def test_a_job_that_ends_as_its_client_times_out_stays_for_the_next_request(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path) as one:
        timeouts, waits = timeouts_of(one, journal)
        job = await accepted(one, waits)
        timeouts.leave(job, "sent", 60)
        assert waits.jobs == [], "its end would delete it before anything else is done here"


async def test_a_front_whose_client_timed_out_is_notified_of_its_job_no_more(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        (here, waits), (there, waits_there) = (timeouts_of(each, journal) for each in (one, other))
        followers = "SELECT followers FROM vibevoice.jobs"
        job = await accepted(one, waits)
        await left(here, job, "sent", 60)
        assert await one.database.fetch(followers) == [([],)]
        again = await taken(there)
        assert again is not None
        assert await one.database.fetch(followers) == [(["other"],)]
        waits_there.follows_all = True
        await left(there, again, "sent", 60)
        assert await taken(here) is not None
        assert await one.database.fetch(followers) == [(["other", "one"],)], "it counts its events"


async def test_a_lost_answer_changes_nothing_for_a_client_that_has_timed_out_again_elsewhere(
    journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second front leaves the job for another request before the first repeats its call."""
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        (here, waits), (there, _) = (timeouts_of(each, journal) for each in (one, other))
        job, call, calls = await accepted(one, waits), one.database.call, 0

        async def unanswered(function: str, *values: object) -> object:
            nonlocal calls
            found = await call(function, *values)
            if function == "leave_1" and (calls := calls + 1) == 1:
                again = await taken(there)
                assert again is not None
                await left(there, again, "sent later", 60)
                raise errors.JournalUnreachable()
            return found

        monkeypatch.setattr(one.database, "call", unanswered)
        await left(here, job, "sent", 60)
        assert calls == 2
        assert await taken(here) is None, "it is left for the other request"
        assert await taken(here, digest="sent later") is not None

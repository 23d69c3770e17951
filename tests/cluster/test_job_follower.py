"""Jobs that are followed here: each event once, in order, whatever the connection does."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from postgres import Cluster
from service_process import until
from shared_job_services import DONE, SEGMENT, Service, service, submitted, until_told

from sidecar import errors
from sidecar.audio.upload_spool import UploadSpool
from sidecar.cluster.claims import Claim
from sidecar.cluster.job_follower import EVENTS_CHANNEL
from sidecar.jobs.job_record import CancelledChange, JobState, ReportedChange, StartedChange
from sidecar.jobs.job_runner import Job
from sidecar.storage.postgres_database import FAULT_RETRY_PAUSE_S
from sidecar.transcripts.transcript import Finished, Segment, Transcript


def job_of(record: object) -> Job:
    return Job(UploadSpool(None).finish(), record)  # type: ignore[arg-type]


async def claimed(node: Service) -> Claim:
    """The job. Its row is passed over while a follower's call has it locked."""
    claims: list[Claim] = []

    async def tried() -> bool:
        claims.extend(one for one in [await node.claim()] if one is not None)
        return bool(claims)

    await until_told(tried)
    return claims[0]


async def numbers(one: Service, job_id: str, after: int = 0) -> list[int]:
    with await one.jobs.subscribe(job_id, after) as events:
        return [event.seq async for event in events]


def hears_only(one: Service) -> bool:
    """Whether its follower waits for a notification: it listens, and no read is under way, which
    would see what happens next."""
    listening = one.database._callbacks.keys() <= one.database._listened
    wake = one.follower._wake
    return listening and not wake.is_set() and bool(wake._waiters)


async def test_every_follower_has_every_event_once_from_the_number_that_it_names(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        (job,) = await one.submit("a")
        early = [asyncio.create_task(numbers(each, job.id)) for each in (one, other, other)]
        claim = await claimed(one)
        begun = await one.report(claim, claim.record, StartedChange())
        assert begun is not None
        middle = asyncio.create_task(numbers(other, job.id, 1))
        said = await one.report(claim, begun, SEGMENT)
        assert said is not None
        assert await one.report(claim, said, DONE)
        assert [await each for each in early] == [[1, 2, 3]] * 3
        assert await middle == [2, 3]
        assert await numbers(other, job.id, 2) == [3]
        assert await numbers(other, job.id, 3) == []
        await until(lambda: not one.follower.following and not other.follower.following)


async def test_only_jobs_that_are_followed_are_in_memory(journal: str, tmp_path: Path) -> None:
    async with service(journal, tmp_path) as one:
        jobs = await one.submit(*["a"] * 20)
        with await one.jobs.subscribe(jobs[3].id):
            assert one.follower.following == 1
        assert one.follower.following == 0
        followed = job_of(jobs[4])
        one.follower.follow(followed)
        assert one.follower.following == 1
        one.follower.unfollow(followed)
        assert one.follower.following == 0


async def test_a_job_that_is_awaited_hears_its_end(journal: str, tmp_path: Path) -> None:
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        (record,) = await one.submit("a")
        job = job_of(record)
        one.follower.follow(job)
        claim = await claimed(other)
        await other.run(claim)
        assert (await job.result()).segments[0].text == "hello"
        assert one.follower.following == 0


async def test_a_follower_of_a_job_that_is_deleted_elsewhere_hears_that_it_ended(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        (job,) = await one.submit("a")
        with await one.jobs.subscribe(job.id) as events:
            await other.jobs.delete(job.id)
            assert [event.change async for event in events] == [CancelledChange()]
        with pytest.raises(errors.JobNotFound):
            await one.jobs.subscribe(job.id)


async def test_what_happened_while_there_was_no_connection_is_told_then(
    journal: str, tmp_path: Path, postgres_cluster: Cluster
) -> None:
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        (job,) = await one.submit("a")
        following = asyncio.create_task(numbers(one, job.id))
        await until(lambda: one.follower.following == 1)
        claim = await claimed(other)
        begun = await other.report(claim, claim.record, StartedChange())
        assert begun is not None
        with postgres_cluster.connected(journal.rsplit("/", 1)[1]) as connection:
            connection.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
            )
        said = await other.report(claim, begun, SEGMENT)
        assert said is not None
        assert await other.report(claim, said, DONE)
        assert await following == [1, 2, 3]


async def test_a_follower_that_leaves_while_events_are_read_holds_up_no_other(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        first, second = await one.submit("a", "b")
        stays = asyncio.create_task(numbers(one, second.id))
        leaves = await one.jobs.subscribe(first.id)
        await until(lambda: one.follower.following == 2)
        fetch = one.database.fetch

        async def leaving(*of: object) -> object:
            leaves.close()
            return await fetch(*of)  # type: ignore[arg-type]

        one.database.fetch = leaving  # type: ignore[assignment,method-assign]
        for _ in range(2):
            claim = await claimed(other)
            await other.run(claim)
        async with asyncio.timeout(FAULT_RETRY_PAUSE_S / 2):
            assert await stays == [1, 2, 3]


@pytest.mark.parametrize(("words", "reads"), [(10, 0), (4000, 1)])
async def test_short_events_of_a_followed_job_are_heard_without_a_call(
    journal: str, tmp_path: Path, words: int, reads: int
) -> None:
    """A notification has less than 8,000 bytes."""
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        private = submitted("a", kept=False)
        await one.jobs.submit(private)
        job = job_of(private)
        one.follower.follow(job)
        await until(lambda: hears_only(one))
        fetch, read = one.database.fetch, list[str]()

        async def counted(sql: str, values: object = ()) -> object:
            read.append(sql)
            return await fetch(sql, values)  # type: ignore[arg-type]

        claim = await claimed(other)
        begun = await other.report(claim, claim.record, StartedChange())
        assert begun is not None
        await until(lambda: job.state is JobState.RUNNING)
        one.database.fetch = counted  # type: ignore[assignment,method-assign]
        said = Segment(0.0, 1.0, " ".join(f"{os.urandom(2).hex()}" for _ in range(words)), 0)
        done = ReportedChange(Finished(Transcript((said,), "en", 3.0, "scripted", "fp32")))
        assert await other.report(claim, begun, done) is not None
        assert (await job.result()).segments[0] == said
        assert len(read) == reads


async def test_a_notification_behind_one_that_was_missed_has_both_read(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path) as one, service(journal, tmp_path, "other") as other:
        private = submitted("a", kept=False)
        await one.jobs.submit(private)
        job = job_of(private)
        one.follower.follow(job)
        await until(lambda: hears_only(one))
        (hear,) = one.database._callbacks[EVENTS_CHANNEL + "one"]
        one.database._callbacks[EVENTS_CHANNEL + "one"] = []
        claim = await claimed(other)
        begun = await other.report(claim, claim.record, StartedChange())
        assert begun is not None
        await asyncio.sleep(0.2)
        assert job.state is JobState.QUEUED
        one.database._callbacks[EVENTS_CHANNEL + "one"] = [hear]
        assert await other.report(claim, begun, SEGMENT, DONE)
        assert (await job.result()).segments[0].text == "hello"
        assert [segment.text for segment in job.record.segments] == ["hello"]

"""Jobs that are followed here: each event once, in order, whatever the connection does."""

import asyncio
import os
from typing import Any

import pytest
from job_event_histories import taken
from service_process import until
from shared_job_services import (
    DONE,
    SEGMENT,
    Service,
    listening,
    submitted,
    until_told,
    watched,
)
from uploads import upload

from sidecar import errors
from sidecar.jobs.job_record import (
    CancelledChange,
    FailedChange,
    JobState,
    ReportedChange,
    StartedChange,
)
from sidecar.jobs.job_runner import Job
from sidecar.plugins.shared_jobs.claims import Claim
from sidecar.plugins.shared_jobs.job_follower import EVENTS_CHANNEL
from sidecar.transcripts.transcript import Finished, Segment, Transcript


def job_of(record: object) -> Job:
    return Job(upload(b""), record)  # type: ignore[arg-type]


async def claimed(node: Service) -> Claim:
    """The job. Its row is passed over while a follower's call has it locked."""
    claims: list[Claim] = []

    async def tried() -> bool:
        claims.extend(one for one in [await node.claim()] if one is not None)
        return bool(claims)

    await until_told(tried)
    return claims[0]


async def numbers(one: Service, job_id: str) -> list[int]:
    with await one.jobs.subscribe(job_id) as events:
        return [event.seq async for event in taken(events)]


async def followed(one: Service) -> Job:
    """A job that this service follows, and that nothing has happened to."""
    await listening(one.database)
    private = submitted("a", kept=False)
    await one.jobs.submit(private)
    job, fetch, read = job_of(private), one.database.fetch, list[str]()

    async def noted(sql: str, *values: Any, **how: Any) -> Any:
        rows = await fetch(sql, *values, **how)
        read.append(sql)
        return rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one.database, "fetch", noted)
        one.follower.follow(job)
        await until(lambda: any("recording" in sql for sql in read), "no read is under way")
    return job


async def test_only_followed_jobs_are_in_memory(one: Service) -> None:
    jobs = await one.submit(*["a"] * 20)
    with await one.jobs.subscribe(jobs[3].id):
        assert len(one.follower.followed) == 1
    assert len(one.follower.followed) == 0
    followed = job_of(jobs[4])
    one.follower.follow(followed)
    assert len(one.follower.followed) == 1
    one.follower.unfollow(followed)
    assert len(one.follower.followed) == 0


async def test_subscriber_of_job_deleted_elsewhere_sees_it_cancelled_and_a_later_one_finds_no_job(
    one: Service, other: Service
) -> None:
    (job,) = await one.submit("a")
    with await one.jobs.subscribe(job.id) as events:
        await other.jobs.delete(job.id)
        assert [event.change async for event in taken(events)] == [CancelledChange()]
    with pytest.raises(errors.JobNotFound):
        await one.jobs.subscribe(job.id)


async def test_subscriber_that_leaves_during_a_read_does_not_delay_others(
    one: Service, other: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await one.submit("a", "b")
    stays = asyncio.create_task(numbers(one, second.id))
    leaves = await one.jobs.subscribe(first.id)
    await until(lambda: len(one.follower.followed) == 2)

    async def leaving(_: str) -> None:
        leaves.close()

    watched(one.database, monkeypatch, leaving, "fetch")
    for _ in range(2):
        claim = await claimed(other)
        await other.run(claim)
    assert await stays == [1, 2, 3]
    assert "internal error" not in caplog.text, "both waited for another attempt"


@pytest.mark.parametrize(("words", "reads"), [(10, 0), (4000, 2)])
async def test_short_events_arrive_in_the_notification_and_long_ones_by_a_database_read(
    one: Service, other: Service, words: int, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notification has less than 8,000 bytes. A read asks for the size of the events first."""
    job = await followed(one)
    claim = await claimed(other)
    begun = await other.report(claim, claim.record, StartedChange())
    assert begun is not None
    await until(lambda: job.state is JobState.RUNNING)
    read = watched(one.database, monkeypatch, method="fetch")
    said = Segment(0.0, 1.0, " ".join(f"{os.urandom(2).hex()}" for _ in range(words)), 0)
    done = ReportedChange(Finished(Transcript((said,), "en", 3.0, "scripted", "fp32")))
    assert await other.report(claim, begun, done) is not None
    assert (await job.result()).segments[0] == said
    assert len(read) == reads
    assert len(one.follower.followed) == 0


@pytest.mark.parametrize(
    ("unreadable", "kind", "code"),
    [
        ("change = '\\x00'", "finished", "audio_lost"),
        ("change = NULL, kind = 'epilogue'", "finished", "journal_unreachable"),
        ("change = '\\x00'", "begun", "audio_lost"),
        ("change = '\\x00'", "segmentready", None),
        ("change = NULL, kind = 'aside'", "segmentready", None),
    ],
)
async def test_clients_of_a_job_with_an_unreadable_event_get_its_end_or_an_error_and_others_go_on(
    one: Service, other: Service, unreadable: str, kind: str, code: str | None
) -> None:
    missed = list[str]()
    one.database.listen(EVENTS_CHANNEL + "one", missed.append)
    job = await followed(one)
    with await one.jobs.subscribe(job.id) as subscription:
        healthy = await followed(one)  # nor is the read of the subscription under way
        for _ in range(2):
            claim = await claimed(other)
            await other.report(claim, claim.record, StartedChange(), SEGMENT, DONE)
        await one.database.fetch(
            f"UPDATE vibevoice.events SET {unreadable} WHERE job = %s AND kind = %s",
            (job.id, kind),
        )
        one.follower.hear_notification("")
        assert (await healthy.result()).text == "hello"
        await job.over()
        assert (job.error and job.error.code) == code
        events = [event.change async for event in taken(subscription)]
    assert isinstance(events[-1], FailedChange) if code else events[-1] == DONE
    assert len(one.follower.followed) == 0


async def test_events_of_a_missed_notification_are_read_at_the_next_one(
    one: Service, other: Service
) -> None:
    misses, missed = False, list[str]()

    def hear(payload: str) -> None:
        (missed.append if misses else one.follower.hear_notification)(payload)

    one.database.listen(EVENTS_CHANNEL + "one", hear)
    job = await followed(one)
    misses = True
    claim = await claimed(other)
    begun = await other.report(claim, claim.record, StartedChange())
    assert begun is not None
    await until(lambda: missed)
    assert job.state is JobState.QUEUED
    misses = False
    assert await other.report(claim, begun, SEGMENT, DONE)
    assert (await job.result()).segments[0].text == "hello"
    assert [segment.text for segment in job.record.segments] == ["hello"]
